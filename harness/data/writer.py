"""Writing a store so that it survives: any process may die at any moment, and the next one continues to the same bytes.

The unit of writing is a shard, and a shard has one writer. It is encoded in memory, written, synced and renamed into place, and
only then gets its line in the manifest of the writer's part: a shard without a line does not exist. When the last part is done,
the parts become one manifest. Whoever looks at or changes more than its own part holds the store's lock meanwhile.

A finished store that is extended stays, for readers, what it was until that moment. One that has lost a file gets it back from
whoever makes it again: only what is missing is made (`harness.data.found`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from harness.data.description import Description, hashes, read_description
from harness.data.found import (
    Found,
    being_made,
    check_others,
    documents_of,
    done_shards,
    is_ours,
    is_whole,
    look,
    refuse_links,
    wrong_files,
)
from harness.data.manifest import Entry, Paths, cut_torn_line, finished, line, read_finished, shard_index, shard_path
from harness.data.store import Store
from harness.io.atomic import check_writable, sha256, sync_folder, write_atomically
from harness.io.locks import acquire, is_held, locked
from splits.errors import BusyError, InputError

logger = logging.getLogger(__name__)

SPARE_BYTES = 16 * 2**20  # room for the manifest, card and preview
SHOWN = 3  # shards that are named when they were made again


class Writer:
    """Writes the shards of one part of a store, continuing whatever is there.

    Use as a context manager: it holds the part's lock meanwhile. A store that is refused is not changed.

    Args:
        root: folder of the stores.
        description: what the store will hold.
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
            raise InputError("`overwrite` would remove the other parts: delete the store first, then start the parts")
        self.paths = Paths(Path(root), description.name)
        plain = json.loads(json.dumps([description.spec, description.source]))  # as it will be read again
        self.description = description = replace(description, spec=plain[0], source=plain[1])
        self.part = part
        self.range = description.shards_of(part)
        self._documents = documents_of(self.paths, description)
        self._restored: list[str] = []
        self._log: BinaryIO | None = None
        self.done: dict[int, Entry] = {}
        self._whole = not overwrite and self._is_whole() and not any(path.exists() for path in (self.paths.lock, *self._traces()))
        if self._whole:  # nothing to write, so nothing to lock: it may lie where nobody can
            self.done = done_shards(self.paths, description, read_finished(self.paths.manifest)[0])
            self.complete = True
            return
        check_writable(self.paths.root)
        new = next(folder for folder in (self.paths.root, *self.paths.root.parents) if folder.exists())
        _check_space(new, description, len(self.range) if overwrite or not self.paths.group.exists() else 0)
        self.paths.root.mkdir(parents=True, exist_ok=True)
        with locked(self.paths.lock):
            if overwrite:
                remove(root, description.name)
            found = look(self.paths, description)
            check_others(self.paths, description, part, found.description)
            self.done = done_shards(self.paths, description, found.entries) if self.paths.group.exists() else {}
            _check_space(self.paths.root, description, len(self.missing))
            self.complete = (
                len(self.done) == description.shards == len(found.entries) and not found.damaged and not self.paths.begun()
            )
            if (found.files or found.damaged) and found.description == description and not self.paths.begun():
                self._restored = self._lost(found)
            self._begin(found)

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

    def rows(self, shard: int) -> range:
        """The indices of a shard's images."""
        return self.description.rows_of(shard)

    def publish(self, shard: int, images: NDArray[np.uint8]) -> None:
        """Write one shard of this part: `images` (rows, R, R, C) uint8. Atomic; safe to interrupt."""
        assert self._log is not None
        data = self.description.encode(images)
        path = shard_path(shard)
        write_atomically(self.paths.group / path, data)
        entry = {
            "path": path,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "first": self.rows(shard).start,
            "last": self.rows(shard).start + len(images) - 1,
        }
        self._note([entry])
        self.done[shard] = entry

    def finish(
        self,
        card: Callable[[Store], str],
        preview: Callable[[Store], bytes],
        croissant: Callable[[Store], bytes] | None = None,
    ) -> bool:
        """Complete the store, if every shard of every part is written: card, preview, one sorted manifest. Else do nothing.

        What is there and right is kept as it is.

        Args:
            card: makes the dataset card's markdown.
            preview: makes the preview's PNG bytes.
            croissant: makes the card for programs; it is called last, when the other files are there. None: without.

        Returns:
            whether the store is complete.
        """
        if self._whole:
            return True
        with locked(self.paths.lock):
            if self._is_whole():  # another part's process did it, or nothing but documents was lost
                self._end()
                return True
            if (being_made(self.paths) or read_description(self.paths.documents())) != self.description:
                return False  # extended by another process since
            entries, files = read_finished(self.paths.manifest) if self.paths.manifest.exists() else ([], {})
            done = done_shards(self.paths, self.description, entries)
            if len(done) < self.description.shards:
                return False
            in_order = [done[shard] for shard in sorted(done)]
            self._sweep(done)
            store = Store.of(self.paths, self.description, in_order)  # readable before it is declared finished
            kept = files if entries == in_order and hashes(self._documents).items() <= files.items() else {}
            wrong = wrong_files(self.paths, self._documents, kept)
            if self.paths.preview in wrong:
                write_atomically(self.paths.preview, preview(store))
            if self.paths.card in wrong:
                write_atomically(self.paths.card, card(store).encode())
            for name, data in self._documents.items():
                if self.paths.group / name in wrong:
                    write_atomically(self.paths.group / name, data)
            beside = [self.paths.card, self.paths.preview]
            if croissant is not None:
                beside.append(self.paths.croissant)
                if self.paths.croissant in wrong or self.paths.croissant.name not in kept:
                    write_atomically(self.paths.croissant, croissant(store))
            hashed = {path.name: sha256(path) for path in beside} | hashes(self._documents)
            write_atomically(self.paths.manifest, finished(in_order, hashed))
            self._end()
        return True

    def discard(self) -> None:
        """Remove the store: what was written turned out to be wrong."""
        self.__exit__()
        with locked(self.paths.lock):
            remove(self.paths.root, self.paths.name)

    def _is_whole(self) -> bool:
        return is_whole(self.paths, self.description, self._documents)

    def _lost(self, found: Found) -> list[str]:
        """What a finished store has lost, by name; of many shards the number."""
        shards = [shard_path(shard) for shard in self.missing]
        shards = shards if len(shards) <= SHOWN else [f"{len(shards):,} shards"]
        files = wrong_files(self.paths, self._documents, found.files)
        if found.damaged:
            files = [path for path in files if path.name == "zarr.json"]
        manifest = [self.paths.manifest.name] if found.damaged else []
        return [*shards, *(path.relative_to(self.paths.root).as_posix() for path in files), *manifest]

    def _begin(self, found: Found) -> None:
        """Lock the part; write down what will be made, and of a damaged manifest what it still proves."""
        if not self.paths.group.exists():  # what lies beside is of a store that somebody removed
            for path in (self.paths.manifest, self.paths.pending, *self.paths.parts()):
                if not is_held(path):
                    path.unlink(missing_ok=True)
        mine = self.paths.part(self.part)
        existed = mine.exists()
        which = f"part {self.part[0]}/{self.part[1]} of {self.paths.group}"
        self._log = acquire(mine, busy=f"another process is writing {which}: let it finish, or stop it")
        try:
            cut_torn_line(mine)
            if found.damaged:
                self._note(found.entries)
                self.paths.manifest.unlink()
            (self.paths.group / "images").mkdir(parents=True, exist_ok=True)
            if found.files and not hashes(self._documents).items() <= found.files.items():
                pending = {name: data.decode() for name, data in self._documents.items()}
                write_atomically(self.paths.pending, json.dumps(pending).encode())
                return
            self.paths.pending.unlink(missing_ok=True)
            for name, data in sorted(self._documents.items()):  # the group's document last: with it the store is there
                if self.paths.group / name in wrong_files(self.paths, self._documents, {}):
                    write_atomically(self.paths.group / name, data)
        except BaseException:
            self._log.close()
            if not existed and not mine.stat().st_size:  # else it holds what a damaged manifest still proved
                mine.unlink()
            raise

    def _note(self, entries: list[Entry]) -> None:
        """Add lines to the part's manifest."""
        assert self._log is not None
        try:
            self._log.write(b"".join(map(line, entries)))
            self._log.flush()
            os.fsync(self._log.fileno())
        except OSError as error:  # a write to a full disk names no file
            raise OSError(error.errno, error.strerror, self._log.name) from error

    def _traces(self) -> list[Path]:
        """What writers leave beside a store until it is finished, or where they were killed."""
        targets = (self.paths.manifest, self.paths.card, self.paths.preview, self.paths.croissant, self.paths.pending)
        return [*(path.with_name(path.name + ".partial") for path in targets), self.paths.pending, *self.paths.parts()]

    def _end(self) -> None:
        """Remove what was needed until the store was finished, and say what it had lost."""
        for path in self._traces():
            path.unlink(missing_ok=True)
        sync_folder(self.paths.root)
        if self._restored:
            logger.info("%s: restored %s", self.paths.group, ", ".join(self._restored))

    def _sweep(self, done: dict[int, Entry]) -> None:
        """Remove files that are named as our shards and are none, left by removals and kills; anything else is not ours to touch."""
        for stray in (self.paths.group / "images").iterdir():
            index = shard_index(f"images/{stray.name.removesuffix('.partial')}")
            if index >= 0 and (stray.name.endswith(".partial") or index not in done) and stray.is_file() and not stray.is_symlink():
                stray.unlink()


def remove(root: str | Path, name: str) -> None:
    """Delete a store, its manifest first and its group's document last: what is left of an interrupted removal is not a store.

    Raises:
        ValueError: if what lies there is not a store of ours, or a link to one.
        BlockingIOError: if a process is writing it.
    """
    paths = Paths(Path(root), name)
    refuse_links(paths)
    if not paths.group.exists():
        return
    if not is_ours(paths):
        raise InputError(f"{paths.group} holds something that is not a dataset store: it was left alone")
    if any(map(is_held, paths.parts())):
        raise BusyError(f"another process is writing {paths.group}: let it finish, or stop it")
    for path in (paths.manifest, paths.pending, *paths.parts(), paths.card, paths.preview, paths.croissant):
        path.unlink(missing_ok=True)
    shutil.rmtree(paths.group / "images", ignore_errors=True)
    shutil.rmtree(paths.group)


def _check_space(folder: Path, description: Description, shards: int) -> None:
    needed = shards * description.expected_bytes + SPARE_BYTES
    free = shutil.disk_usage(folder).free
    if shards and free < needed:
        raise OSError(f"not enough space in {folder}: {needed:,} bytes are needed, {free:,} are free; nothing was written")
