"""Arrays in .npy files and .npz members as a forward stream of rows: memory holds the rows that are asked for and no more."""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

SKIP_BYTES = 2**24


class BadFile(ValueError):
    """A file is not what it should be: one sentence that names it."""


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
        with self._reporting():
            version = npy.read_magic(file)
            header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
            if header is None:
                raise ValueError(f"npy version {version} is unknown")
            shape, fortran, self.dtype = header(file)
        if fortran and len(shape) > 1:
            raise BadFile(f"{path} holds a column-major array: save it with numpy.ascontiguousarray")
        if self.dtype.hasobject or not shape:
            raise BadFile(f"{path} holds {'Python objects' if self.dtype.hasobject else 'a scalar'} where an array is expected")
        self.shape: tuple[int, ...] = shape

    def flatten(self, shape: tuple[int, ...]) -> None:
        """See the array as one of `shape`, of the same size."""
        if math.prod(shape) != math.prod(self.shape):
            raise ValueError(f"{self.shape} can't be seen as {shape}")
        self.shape = shape

    @property
    def _row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def read(self, count: int) -> NDArray[Any]:
        """The next `count` rows."""
        rows = np.empty((count, *self.shape[1:]), self.dtype)
        target = rows.reshape(-1).view(np.uint8)
        filled = 0
        with self._reporting():
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
        with self._reporting():
            if self._file.read(1):
                raise ValueError(f"there is more in it than {self.shape[0]:,} rows")

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except BadFile:
            raise
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
            raise BadFile(f"{self.path} is truncated or damaged: {error}") from None


@contextlib.contextmanager
def npy_rows(path: Path) -> Iterator[Rows]:
    """The rows of an .npy file."""
    with path.open("rb") as file:
        rows = Rows(file, path)
        expected = file.tell() + math.prod(rows.shape) * rows.dtype.itemsize
        if path.stat().st_size != expected:
            raise BadFile(f"{path} is truncated or damaged: it has {path.stat().st_size:,} bytes, and {expected:,} are expected")
        yield rows


@contextlib.contextmanager
def zip_rows(path: Path, member: str) -> Iterator[Rows]:
    """The rows of an array in an .npz file."""
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise BadFile(f"{path} is truncated or damaged: its zip directory cannot be read") from None
    with archive:
        try:
            file = archive.open(f"{member}.npy")
        except KeyError:
            raise BadFile(f"{path} has no array {member!r}: another kind of file?") from None
        except (zipfile.BadZipFile, NotImplementedError) as error:
            raise BadFile(f"{path} is truncated or damaged: {error}") from None
        with file:
            yield Rows(file, path)
