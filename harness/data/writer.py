"""Writing a store so that it survives: any process may die at any moment, and the next one continues to the same bytes.

The unit of writing is a shard, and a shard has one writer. It is encoded in memory, written, synced and renamed into place, and
only then gets its line in the manifest of the writer's part: a shard without a line does not exist. When the last part is done,
the parts become one manifest. Whoever looks at or changes more than its own part holds the store's lock meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import zarr
from numpy.typing import NDArray

from harness.data.manifest import Entry, Paths, all_entries, cut_torn_line, finished, is_complete, line, read_finished
from harness.data.store import Description, Store, read_attributes, stored_shape
from harness.io.atomic import sha256, sync_folder, write_atomically
from harness.io.locks import is_held, locked
from splits.errors import BusyError, DamagedError, InputError

SPARE_BYTES = 16 * 2**20  # room for the manifest, card and preview


class Writer:
    """Writes the shards of one part of a store, continuing whatever is there.

    Use as a context manager: it holds the part's lock meanwhile. A store that is refused is not changed.

    Args:
        root: folder of the stores.
        description: what the store is to hold.
        part: (i, n), i from 1: the i-th of n ranges of shards.
        overwrite: remove a store that is there first; not together with parts, which would remove each other.

    Raises:
        ValueError: if the folder holds something else, with every difference named.
        BlockingIOError: if another process is writing this part, or another length of this store.
        DamagedError: if what is there cannot be continued.
        OSError: if the folder cannot be written or the disk has no room, with the bytes needed.
    """

    def __init__(self, root: str | Path, description: Description, part: tuple[int, int] = (1, 1), overwrite: bool = False) -> None:
        index, count = part
        if not 1 <= index <= count:
            raise InputError(f"part {index}/{count} does not exist: parts are 1/n to n/n")
        if overwrite and count > 1:
            raise InputError("--overwrite would remove the other parts: remove the store with one command, then start the parts")
        self.paths = Paths(Path(root), description.name)
        self.description = description
        self.part = part
        self.range = range((index - 1) * description.shards // count, index * description.shards // count)
        self._log: BinaryIO | None = None
        new = next(folder for folder in (self.paths.root, *self.paths.root.parents) if folder.exists())
        _check_space(new, description, len(self.range) if overwrite or not self.paths.group.exists() else 0)
        self.paths.root.mkdir(parents=True, exist_ok=True)
        with locked(self.paths.lock):
            if overwrite:
                remove(root, description.name)
            self._check()
            self.done = _done_shards(self.paths, description)
            _check_space(self.paths.root, description, len(self.missing))
            if not self.complete:
                self._begin()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._log is not None:
            with contextlib.suppress(OSError):  # of a write that failed before and is tried again; all others are synced
                self._log.close()

    @property
    def missing(self) -> list[int]:
        """Indices of this part's shards that are yet to be written."""
        return [shard for shard in self.range if shard not in self.done]

    @property
    def complete(self) -> bool:
        """Whether the whole store was finished before and nothing is to be added."""
        return not self.missing and is_complete(self.paths, self.description.shape[0])

    def rows(self, shard: int) -> range:
        """The indices of a shard's images."""
        return _rows(self.description, shard)

    def publish(self, shard: int, images: NDArray[np.uint8]) -> None:
        """Write one shard of this part: ``images`` (rows, R, R, C) uint8. Atomic; safe to interrupt."""
        assert self._log is not None
        data = self.description.encode(images)
        path = self.paths.shard(shard)
        write_atomically(self.paths.group / path, data)
        entry = {
            "path": path,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "first": self.rows(shard).start,
            "last": self.rows(shard).start + len(images) - 1,
        }
        try:
            self._log.write(line(entry))
            self._log.flush()
            os.fsync(self._log.fileno())
        except OSError as error:  # a write to a full disk names no file
            raise OSError(error.errno, error.strerror, self._log.name) from error
        self.done[shard] = entry

    def finish(self, card: Callable[[Store], str], preview: Callable[[Store], bytes]) -> bool:
        """If every shard of every part is written, complete the store: card, preview, one sorted manifest. Else do nothing.

        Args:
            card: makes the dataset card's markdown.
            preview: makes the preview's PNG bytes.

        Returns:
            whether the store is complete.
        """
        with locked(self.paths.lock):
            metadata = self.description.metadata()
            if self._metadata_differs():  # extended by another process since
                return False
            if is_complete(self.paths, self.description.shape[0]):
                return True  # another part's process did it
            done = _done_shards(self.paths, self.description)
            if len(done) < self.description.shards:
                return False
            for stray in (self.paths.group / "images").iterdir():  # left by removals and kills
                if stray.name.endswith(".partial") or (stray.name.startswith("c.") and _shard_of(stray) not in done):
                    stray.unlink()
            store = Store.__new__(Store)  # readable before it is declared finished
            store.paths, store.name = self.paths, self.description.name
            store.spec, store.source = self.description.spec, self.description.source
            store.images = zarr.open_group(self.paths.group, mode="r")["images"]  # type: ignore[assignment]
            write_atomically(self.paths.preview, preview(store))
            write_atomically(self.paths.card, card(store).encode())
            files = {path.name: sha256(path) for path in (self.paths.card, self.paths.preview)}
            files |= {name: hashlib.sha256(data).hexdigest() for name, data in metadata.items()}
            write_atomically(self.paths.manifest, finished([done[shard] for shard in sorted(done)], files))
            for path in self.paths.parts():
                path.unlink(missing_ok=True)
            sync_folder(self.paths.root)
        return True

    def discard(self) -> None:
        """Remove the store: what was written turned out to be wrong."""
        self.__exit__()
        with locked(self.paths.lock):
            remove(self.paths.root, self.paths.name)

    def _check(self) -> None:
        """Raise unless what is there is ours, or the beginning of ours. Changes nothing."""
        if (self.paths.group / "zarr.json").exists():
            _check_same(self.paths, self.description)
        elif self.paths.group.exists() and not _is_ours(self.paths):
            raise InputError(f"{self.paths.group} holds something that is not a dataset store: choose another --out")
        mine = self.paths.part(self.part)
        for path in self.paths.parts():
            count = path.stem.rsplit("-of-", 1)[1]
            if count != str(self.part[1]) and (path.stat().st_size or is_held(path)):
                raise InputError(f"{self.paths.group} is being made in {count} parts: continue with --part i/{count}")
            if path != mine and is_held(path) and self._metadata_differs():
                raise BusyError(f"another process is writing {self.paths.group} with another length: let it finish")

    def _begin(self) -> None:
        """Lock the part and write the metadata."""
        mine = self.paths.part(self.part)
        existed = mine.exists()
        self._log = mine.open("ab")
        try:
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._log.close()
            raise BusyError(
                f"another process is writing part {self.part[0]}/{self.part[1]} of {self.paths.group}: let it finish, or stop it"
            ) from None
        try:
            cut_torn_line(mine)
            (self.paths.group / "images").mkdir(parents=True, exist_ok=True)
            for name, data in sorted(self.description.metadata().items()):  # the group's document last: with it the store is there
                path = self.paths.group / name
                if not path.exists() or path.read_bytes() != data:
                    write_atomically(path, data)
        except OSError:
            self._log.close()
            if not existed:
                mine.unlink(missing_ok=True)
            raise

    def _metadata_differs(self) -> bool:
        for name, data in self.description.metadata().items():
            path = self.paths.group / name
            if not path.exists() or path.read_bytes() != data:
                return True
        return False


