"""Files too large to hold in memory, and folders, written beside their place, which they take when they are whole."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from harness.io.atomic import sync_folder
from harness.io.locks import acquire


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, to seek in and to read again, which takes the place of `path` once the block ends without an error.

    It is `partial_of` that and locked until then: one that nobody holds is of a process that died.

    Raises:
        BlockingIOError: if another process is writing `path`.
        OSError: naming `path`, if it can't be written; nothing is left then.
    """
    partial = partial_of(path)
    with acquire(partial, busy=f"another process is writing {path}: let it finish, or stop it"):
        try:
            with partial.open("w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            sync_folder(path.parent)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(partial)):
                raise OSError(error.errno, error.strerror, str(path)) from error  # a write to a full disk names no file
            raise


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `path` once the block ends without an error: no mixture of both is ever there.

    Args:
        path: of the folder. Its own folder is made.

    Raises:
        OSError: naming a place in `path`, if it cannot be written; `path` is as it was then.
    """
    partial, before = (path.with_name(f"{path.name}.{word}") for word in ("partial", "before"))
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
        if path.exists():  # a folder is not renamed onto another
            shutil.rmtree(before, ignore_errors=True)
            path.rename(before)
        partial.rename(path)
        sync_folder(path.parent)
        shutil.rmtree(before, ignore_errors=True)
    except OSError as error:
        if error.errno is None or error.filename is None or not Path(error.filename).is_relative_to(partial):
            raise
        raise OSError(error.errno, error.strerror, str(path / Path(error.filename).relative_to(partial))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_of(path: Path) -> Path:
    """The place where the file for `path` is written until it is whole."""
    return path.with_name(f".{path.name}.partial")
