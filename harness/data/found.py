"""What a writer finds where a store will be: nothing, that store, the beginning of it, a damaged one, or something else.

Nothing here changes a file. A document that is lost or damaged is proven by the manifest, a shard of a damaged manifest by its own
line in it; what nothing proves is made again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.description import (
    GROUP,
    Description,
    hashes,
    is_consolidated,
    proven_documents,
    read_attributes,
    read_description,
)
from harness.data.manifest import Entry, Paths, parts_entries, read_finished, salvaged, shard_index
from harness.data.shards import kind_of, stat_of, wrong_file
from harness.io.atomic import sha256
from harness.io.locks import is_held
from splits.errors import BusyError, DamagedError, InputError, how_many


@dataclass(frozen=True)
class Found:
    """What is there.

    Attributes:
        description: what it holds; None if nothing says so yet.
        entries: the shards that a finished manifest lists, or the lines of a damaged one that prove their shards.
        files: the hashes of the other files by a finished manifest, empty if there is none.
        damaged: whether there is a manifest that is not what was written.
    """

    description: Description | None
    entries: list[Entry]
    files: dict[str, str]
    damaged: bool = False


def look(paths: Paths, ours: Description) -> Found:
    """What is there, if it is the described store, or the beginning of it, or can be made into it.

    Raises:
        ValueError: if it is something else, with every difference named.
        DamagedError: if it is damaged and nothing proves what it was.
    """
    refuse_links(paths)
    if not paths.group.exists():
        return Found(None, [], {})
    if not is_ours(paths):
        raise InputError(f"{paths.group} holds something that is not a dataset store: choose another `out`")
    documents = paths.documents()
    try:
        entries, files = read_finished(paths.manifest)
    except FileNotFoundError:
        found = Found(_unproven(paths, documents, ours), [], {})
    except DamagedError:
        proven = [entry for entry in salvaged(paths.manifest) if _holds(paths, entry)]
        found = Found(_unproven(paths, documents, ours), proven, {}, damaged=True)
    else:
        found = Found(_described(paths, documents, files, ours), entries, files)
    if found.description is not None:
        _check_same(paths, found.description, ours)
    return found


def check_source(paths: Paths, source: Mapping[str, Any]) -> None:
    """Raise InputError, naming each difference, if a store is there that was made from something else, as far as `source` says what.

    For those who want to know it before they have made or fetched the rest.
    """
    attributes = read_attributes(paths.documents())
    if attributes is not None:
        theirs = attributes["source"]
        _refuse_differences(paths, {key: theirs.get(key) for key in source}, source)


def check_length(paths: Paths, images: int) -> None:
    """Raise InputError if a store is there that has more images. Whether it is being extended to more, the writer sees."""
    _refuse_shorter(paths, read_description(paths.documents()), images)


def _refuse_shorter(paths: Paths, there: Description | None, images: int) -> None:
    if there is not None and there.shape[0] > images:
        raise InputError(
            f"{paths.group} holds, or is being extended to, {there.shape[0]:,} images, more than the {images:,} asked for: "
            "a store can be extended, not cut; choose another `out`, or `overwrite`"
        )


def refuse_links(paths: Paths) -> None:
    """Raise InputError where writing would change what lies somewhere else."""
    for folder in (paths.group, paths.group / "images"):
        if folder.is_symlink():
            raise InputError(
                f"{folder} is a link, and a store is written into a folder of its own: choose the `out` that it leads to"
            )


def documents_of(paths: Paths, ours: Description) -> dict[str, bytes]:
    """The zarr documents that the described store is to have: those that its manifest proves, if they say the same, else ours.

    Another version of zarr may write the same otherwise.
    """
    there = paths.documents()
    try:
        files = read_finished(paths.manifest)[1]
    except (FileNotFoundError, DamagedError):
        return ours.metadata()
    if hashes(there).items() <= files.items() and read_description(there) == ours:
        return there
    return ours.metadata_in(files) or ours.metadata()


def being_made(paths: Paths) -> Description | None:
    """What a finished store is being made into; None if nothing is being changed."""
    try:
        documents = {name: text.encode() for name, text in json.loads(paths.pending.read_bytes()).items()}
    except (FileNotFoundError, ValueError, AttributeError, RecursionError):
        return None
    return read_description(documents)


def check_others(paths: Paths, ours: Description, part: tuple[int, int], there: Description | None) -> None:
    """Raise unless this part can be written beside what other processes write, or have written and not finished.

    Raises:
        ValueError: if the store is being made in another number of parts, or longer.
        BlockingIOError: if another process is writing another length.
    """
    parts = paths.parts()
    if any(paths.is_begun(path) or is_held(path) for path in parts):
        there = being_made(paths) or there
    _refuse_shorter(paths, there, ours.shape[0])
    for path in parts:
        count = path.stem.rsplit("-of-", 1)[1]
        if count != str(part[1]) and (paths.is_begun(path) or is_held(path)):
            raise InputError(f"{paths.group} is being made in {how_many(int(count), 'part')}: continue with `part` i/{count}")
        if path != paths.part(part) and is_held(path) and there != ours:
            raise BusyError(f"another process is writing {paths.group} with another length: let it finish")


def done_shards(paths: Paths, description: Description, entries: Iterable[Entry]) -> dict[int, Entry]:
    """The described shards, by index, whose file is there with its length; from `entries` and those of all parts."""
    done = {}
    for entry in (*entries, *parts_entries(paths)):
        index = shard_index(entry["path"])
        rows = description.rows_of(index)  # not a last shard that has become a whole one
        if index < description.shards and range(entry["first"], entry["last"] + 1) == rows and _right_length(paths, entry):
            done[index] = entry
    return done


def wrong_files(paths: Paths, documents: dict[str, bytes], files: dict[str, str]) -> list[Path]:
    """Which of the documents, the card, the preview and a croissant that is listed are not `documents`, or what `files` are the hashes of."""
    expected = {paths.group / name: digest for name, digest in hashes(documents).items()}
    expected |= {path: files.get(path.name, "") for path in (paths.card, paths.preview)}
    expected |= {path: files[path.name] for path in (paths.croissant,) if path.name in files}
    wrong = [path for path, digest in expected.items() if not _is_file(path) or sha256(path) != digest]
    group = paths.group / GROUP
    if group in wrong and _is_file(group) and is_consolidated(group.read_bytes(), documents):
        wrong.remove(group)
    return wrong


def is_whole(paths: Paths, description: Description, documents: dict[str, bytes]) -> bool:
    """Whether the described store is finished, nothing of it missing, and nobody changes it. Bytes of shards are not looked at."""
    try:
        entries, files = read_finished(paths.manifest)
        return (
            hashes(documents).items() <= files.items()
            and files.keys() - {paths.croissant.name} == {*documents, paths.card.name, paths.preview.name}
            and not wrong_files(paths, documents, files)
            and not paths.begun()
            and len(done_shards(paths, description, entries)) == description.shards == len(entries)
        )
    except (FileNotFoundError, DamagedError):
        return False


def is_ours(paths: Paths) -> bool:
    """Whether a group is a store, the beginning of one, or a damaged one whose manifest beside it is ours."""
    try:
        if read_finished(paths.manifest):
            return True
    except FileNotFoundError:
        pass
    except DamagedError:
        if salvaged(paths.manifest):
            return True
    documents = paths.documents()
    if GROUP in documents:
        return read_attributes(documents) is not None
    return all(entry.name in ("images", "zarr.json.partial") for entry in paths.group.iterdir())


def _described(paths: Paths, documents: dict[str, bytes], files: dict[str, str], ours: Description) -> Description:
    """What a finished store holds."""
    proven = proven_documents(documents, files)
    if proven is None and ours.metadata_in(files):
        return ours  # the documents are lost, and the manifest says that they were these
    unfinished = read_description(documents)
    if proven is None and unfinished is not None and (paths.begun() or unfinished == being_made(paths)):
        return unfinished  # killed while it was finished
    description = read_description(proven) if proven else None
    if description is None:
        raise DamagedError(
            f"the zarr.json documents of {paths.group} are missing or damaged, and these parameters are not those that it was made "
            "with: run the command that made it, which restores them; or `overwrite`"
        )
    return description


def _unproven(paths: Paths, documents: dict[str, bytes], ours: Description) -> Description | None:
    """What a store without a whole manifest says that it holds."""
    description = read_description(documents)
    if description is None and GROUP in documents:
        if read_attributes(documents) != ours.attributes():
            raise DamagedError(f"the zarr.json documents of {paths.group} are missing or damaged: `overwrite` makes the store anew")
        return ours
    return description


def _check_same(paths: Paths, theirs: Description, ours: Description) -> None:
    """Raise, naming each difference, unless both are one store, whatever its length."""
    if theirs.name != ours.name:
        raise InputError(f"{paths.group} holds {theirs.name}, not {ours.name}: choose another `out`")
    layouts = ({"image shape": one.shape[1:], "images per shard": one.rows, "compression": one.compress} for one in (theirs, ours))
    there, here = (layout | one.source for layout, one in zip(layouts, (theirs, ours), strict=True))
    _refuse_differences(paths, there, here)


def _refuse_differences(paths: Paths, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    differences = [
        f"{key} is {there.get(key)} there, {here.get(key)} here"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key)
    ]
    if differences:
        raise InputError(
            f"{paths.group} was made with other parameters ({'; '.join(differences)}): choose another `out`, or `overwrite`"
        )


def _right_length(paths: Paths, entry: Entry) -> bool:
    return not wrong_file(stat_of(paths.group / entry["path"], follow=False), entry)


def _holds(paths: Paths, entry: Entry) -> bool:
    """Whether a shard is, by its hash, what a line says."""
    return _right_length(paths, entry) and sha256(paths.group / entry["path"]) == entry["sha256"]


def _is_file(path: Path) -> bool:
    found = stat_of(path, follow=False)
    return found is not None and kind_of(found) == "a file"
