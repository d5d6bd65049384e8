"""The files of a store as zarr reads them, each checked against the manifest: no damaged, exchanged or missing byte becomes a picture.

A missing file is black images to zarr, and so is an empty one; crc32c does not tell one whole shard from another.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import zarr.abc.store
import zarr.storage
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from harness.data.manifest import Entry
from splits.errors import DamagedError, MissingError

_KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
}
TICK = 2 * 10**9  # nanoseconds within which a file may change twice and its times once: the coarsest clock of a file system
_CHECKED: set[tuple[int | str, ...]] = set()  # which files had which sha256, of all stores that this process has read


class ShardFiles(zarr.storage.LocalStore):
    """A zarr store, for reading only, of one group: its documents from memory, its shards from their files.

    The sha256 of a shard is checked at its first use in a process, and again only if its file is not the one that was checked.

    Args:
        group: folder of the group.
        documents: the zarr documents, by path inside the group.
        entries: of the manifest.
    """

    def __init__(self, group: Path, documents: Mapping[str, bytes], entries: Iterable[Entry]) -> None:
        super().__init__(group, read_only=True)
        self._documents = dict(documents)
        self._entries = {entry["path"]: entry for entry in entries}

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[io.BufferedReader]:
        """The file of a shard, once it is known to hold what the manifest says.

        Raises:
            FileNotFoundError: if it is missing.
            DamagedError: if it is anything else than what was written.
        """
        where, entry = self.root / path, self._entries.get(path)
        if entry is None:
            raise DamagedError(self._worded(where, "is not in the manifest"))
        found = stat_of(where)
        if wrong := wrong_file(found, entry):
            raise (MissingError if found is None else DamagedError)(self._worded(where, wrong))
        with where.open("rb") as file:
            found = os.fstat(file.fileno())
            this = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, entry["sha256"])
            if this not in _CHECKED:
                now = time.time_ns()
                if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                    raise DamagedError(self._worded(where, "is damaged: it differs from the manifest"))
                file.seek(0)
                if abs(now - found.st_ctime_ns) > TICK:
                    _CHECKED.add(this)
            yield file

    def wrong(self) -> str:
        """How many shards are missing or not of their length, and the first; "" if none is. Nothing is read."""
        wrong = [
            f"{path} {what}" for path, entry in self._entries.items() if (what := wrong_file(stat_of(self.root / path), entry))
        ]
        return f"{len(wrong):,} of {len(self._entries):,} shards can't be read, first {wrong[0]}" if wrong else ""

    def _worded(self, where: Path, what: str) -> str:
        return f"{where} {what}: `ood-data data verify {self.root.stem} --data {self.root.parent}` names all that is wrong"

    # What zarr asks of a store. It reads shards by `get` alone; the other two ways are closed or the same.

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: zarr.abc.store.ByteRequest | None = None
    ) -> Buffer | None:
        return await asyncio.to_thread(self.get_sync, key, prototype=prototype, byte_range=byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, zarr.abc.store.ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    def get_sync(
        self, key: str, *, prototype: BufferPrototype | None = None, byte_range: zarr.abc.store.ByteRequest | None = None
    ) -> Buffer | None:
        if not key.startswith("images/c"):
            data = self._documents.get(key)
        else:
            with self.opened(key) as file:
                data = _bytes(file, byte_range)
        return None if data is None else (prototype or default_buffer_prototype()).buffer.from_bytes(data)


def wrong_file(found: os.stat_result | None, entry: Entry) -> str:
    """What is wrong with the file of a shard, as far as can be seen without reading it; "" if nothing is."""
    if found is None:
        return "is missing"
    if not stat.S_ISREG(found.st_mode):
        return f"is {kind_of(found)}, not a file"
    if found.st_size != entry["bytes"]:
        return f"has {found.st_size:,} bytes instead of {entry['bytes']:,}"
    return ""


def stat_of(path: Path, follow: bool = True) -> os.stat_result | None:
    """The status of what lies at a path, None if nothing does."""
    try:
        return path.stat(follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return None


def kind_of(found: os.stat_result) -> str:
    """ "a folder", "a link", …"""
    return _KINDS.get(stat.S_IFMT(found.st_mode), "a device")


def _bytes(file: io.BufferedReader, byte_range: zarr.abc.store.ByteRequest | None) -> bytes:
    if isinstance(byte_range, zarr.abc.store.RangeByteRequest):
        file.seek(byte_range.start)
        return file.read(byte_range.end - byte_range.start)
    if isinstance(byte_range, zarr.abc.store.OffsetByteRequest):
        file.seek(byte_range.offset)
    elif isinstance(byte_range, zarr.abc.store.SuffixByteRequest):
        file.seek(-byte_range.suffix, os.SEEK_END)
    return file.read()
