"""Files that hold their old content or all of the new, locks between processes, hashes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from splits.errors import BusyError


def write_atomically(path: Path, data: bytes) -> None:
    """Write, sync and rename: ``path`` holds its old content or all of ``data``, whatever happens.

    Raises:
        OSError: naming ``path`` and, if the disk is full, the bytes that it needs; nothing half-written is left.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OSError(error.errno, f"{error.strerror} ({len(data):,} bytes to write)", str(path)) from error


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


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the advisory lock of the file ``path``, which exists meanwhile, and goes with the process, however that ends.

    A file of its own, since network file systems don't lock folders.

    Raises:
        BlockingIOError: if another process holds it and we don't ``wait``.
    """
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise BusyError(f"{path.parent} is being written by another process") from None
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                break
        file.close()  # it was removed by the one who held it: lock the new one
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def is_held(path: Path) -> bool:
    """Whether a process holds a lock on the file ``path``."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def home() -> Path:
    """The cache folder: OOD_DATA_HOME, or ~/.cache/ood-data."""
    return Path(os.environ.get("OOD_DATA_HOME") or Path.home() / ".cache" / "ood-data")
