"""Arrays in .npy files and .npz members as a forward stream of rows: memory holds the rows that are asked for and no more."""

from __future__ import annotations

import contextlib
import errno
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from splits.errors import InputError

SKIP_BYTES = 2**24

# What zipfile, zlib and numpy raise on bytes that are not what they should be; RuntimeError where a flipped bit claims encryption.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError, EOFError, ValueError, SyntaxError, RuntimeError)


class BadFile(InputError):
    """A file is not what it should be: one sentence that names it."""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say of any sign of damage, in one sentence, that it is the file's."""
    try:
        yield
    except BadFile:
        raise
    except (*_DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # EINVAL: a damaged zip directory points to before the file
            raise
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadFile(f"{path} is truncated or damaged: {what}; get it anew") from None


class Rows:
    """The rows of an array, front to back.

    Attributes:
        shape: of the array; `flatten` merges its leading dimensions.
        dtype: of the array.
        position: the next row.

    Raises:
        BadFile: where the file ends early or its bytes are damaged.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self.path, self.position = file, path, 0
        with reading(self.path):
            version = npy.read_magic(file)
            header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
            if header is None:
                raise InputError(f"npy version {version} is unknown")
            shape, fortran, self.dtype = header(file)
        if fortran and len(shape) > 1:
            raise BadFile(f"{path} holds a column-major array: save it with numpy.ascontiguousarray")
        if self.dtype.hasobject or not shape:
            raise BadFile(f"{path} holds {'Python objects' if self.dtype.hasobject else 'a scalar'} where an array is expected")
        self.shape: tuple[int, ...] = shape

    def flatten(self, shape: tuple[int, ...]) -> None:
        """See the array as one of `shape`, of the same size."""
        if math.prod(shape) != math.prod(self.shape):
            raise InputError(f"{self.shape} can't be seen as {shape}")
        self.shape = shape

    @property
    def _row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self, count: int) -> NDArray[Any]:
        """The next `count` rows."""
        rows = np.empty((count, *self.shape[1:]), self.dtype)
        target = rows.reshape(-1).view(np.uint8)
        filled = 0
        with reading(self.path):
            while filled < len(target):
                got = self._file.readinto(target[filled : filled + SKIP_BYTES])  # type: ignore[attr-defined]
                if not got:
                    raise EOFError(f"it ends after {self.position + filled // max(self._row_bytes, 1):,} of {self.shape[0]:,} rows")
                filled += got
        self.position += count
        return rows

    def skip(self, count: int) -> None:
        """Go on by `count` rows; of a zip member they are read, as its checksum is over all."""
        if not isinstance(self._file, zipfile.ZipExtFile):
            self._file.seek(count * self._row_bytes, 1)
            self.position += count
            return
        step = max(1, SKIP_BYTES // max(self._row_bytes, 1))
        for start in range(0, count, step):
            self.read(min(step, count - start))

    def finish(self) -> None:
        """After the last row: check that nothing follows, and the checksum of a zip member."""
        with reading(self.path):
            if self._file.read(1):
                raise InputError(f"there is more in it than {self.shape[0]:,} rows")


@contextlib.contextmanager
def npy_rows(path: Path) -> Iterator[Rows]:
    """The rows of an .npy file."""
    with path.open("rb") as file:
        rows = Rows(file, path)
        expected = file.tell() + math.prod(rows.shape) * rows.dtype.itemsize
        if path.stat().st_size != expected:
            raise BadFile(
                f"{path} is truncated or damaged: it has {path.stat().st_size:,} bytes, and {expected:,} are expected; get it anew"
            )
        yield rows


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """An .npz file, for as long as it is opened and its directory looked at; damage found later is not this one's to report."""
    with reading(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


@contextlib.contextmanager
def zip_rows(path: Path, member: str) -> Iterator[Rows]:
    """The rows of an array in an .npz file."""
    with open_zip(path) as archive:
        try:
            with reading(path):
                file = archive.open(f"{member}.npy")
        except KeyError:
            raise BadFile(f"{path} has no array {member!r}: another kind of file?") from None
        with file:
            rows = Rows(file, path)
            size, expected = archive.getinfo(f"{member}.npy").file_size, file.tell() + math.prod(rows.shape) * rows.dtype.itemsize
            if size != expected:
                raise BadFile(
                    f"{path} is truncated or damaged: {member} has {size:,} bytes, and {expected:,} are expected; get it anew"
                )
            yield rows
