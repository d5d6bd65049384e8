"""A file that is being downloaded: the bytes that have arrived, held by one process, and what the server said that it is."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.io.atomic import write_atomically
from harness.io.locks import acquire
from harness.io.web import Answer, Passing

SPARE = 16 * 2**20  # bytes that are left free on the disk where the length is unknown; also between two looks at what is free

# How a file begins, by the end of its name. A frozen graph: its first field, node 1 of so many bytes, whose first field is name or op.
BEGINNINGS = {
    ".npz": rb"PK\x03\x04",
    ".npy": rb"\x93NUMPY",
    ".h5": rb"\x89HDF\r\n\x1a\n",
    ".hdf5": rb"\x89HDF\r\n\x1a\n",
    ".pb": rb"\n[\x80-\xff]{0,4}[\x01-\x7f][\n\x12]",
}
LOOKED_AT = 8  # bytes


@dataclass(frozen=True)
class Remote:
    """What a server says of the file: it is still the same if all of it is the same."""

    url: str
    validator: str | None  # a strong ETag, else the date of the last change
    total: int | None  # bytes


def remote_of(url: str, answer: Answer, start: int) -> Remote:
    """What a server says of a file in an answer, which if it is a part of the file should begin at the byte `start`; else it says nothing."""
    tag = answer.headers.get("ETag")
    validator = tag if tag and not tag.startswith("W/") else answer.headers.get("Last-Modified")
    if answer.status == 206:
        match = re.fullmatch(r"bytes (\d{1,30})-\d+/(\d{1,30})", answer.headers.get("Content-Range", ""))
        if not match or int(match[1]) != start:
            return Remote(url, None, None)
        return Remote(url, validator, int(match[2]))
    length = answer.headers.get("Content-Length", "")
    return Remote(url, validator, int(length) if re.fullmatch(r"\d{1,30}", length) else None)


class Part:
    """The part of a file that has arrived, open and locked by one process, and what the server said of it. An empty part is removed."""

    def __init__(self, path: Path) -> None:
        self.path = path.with_name(path.name + ".part")
        self._record = path.with_name(path.name + ".part.json")
        self._beginning = BEGINNINGS.get(path.suffix, b"")
        self._file = acquire(self.path, f"another process is downloading {path}: let it finish, or stop it")
        self._unlooked = 0  # bytes written since the last look at what is free

    def __enter__(self) -> Part:
        return self

    def __exit__(self, *_: object) -> None:
        if self.length == 0:
            self.path.unlink(missing_ok=True)
            self._record.unlink(missing_ok=True)
        self._file.close()

    @property
    def length(self) -> int:
        return os.fstat(self._file.fileno()).st_size

    @property
    def known(self) -> Remote | None:
        """What the server said when the first bytes came."""
        try:
            return Remote(**json.loads(self._record.read_bytes())) if self._record.is_file() else None
        except (ValueError, TypeError, RecursionError):
            return None

    def remember(self, remote: Remote) -> None:
        write_atomically(self._record, json.dumps(asdict(remote)).encode())

    def forget(self) -> None:
        """Empty it; not removed, as its lock is held."""
        self.cut(0)
        self._record.unlink(missing_ok=True)

    def cut(self, length: int) -> None:
        os.ftruncate(self._file.fileno(), length)

    def append(self, block: bytes, missing: int | None) -> None:
        """Write at the end.

        Args:
            block: the bytes.
            missing: how many are to come, with these; None if that is unknown.

        Raises:
            OSError: saying how many more are needed, if there is no space for them, or soon won't be.
        """
        left = memoryview(block)
        try:
            while left:
                left = left[os.write(self._file.fileno(), left) :]
        except OSError as error:  # which names no file
            needed = "" if missing is None else f"{missing - len(block) + len(left):,} bytes more are needed; "
            raise OSError(error.errno, f"{error.strerror} ({needed}run it again to continue)", str(self.path)) from error
        self._unlooked += len(block)
        if self._unlooked >= SPARE:
            self._unlooked = 0
            self.check_space(None if missing is None else missing - len(block))

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def check_beginning(self, url: str) -> None:
        """Raise Passing, and forget it, if it does not begin as such a file does."""
        start = os.pread(self._file.fileno(), LOOKED_AT, 0)
        if not re.match(self._beginning, start):
            self.forget()
            message = f"{url}: what the server sends begins with {start!r}, so it is no {self.path.stem}: a web page?"
            raise Passing(message, attempts=2)  # the server may be changing the file

    def check_space(self, missing: int | None) -> None:
        """Raise OSError unless there is room for the bytes that are missing, or for some more if that is unknown."""
        needed, free = SPARE if missing is None else missing, shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise OSError(
                errno.ENOSPC,
                f"not enough space on the disk: {needed:,} bytes are needed, {free:,} are free (run it again to continue)",
                str(self.path),
            )

    def finish(self, path: Path) -> None:
        """Put it in place."""
        self.path.replace(path)
        self._record.unlink(missing_ok=True)
