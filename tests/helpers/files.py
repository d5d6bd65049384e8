"""Files: what is in a folder, which are read, a disk that fills up."""

from __future__ import annotations

import contextlib
import hashlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


def contents(root: Path) -> dict[str, bytes]:
    """The bytes of every file in a folder, by its path there."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def counting(hashed: list[str]) -> Callable[..., object]:
    """In the place of `hashlib.file_digest`, to see of which files the hashes are asked."""
    digest = hashlib.file_digest

    def counted(file: BinaryIO, name: str) -> object:
        hashed.append(Path(file.name).name)
        return digest(file, name)  # type: ignore[arg-type]

    return counted


@contextlib.contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As on a disk that fills up: writing past so many bytes of a file is an OSError that names no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
