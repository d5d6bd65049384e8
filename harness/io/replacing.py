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
    """A file to write and to seek in, which takes the place of `path` once the block ends without an error.

    It is `partial_of` that and locked until then: one that nobody holds is of a process that died.

    Raises:
        BlockingIOError: if another process is writing `path`.
        OSError: naming `path`, if it can't be written; nothing is left then.
    """
    partial = partial_of(path)
    with acquire(partial, busy=f"another process is writing {path}: let it finish, or stop it"):
        try:
            with partial.open("wb") as file:
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
def replacing_folder(path: Path, last: str = "") -> Iterator[Path]:
    """A folder to write into, which takes the place of `path` once the block ends without an error.

    Where `path` is there already, each entry of the folder takes its place in it, whole, and what else is there stays.

    Args:
        path: of the folder. Its own folder is made.
        last: the entry without which the others mean nothing: it goes first and comes last, so that no mixture of old and new is opened.

    Raises:
        OSError: naming a place in `path`, if it cannot be written; `path` is as it was then, or lacks `last`.
    """
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
        if not path.exists():
            partial.rename(path)
        else:
            _move_entries(partial, path, last)
            sync_folder(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.errno is None or error.filename is None or not Path(error.filename).is_relative_to(partial):
            raise
        raise OSError(error.errno, error.strerror, str(path / Path(error.filename).relative_to(partial))) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _move_entries(partial: Path, path: Path, last: str) -> None:
    """Put each entry of a folder into another, in the place of the one of that name."""
    entries = sorted(partial.iterdir(), key=lambda entry: entry.name == last)
    if last:
        (path / last).unlink(missing_ok=True)
        sync_folder(path)
    aside = partial / ".before"
    aside.mkdir()
    for entry in entries:
        there = path / entry.name
        if there.is_dir() and not there.is_symlink():  # a folder is not renamed onto one
            there.rename(aside / entry.name)
        entry.replace(there)


def partial_of(path: Path) -> Path:
    """The place where the file for `path` is written until it is whole."""
    return path.with_name(f".{path.name}.partial")
