"""What is wrong with the stores in a folder: each file against its hash in the manifest, and what does not belong there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.description import ARRAY, GROUP, is_consolidated, proven_documents, read_description
from harness.data.found import is_ours
from harness.data.manifest import Entry, Paths, parts_entries, read_finished, shard_index, shard_path
from harness.data.shards import kind_of, stat_of, wrong_file
from harness.data.store import Store, missing
from harness.io.atomic import sha256
from splits.errors import DamagedError, MissingError, OodDataError

MOST_UNLISTED = 20  # shards that a manifest lacks, named by `verify`: a forged document may describe any number


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a store: the file, relative to the root, and what about it."""

    path: str
    what: str
    advice: str = ""  # what to do about it, where that is not to repeat the command that made the store

    def __str__(self) -> str:
        return f"{self.path}: {self.what}{f': {self.advice}' if self.advice else ''}"


def verify(root: str | Path, name: str, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Problem]:
    """Hash everything of a store against its manifest; returns what is wrong, empty if nothing is.

    It proves that the store is what its manifest says, not who wrote that: whoever changes a shard and writes a manifest to match
    passes. Compare the manifest's own hash, in its last line, with one from where you trust.

    Args:
        root: folder of the stores.
        name: of the dataset.
        progress: called with shards done and their number.

    Raises:
        FileNotFoundError: if there is no such store.
    """
    paths = Paths(Path(root), name)
    if not paths.group.is_dir():
        raise MissingError(missing(paths))
    problems: list[Problem] = []
    entries: list[Entry] = []
    files: dict[str, str] = {}
    listed = stat_of(paths.manifest, follow=False)
    if (
        listed is not None and kind_of(listed) != "a file"
    ):  # a link to the right bytes too, as whoever changes its target changes it
        return [Problem(paths.manifest.name, f"is {kind_of(listed)}, not a file", "put the file in its place")]
    try:
        entries, files = read_finished(paths.manifest)
    except FileNotFoundError:
        problems.append(Problem(paths.manifest.name, "missing: the store is unfinished", "run the command that makes it again"))
        problems += _lost(paths)
    except DamagedError as error:
        return [Problem(paths.manifest.name, f"damaged: {error.__cause__}"), *_lost(paths)]
    try:
        added = parts_entries(paths)
        if files and added:
            problems.append(Problem(paths.parts()[0].name, "left over", "run the command that made or extended the store again"))
    except DamagedError as error:
        added = []
        problems.append(Problem(paths.parts()[0].name, f"damaged: {error.__cause__}", "delete it"))
    shards = {entry["path"]: entry for entry in (*entries, *added)}
    if files:
        problems += [*_wrong_files(paths, files), *_wrong_lines(paths, entries, set(shards))]
    for number, (path, entry) in enumerate(shards.items()):
        if wrong := wrong_file(stat_of(paths.group / path, follow=False), entry):
            problems.append(Problem(f"{paths.group.name}/{path}", wrong))
        elif sha256(paths.group / path) != entry["sha256"]:
            problems.append(Problem(f"{paths.group.name}/{path}", "differs from the manifest"))
        progress(number + 1, len(shards))
    growing = not files or bool(added)
    return [*problems, *_foreign(paths, {GROUP, ARRAY, *shards}, growing)]


def _lost(paths: Paths) -> list[Problem]:
    """That nothing proves what a store is, whose manifest doesn't: no command writes into such a group."""
    if is_ours(paths):
        return []
    return [Problem(paths.group.name, "nothing says what it holds", "if it is a store that was damaged, delete it")]


def _wrong_files(paths: Paths, files: dict[str, str]) -> Iterator[Problem]:
    """What is wrong with the documents, the card, the preview and a croissant that is listed."""
    beside = (paths.card, paths.preview, *((paths.croissant,) if paths.croissant.name in files else ()))
    where = {GROUP: paths.group / GROUP, ARRAY: paths.group / ARRAY} | {path.name: path for path in beside}
    for name in sorted(where.keys() ^ files.keys()):
        yield Problem(
            paths.manifest.name, f"lists {name}, which is none of its files" if name in files else f"does not list {name}"
        )
    for name in sorted(where.keys() & files.keys()):
        path, found = where[name], stat_of(where[name], follow=False)
        shown = path.relative_to(paths.root).as_posix()
        if found is None or kind_of(found) != "a file":
            yield Problem(shown, "missing" if found is None else f"is {kind_of(found)}, not a file")
        elif sha256(path) != files[name] and not (name == GROUP and _is_consolidated(paths, files)):
            yield Problem(shown, "differs from the manifest")


def _is_consolidated(paths: Paths, files: dict[str, str]) -> bool:
    """Whether the group's document has a copy of the array's more than the manifest says, and nothing else."""
    documents = paths.documents()
    proven = proven_documents(documents, files)
    return proven is not None and is_consolidated(documents[GROUP], proven)


def _wrong_lines(paths: Paths, entries: list[Entry], listed: set[str]) -> Iterator[Problem]:
    """Shards that the documents describe and the manifests don't, or as other images."""
    description = read_description(paths.documents())
    if description is None:
        return
    unlisted = (path for path in map(shard_path, range(description.shards)) if path not in listed)
    for path in itertools.islice(unlisted, MOST_UNLISTED):
        yield Problem(f"{paths.group.name}/{path}", "is not in the manifest")
    for entry in entries:
        if range(entry["first"], entry["last"] + 1) != description.rows_of(shard_index(entry["path"])):
            yield Problem(f"{paths.group.name}/{entry['path']}", "has other images than its line in the manifest says")


def _foreign(paths: Paths, known: set[str], growing: bool) -> Iterator[Problem]:
    """What lies in the group and isn't `known`; shards without a line are no strangers while a store is `growing`."""
    for folder in (paths.group, paths.group / "images"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            inside, found = path.relative_to(paths.group).as_posix(), stat_of(path, follow=False)
            if inside in known or found is None or (inside == "images" and kind_of(found) == "a folder"):
                continue
            if growing and kind_of(found) == "a file" and shard_index(inside.removesuffix(".partial")) >= 0:
                continue
            yield Problem(f"{paths.group.name}/{inside}", "does not belong to the store", "delete it")


def overview(root: str | Path) -> list[dict[str, Any]]:
    """The stores in a folder: name, images, bytes on disk, origin, whether complete, what is damaged."""
    found = []
    for group in sorted(Path(root).glob("*.zarr")):
        paths = Paths(group.parent, group.stem)
        documents = paths.documents()
        if GROUP not in documents and not paths.manifest.exists():
            continue  # a zarr group of somebody else's
        description, complete, damage = read_description(documents), False, ""
        try:
            store = Store(root, paths.name)
            description, damage = store.description, store.files.wrong()
            complete = not damage
        except MissingError:
            pass  # unfinished
        except OodDataError as error:
            damage = str(error)
        source = description.source if description else {}
        found.append(
            {
                "name": paths.name,
                "images": description.shape[0] if description else 0,
                "shape": list(description.shape) if description else [0],
                "bytes": sum(map(_size, group.rglob("*"))),
                "origin": source.get("generator", source.get("file", "unknown")),
                "complete": complete,
                "damage": damage,
            }
        )
    return found


def _size(path: Path) -> int:
    """The bytes of a file; 0 for a folder, or for a file that a writer has renamed since it was listed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0
