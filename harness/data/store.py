"""One form for every dataset: a zarr v3 group of image shards, a manifest that proves it, and a way to write it that survives.

`<root>/<name>.zarr` holds `images` (N, R, R, C) uint8 in the row-major order of the factor grid; its group attributes hold the
spec of the dataset (grid and splits) and its source. Beside it: `<name>.manifest.jsonl`, `<name>.md` (the dataset card),
`<name>.png` (a preview) and `<name>.croissant.json` (the card for programs).

Here is a finished store: reading it, proving it. `harness.data.writer` writes it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from harness.data.description import (
    ARRAY,
    FORMAT,
    GROUP,
    Description,
    hashes,
    is_consolidated,
    proven_documents,
    read_attributes,
    read_description,
)
from harness.data.manifest import Entry, Paths, covers, parts_entries, read_finished, shard_index, shard_path
from harness.data.names import stores_in
from harness.data.shards import ShardFiles, kind_of, stat_of, wrong_file
from harness.io.atomic import sha256
from splits.errors import DamagedError, InputError, MissingError, OodDataError, did_you_mean

__all__ = ["Description", "Problem", "Store", "overview", "rows_of_shard", "verify"]

SHARD_BYTES = 16 * 2**20  # of a shard, uncompressed, unless a dataset has a natural unit
MOST_UNLISTED = 20  # shards that a manifest lacks, named by `verify`: a forged document may describe any number


def rows_of_shard(shape: tuple[int, int, int, int]) -> int:
    """How many images of a store of that shape (N, R, R, C) make a shard of about 16 MiB."""
    return max(1, min(shape[0], SHARD_BYTES // math.prod(shape[1:])))


class Store:
    """A finished store, opened for reading: whatever is read of it is what its manifest says, or an error.

    A store that is being extended is, until that is finished, the one that it was.

    Attributes:
        name: of the dataset.
        images: zarr array (N, R, R, C) uint8.
        spec: its grid and splits, plain JSON (`splits.spec_from_dict`).
        source: what it was made from.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        """Open `<root>/<name>.zarr`.

        Raises:
            FileNotFoundError: if there is no such store, or it is unfinished.
            ValueError: if what is there is not a store of this format.
            DamagedError: if its manifest or a zarr document is damaged.
        """
        paths = Paths(Path(root), name)
        documents = paths.documents()
        if not paths.manifest.exists() or not paths.group.is_dir():
            if GROUP not in documents:
                raise MissingError(missing(paths))
            if read_attributes(documents) is None:
                raise InputError(f"{paths.group} is not a dataset store of format {FORMAT}: choose another folder")
            raise MissingError(f"{paths.group} is unfinished: repeat the command that makes it, and it continues")
        for _ in range(2):  # once more if it was finished or overwritten between two looks
            entries, files = read_finished(paths.manifest)
            proven = proven_documents(documents, files)
            if proven is not None:
                break
            documents = paths.documents()
        if proven is None and paths.begun():
            raise MissingError(f"{paths.group} is being changed: repeat the command that changes it, and it continues")
        if proven is None:
            which = next(name for name in (GROUP, ARRAY) if hashes(documents).get(name) != files[name])
            raise DamagedError(f"{paths.group / which} is missing or damaged: the command that made the store restores it")
        description = read_description(proven)
        if description is None:
            raise InputError(f"{paths.group} is not a dataset store of format {FORMAT}: choose another folder")
        if not covers(entries, description):
            raise DamagedError(
                f"{paths.manifest} is damaged (it lists other shards than the store has): the command that made it restores it"
            )
        self._open(paths, description, proven, entries)

    @classmethod
    def of(cls, paths: Paths, description: Description, entries: Iterable[Entry]) -> Store:
        """A store whose shards are all there, before it is declared finished."""
        store = cls.__new__(cls)
        store._open(paths, description, description.metadata(), entries)
        return store

    def _open(self, paths: Paths, description: Description, documents: Mapping[str, bytes], entries: Iterable[Entry]) -> None:
        self.paths, self.description, self.name = paths, description, paths.name
        self.spec: dict[str, Any] = description.spec
        self.source: dict[str, Any] = description.source
        self.files = ShardFiles(paths.group, documents, entries)
        self.images: zarr.Array[Any] = zarr.open_array(self.files, path="images", mode="r")

    def __len__(self) -> int:
        return self.description.shape[0]

    @property
    def rows(self) -> int:
        """Images per shard."""
        return self.description.rows

    @property
    def compressed(self) -> bool:
        """Whether the shards are; if not, each begins with the bytes of its images."""
        return self.description.compress

    def shard(self, index: int) -> Path:
        """The file of a shard."""
        return self.paths.group / shard_path(index)

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images [start, stop) as (stop - start, R, R, C) uint8.

        Raises:
            ValueError: if there are no such images.
            OSError: if one of their shards is missing or damaged.
        """
        if not 0 <= start <= stop <= len(self):
            raise InputError(f"{self.name} has {len(self):,} images: there are none from {start:,} to {stop - 1:,}")
        if self.compressed:
            try:
                return np.asarray(self.images[start:stop], dtype=np.uint8)
            except (ValueError, RuntimeError) as error:  # crc32c's and zstd's
                raise DamagedError(
                    f"images {start:,} to {stop - 1:,} of {self.paths.group} are damaged ({error}): "
                    f"`ood-data data verify {self.name} --data {self.paths.root}` names the shard"
                ) from None
        images = np.empty((stop - start, *self.description.shape[1:]), dtype=np.uint8)
        for shard in range(start // self.rows, -(-stop // self.rows)):
            rows = self.description.rows_of(shard)
            first, last = max(start, rows.start), min(stop, rows.stop)
            with self.files.opened(shard_path(shard)) as file:
                file.seek((first - rows.start) * math.prod(images.shape[1:]))
                wanted = images[first - start : last - start]
                if file.readinto(wanted.data) != wanted.nbytes:
                    raise DamagedError(
                        f"{self.shard(shard)} was cut while it was read: `ood-data data verify {self.name} --data {self.paths.root}`"
                    )
        return images


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
    except DamagedError as error:
        return [Problem(paths.manifest.name, f"damaged: {error.__cause__}")]
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


def missing(paths: Paths) -> str:
    if meant := did_you_mean(paths.name, stores_in(paths.root), else_all=False):
        return f"there is no {paths.name} in {paths.root}{meant}"
    return f"there is no {paths.name} in {paths.root}: make it with `ood-data generate` or `ood-data data convert`, or see `ood-data data list`"
