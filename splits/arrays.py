"""Arrays in .npy files and .npz members: their header first, then a forward stream of rows.

What a header claims is held against the file's size and, by whoever reads, against what is expected, before any memory is taken for it.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from splits.errors import MOST_SHOWN, InputError, shown

PIECE = 2**24  # bytes that are read at once
MOST_HEADER = 10_000  # bytes of an .npy header, as numpy has it
KINDS = "biufUS"  # of dtypes: numbers and text
MOST_DEFLATED = 1032  # times: deflate can't make less of a byte

# What zipfile, zlib and numpy raise on bytes that are not what they should be; RuntimeError where a flipped bit claims encryption.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError)


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


def require_regular(path: Path) -> None:
    """Raise unless `path`, if it is there, is a file or a link to one: reading a pipe may wait for ever, a device never end.

    Raises:
        BadFile: naming it.
    """
    if path.exists() and not path.is_file():
        raise BadFile(f"{path} is not a regular file")


class Rows:
    """The rows of an array, front to back. Its header is read; memory is taken only for the rows that the caller reads.

    Attributes:
        shape: of the array; `flatten` merges its leading dimensions.
        dtype: of the array: numbers or text.
        by_column: it is stored in column-major order, and has no rows to give: only `whole`.
        position: the next row.

    Raises:
        BadFile: where the file isn't such an array, ends early or its bytes are damaged.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self.path, self.position = file, path, 0
        with reading(self.path):
            self.shape, self.by_column, self.dtype = _header(file)
        self.by_column = self.by_column and len(self.shape) > 1
        if self.dtype.hasobject or not self.shape:
            raise BadFile(f"{path} holds {'Python objects' if self.dtype.hasobject else 'a scalar'} where an array is expected")
        if self.dtype.kind not in KINDS or not self.dtype.itemsize:
            raise BadFile(f"{path} holds an array of {str(self.dtype)[:MOST_SHOWN]}; numbers or text are expected")

    @property
    def bytes(self) -> int:
        """The bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def require_rows(self) -> None:
        """Raise unless the array is stored row by row."""
        if self.by_column:
            raise BadFile(f"{self.path} holds a column-major array: save it with numpy.ascontiguousarray")

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
        self.read_into(rows)
        return rows

    def read_into(self, rows: NDArray[Any]) -> None:
        """The next `len(rows)` rows, into memory of their dtype and shape."""
        self.require_rows()
        target = rows.reshape(-1).view(np.uint8)
        filled = 0
        with reading(self.path):
            while filled < len(target):
                got = self._file.readinto(target[filled : filled + PIECE])  # type: ignore[attr-defined]
                if not got:
                    raise EOFError(f"it ends after {self.position + filled // max(self._row_bytes, 1):,} of {self.shape[0]:,} rows")
                filled += got
        self.position += len(rows)

    def whole(self, memory: NDArray[Any] | None = None) -> NDArray[Any]:
        """The array, all of it, to its end; in that memory, of its dtype and shape, if it is stored by row."""
        if self.by_column:
            self.shape, self.by_column = self.shape[::-1], False
            return self.whole().T
        rows = np.empty(self.shape, self.dtype) if memory is None else memory
        self.read_into(rows)
        self.finish()
        return rows

    def skip(self, count: int) -> None:
        """Go on by `count` rows; of a zip member they are read, as its checksum is over all."""
        if isinstance(self._file, zipfile.ZipExtFile):
            left = count * self._row_bytes
            with reading(self.path):
                while left:
                    if not (read := len(self._file.read(min(left, PIECE)))):
                        raise EOFError(f"it ends before row {self.position + count:,} of {self.shape[0]:,}")
                    left -= read
        else:
            self._file.seek(count * self._row_bytes, 1)
        self.position += count

    def finish(self) -> None:
        """After the last row: check that nothing follows, and the checksum of a zip member."""
        with reading(self.path):
            if self._file.read(1):
                raise InputError(f"there is more in it than {self.shape[0]:,} rows")


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether column-major, dtype. Its length is looked at first: numpy would read, or parse, as much as is claimed."""
    start = file.read(npy.MAGIC_LEN)
    if len(start) < npy.MAGIC_LEN or not start.startswith(npy.MAGIC_PREFIX):
        raise InputError("it does not begin as .npy does")
    version = start[-2], start[-1]
    known = {(1, 0): ("<H", npy.read_array_header_1_0), (2, 0): ("<I", npy.read_array_header_2_0)}
    if version not in known:
        raise InputError(f"npy version {version} is unknown")
    layout, read = known[version]
    length = file.read(struct.calcsize(layout))
    (claimed,) = struct.unpack(layout, length)
    if claimed > MOST_HEADER:
        raise InputError(f"its header claims {claimed:,} bytes, and at most {MOST_HEADER:,} are expected")
    try:
        shape, by_column, dtype = read(io.BytesIO(length + file.read(claimed)), max_header_size=MOST_HEADER)
    except Exception as error:  # numpy evaluates a Python literal: whatever tokenize, ast and dtype raise of what is none
        raise InputError(f"its header can't be read ({(str(error).splitlines() or [type(error).__name__])[0]})") from None
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize > np.iinfo(np.int64).max:
        raise InputError(f"its header claims the shape {shown(shape)}")
    return shape, by_column, dtype


@contextlib.contextmanager
def npy_rows(path: Path) -> Iterator[Rows]:
    """The rows of an .npy file."""
    require_regular(path)
    with path.open("rb") as file:
        rows = Rows(file, path)
        expected = file.tell() + rows.bytes
        if path.stat().st_size != expected:
            raise BadFile(
                f"{path} is truncated or damaged: it has {path.stat().st_size:,} bytes, and {expected:,} are expected; get it anew"
            )
        yield rows


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """An .npz file, for as long as it is opened and its directory looked at; damage found later is not this one's to report."""
    require_regular(path)
    with reading(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


def zip_keys(path: Path) -> set[str]:
    """The names of the arrays in an .npz file."""
    with open_zip(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


@contextlib.contextmanager
def zip_rows(path: Path, member: str) -> Iterator[Rows]:
    """The rows of an array in an .npz file."""
    with open_zip(path) as archive, rows_of(archive, path, member) as rows:
        yield rows


@contextlib.contextmanager
def rows_of(archive: zipfile.ZipFile, path: Path, member: str) -> Iterator[Rows]:
    """The rows of an array in an open .npz file."""
    try:
        with reading(path):
            entry = archive.getinfo(f"{member}.npy")
            file = archive.open(entry)
    except KeyError:
        raise BadFile(f"{path} has no array {shown(member)}: another kind of file?") from None
    with file:
        rows = Rows(file, path)
        claimed, expected = entry.file_size, file.tell() + rows.bytes
        damaged = f"{path} is truncated or damaged"
        if claimed != expected:
            raise BadFile(f"{damaged}: {member} has {claimed:,} bytes, and {expected:,} are expected; get it anew")
        packed = entry.compress_size if entry.compress_size <= path.stat().st_size else 0
        if claimed > packed * {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: MOST_DEFLATED}.get(entry.compress_type, 0):
            raise BadFile(f"{damaged}: {member} claims {claimed:,} bytes, more than the file can hold")
        yield rows
