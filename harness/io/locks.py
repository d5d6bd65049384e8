"""One lock for the whole project: between processes and between threads, on a file, gone with whoever holds it, however that ends.

It is flock on a regular file of its own, never on a folder: network file systems lock no folders, and turn this one into a lock of
theirs. POSIX locks, the other kind, would be lost as soon as the same process closes another descriptor of the file.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from harness.io.atomic import PARTIAL, naming, open_own, write_atomically
from splits.errors import BusyError

PROBES = 10  # tries without waiting: `is_held` of another process has the lock for an instant
PROBE_SECONDS = 0.01


@contextlib.contextmanager
def locked(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold the lock `path`: a file that exists while it is held, and after a kill until the next one has held it.

    Args:
        path: the lock's file; its folder exists.
        busy: what to tell if another holds it; None: wait.

    Raises:
        BusyError: saying `busy`.
        DamagedError: if something else than a lock's file is there.
        OSError: if the file cannot be made, or is where no file can be locked.
    """
    with acquire(path, busy):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # an empty file that stays behind hinders no one
                path.unlink()


class Owner:
    """Whoever holds the lock of a folder, and the only one to write there, even after a network file system has lost the lock.

    A machine that the file server does not reach for a while loses its locks, and is not told. So the lock's file holds its owner's
    name, which is looked up before each file is put in place.

    Args:
        lock: the lock's file, held.
    """

    def __init__(self, lock: Path) -> None:
        self.lock, self.name = lock, f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"

    def holds(self) -> bool:
        """Whether the lock's file still has this owner's name."""
        try:
            return self.lock.read_text(encoding="utf-8") == self.name
        except (FileNotFoundError, ValueError):
            return False

    def check(self) -> None:
        """Raise BusyError if the lock is another's now."""
        if not self.holds():
            raise BusyError(f"{self.lock.parent} was taken over by another process, so this one stops")

    def write(self, path: Path, data: bytes) -> None:
        """Write a file of the folder, as `write_atomically` does, but put it in place only if the folder is still one's own."""
        write_atomically(path, data, self.name, self.check)


@contextlib.contextmanager
def owned(path: Path, busy: str) -> Iterator[Owner]:
    """Own the folder in which the lock `path` is, as `locked`, and remove what owners that were killed had half-written."""
    with acquire(path, busy) as file:
        owner = Owner(path)
        try:
            with naming(path, len(owner.name)):
                file.truncate(0)
                name = owner.name.encode()
                while name:  # past the buffer, which would be written once more when it is closed
                    name = name[os.write(file.fileno(), name) :]
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):  # unless a file server gave the lock to another meanwhile
                if os.path.samestat(os.fstat(file.fileno()), path.lstat()):
                    path.unlink()
            raise
        try:
            for partial in path.parent.glob(f"*{PARTIAL}"):
                partial.unlink(missing_ok=True)
            yield owner
        finally:
            with contextlib.suppress(OSError):
                if owner.holds():
                    path.unlink()


def acquire(path: Path, busy: str | None = None) -> BinaryIO:
    """Open and lock the file `path`, made if it is not there, for reading and appending; closing it lets go.

    For a file that is more than a lock, as a log that has one writer. Arguments and errors as of `locked`.
    """
    while True:
        file = open_own(path)
        try:
            if not take(file, wait=busy is None):
                raise BusyError(busy)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.lstat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()  # it was removed or renamed by the one who held it: lock the one that is there now


def take(file: IO[bytes], wait: bool) -> bool:
    """Lock an open file until it is closed; returns whether that succeeded.

    Args:
        file: a regular one.
        wait: for whoever holds it.

    Raises:
        OSError: naming the file, if it is where no file can be locked.
    """
    try:
        if wait:
            fcntl.flock(file, fcntl.LOCK_EX)
            return True
        for attempt in range(PROBES):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            time.sleep(PROBE_SECONDS if attempt < PROBES - 1 else 0)
        return False
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: no file can be locked there", str(file.name)) from error


def is_held(path: Path) -> bool:
    """Whether anyone holds the lock `path`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):  # a link is no lock
            return False
        raise
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
