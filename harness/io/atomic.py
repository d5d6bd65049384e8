"""Files that hold their old content or all of the new, files that are nobody else's, hashes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from splits.errors import DamagedError, OodDataError, PlaceError

PARTIAL = ".partial"  # the end of the name of a file that is being written


def write_atomically(path: Path, data: bytes, writer: str = "", check: Callable[[], None] = lambda: None) -> None:
    """Write, sync and rename: `path` holds its old content or all of `data`, whatever happens.

    Args:
        path, data: what to write.
        writer: a name of its own, where two may write at once: then neither writes into the other's half.
        check: called when all is written, before the file is put in place; what it raises prevents that.

    Raises:
        OSError: naming `path` and, if the disk is full, the bytes that it needs; nothing half-written is left.
    """
    partial = path.with_name(path.name + (f".{writer}" if writer else "") + PARTIAL)
    try:
        with contextlib.suppress(FileNotFoundError):
            if not _is_own(partial.lstat()):
                partial.unlink()
        with open(partial, "wb", opener=_open_own) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        check()
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OodDataError):  # which says all there is to say
            raise
        raise OSError(error.errno, f"{error.strerror} ({len(data):,} bytes to write)", str(path)) from error


@contextlib.contextmanager
def naming(path: Path, size: int) -> Iterator[None]:
    """Name `path` in the system's errors that a library raises without a file's name while it writes there.

    Args:
        path: where to.
        size: bytes that it writes, about.

    Raises:
        OSError: also for errors of a library's own kind, of which only the words tell that they are the system's.
    """
    try:
        yield
    except Exception as error:
        found = re.search(r"\(os error (\d+)\)", str(error))  # as Rust does, in which safetensors is written
        number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
        if number is None or getattr(error, "filename", None) is not None:
            raise
        raise OSError(number, f"{os.strerror(number)} ({size:,} bytes to write)", str(path)) from error


def open_own(path: Path) -> BinaryIO:
    """Open a file for reading and appending, made if it is not there. What is written goes into it and nowhere else.

    Raises:
        DamagedError: if a link is there, symbolic or hard, or what is no file.
        OSError: if it cannot be opened.
    """
    return open(path, "a+b", opener=_open_own)


def _open_own(path: str, flags: int) -> int:
    """`open`'s opener that follows no link and opens nothing but files."""
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        if _is_own(os.fstat(descriptor)):
            return descriptor
        os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):  # a link, a folder, a socket
            raise
    raise DamagedError(f"{path} is a link or not a regular file, so ood-data does not write to it: delete it")


def _is_own(status: os.stat_result) -> bool:
    """Whether it is a regular file with no second name, by which somebody else may know it."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink <= 1


def check_writable(folder: Path) -> None:
    """Raise unless a folder can be written to, or made: before the work is done whose results go there. Nothing is tried, or made.

    Raises:
        PlaceError: naming the folder, and the system's reason.
    """
    there = next(each for each in (folder, *folder.absolute().parents) if _exists(each))
    code = 0
    if not there.is_dir():
        code = errno.ENOTDIR
    elif not os.access(there, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
    if code:
        raise PlaceError(f"nothing can be written to {folder}: {os.strerror(code)}; name another place")


def _exists(path: Path) -> bool:
    """Whether it is there, as far as this user may see."""
    try:
        return path.exists()
    except OSError:
        return False


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def home() -> Path:
    """The cache folder: OOD_DATA_HOME, or ~/.cache/ood-data."""
    return Path(os.environ.get("OOD_DATA_HOME") or Path.home() / ".cache" / "ood-data")