def remove(root: str | Path, name: str) -> None:
    """Delete a store, its manifest first and its group's document last: what is left of an interrupted removal is not a store.

    Raises:
        ValueError: if what lies there is not a store of ours.
        BlockingIOError: if a process is writing it.
    """
    paths = Paths(Path(root), name)
    if not paths.group.exists():
        return
    if not _is_ours(paths):
        raise InputError(f"{paths.group} holds something that is not a dataset store: it was left alone")
    if any(map(is_held, paths.parts())):
        raise BusyError(f"another process is writing {paths.group}: let it finish, or stop it")
    for path in (paths.manifest, *paths.parts(), paths.card, paths.preview):
        path.unlink(missing_ok=True)
    shutil.rmtree(paths.group / "images", ignore_errors=True)
    shutil.rmtree(paths.group)


def _is_ours(paths: Paths) -> bool:
    """Whether a group is a store, the beginning of one, or a damaged one whose manifest beside it is ours."""
    with contextlib.suppress(FileNotFoundError, DamagedError):
        read_finished(paths.manifest)
        return True
    if (paths.group / "zarr.json").exists():
        with contextlib.suppress(ValueError):
            read_attributes(paths)
            return True
        return False
    return all(entry.name in ("images", "zarr.json.partial") for entry in paths.group.iterdir())


def _check_same(paths: Paths, description: Description) -> None:
    """Raise, naming each difference, unless the store there is what is described or the beginning of it."""
    there = read_attributes(paths)
    if there["name"] != description.name:
        raise InputError(f"{paths.group} holds {there['name']}, not {description.name}: choose another --out")
    ours, theirs = json.loads(json.dumps(description.source)), there["source"]
    differences = [
        f"{key} is {theirs.get(key)} there, {ours.get(key)} here"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]
    if differences:
        raise InputError(
            f"{paths.group} was made with other parameters ({'; '.join(differences)}): choose another --out, or --overwrite"
        )
    if (paths.group / "images/zarr.json").exists() and (images := stored_shape(paths)[0]) > description.shape[0]:
        raise InputError(
            f"{paths.group} holds {images:,} images, more than the {description.shape[0]:,} asked for: "
            "a store can be extended, not cut; choose another --out, or --overwrite"
        )


def _check_space(folder: Path, description: Description, shards: int) -> None:
    needed = shards * description.expected_bytes + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if shards and free < needed:
        raise OSError(f"not enough space in {folder}: {needed:,} bytes are needed, {free:,} are free; nothing was written")


def _done_shards(paths: Paths, description: Description) -> dict[int, Entry]:
    """Entries of the described shards that exist, by index: those with a line in some manifest and a file of that length."""
    done = {}
    for entry in all_entries(paths):
        index, path = entry["first"] // description.rows, paths.group / entry["path"]
        if (
            index < description.shards
            and entry["last"] + 1 == _rows(description, index).stop  # not a last shard that has become a whole one
            and path.is_file()
            and path.stat().st_size == entry["bytes"]
        ):
            done[index] = entry
    return done


def _rows(description: Description, shard: int) -> range:
    return range(shard * description.rows, min((shard + 1) * description.rows, description.shape[0]))


def _shard_of(path: Path) -> int:
    number = path.name.split(".")[1]
    return int(number) if number.isdigit() else -1
