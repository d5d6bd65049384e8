"""Files too large to hold in memory, written beside their place, which they take when they are whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from harness.io.atomic import sync_folder
from harness.io.locks import acquire


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write and to seek in, which takes the place of ``path`` once the block ends without an error.

    It is `partial_of` that and locked until then: one that nobody holds is of a process that died.

    Raises:
        BlockingIOError: if another process is writing ``path``.
        OSError: naming ``path``, if it can't be written; nothing is left then.
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


def partial_of(path: Path) -> Path:
    """Where the file for ``path`` is written until it is whole."""
    return path.with_name(f".{path.name}.partial")
