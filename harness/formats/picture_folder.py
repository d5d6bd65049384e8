"""A folder of pictures and a .csv with their `file` and each factor's value, by its index or its name; other columns don't matter.

A file lies in the folder by its name: no absolute path, no "..". A link there may lead elsewhere: whoever made it could read that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.io.pictures import LARGEST_SIDE, check_size, load_picture
from harness.io.tables import csv_rows
from splits import Factor, FactorGrid, SplitSpec
from splits.arrays import BadFile
from splits.errors import did_you_mean, how_many, listed, shown

Images = NDArray[np.uint8]

CONVERTED = "what can be: the authors' .npz, .hdf5 or .h5, the benchmark's split files, a .npy, a folder of pictures with a .csv"
OTHERS = {  # what a folder may hold instead of pictures
    "zarr.json": "a zarr group",
    "*.parquet": "parquet files",
    "*/*.parquet": "parquet files",
    "*.tar": "tar files",
    "*/*.tar": "tar files",
}

_GRAY = ("1", "L")
_MODES = (*_GRAY, "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


class PictureFolder:
    """A `harness.formats.readers.Reader` of a folder: a picture per cell of the grid, square, of one size.

    Args:
        folder: where the pictures and the table are.
        spec: of the dataset.

    Raises:
        BadFile: in one sentence: a table or a picture that is damaged, or of another dataset.
    """

    def __init__(self, folder: Path, spec: SplitSpec) -> None:
        self.folder = folder
        tables = sorted(folder.glob("*.csv"))
        if not tables and (others := next((what for pattern, what in OTHERS.items() if any(folder.glob(pattern))), "")):
            raise BadFile(f"{folder} holds {others}, which can't be converted; {CONVERTED}")
        if len(tables) != 1:
            raise BadFile(f"{folder} has {len(tables)} .csv files; one is expected, with a column file and one per factor")
        self.pictures = self._by_cell(tables[0], spec.grid)
        self.files: Sequence[Path] = [*tables, *self.pictures]
        first = self._read(self.pictures[0], None)
        self.shape = (len(spec.grid), first.shape[0], first.shape[1], first.shape[2])

    def _by_cell(self, table: Path, grid: FactorGrid) -> list[Path]:
        """The picture of every cell of the grid."""
        rows = csv_rows(table)
        columns = next(rows, [])
        wanted = ("file", *grid.names)
        if missing := [name for name in wanted if name not in columns]:
            raise BadFile(f"{table} has no column {listed(map(repr, missing))}")
        where = [columns.index(name) for name in wanted]
        texts: list[list[str]] = []  # file and indices of each row
        for row in rows:
            if len(texts) == 2 * len(grid):  # up to there it is told what is wrong with them
                raise BadFile(f"{table} has more than {len(texts):,} rows, and the grid has {len(grid):,} cells")
            texts.append([sys.intern(row[column].strip()) if column < len(row) else "" for column in where])
        values = []
        named = [{value: index for index, value in enumerate(factor.values or ()) if isinstance(value, str)} for factor in grid]
        for number, (file, *indices) in enumerate(texts, start=1):
            of_row = f"{table}: in row {number}"
            values.append([self._index(of_row, *which) for which in zip(indices, grid, named, strict=True)])
            if not file:
                raise BadFile(f"{table}: row {number} names no file")
            inside = PurePosixPath(file)
            if inside.is_absolute() or ".." in inside.parts or "\0" in file:
                raise BadFile(f"{table}: row {number} names {shown(file)}; a file in {self.folder} is expected")
        labels = np.array(values, np.int64).reshape(-1, len(grid.sizes))
        cells = grid.index(labels)
        found, times = np.unique(cells, return_counts=True)
        absent = np.append(np.flatnonzero(found != np.arange(len(found)))[:1], len(found))[0]  # the first, if any is
        for count, first, what in (
            (len(grid) - len(found), absent, "no picture"),
            (int((times > 1).sum()), found[times.argmax()] if len(found) else 0, "several pictures"),
        ):
            if count:
                cell = ", ".join(f"{n} {v}" for n, v in zip(grid.names, grid.factors(int(first)), strict=True))
                raise BadFile(f"{table} has {what} for {how_many(count, 'cell')} of the grid, first {cell}")
        pictures = [Path()] * len(grid)
        for cell, (file, *_) in zip(cells.tolist(), texts, strict=True):
            pictures[cell] = self.folder / file
        return pictures

    @staticmethod
    def _index(where: str, text: str, factor: Factor, named: Mapping[str, int]) -> int:
        value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else named.get(text, -1)
        if not 0 <= value < factor.size:
            expected = f"an index from 0 to {factor.size - 1}{', or the name of a value,' if named else ''} is expected"
            raise BadFile(f"{where}, {factor.name} is {shown(text)}; {expected}{did_you_mean(text, named)}")
        return value

    def _read(self, path: Path, expected: tuple[int, ...] | None) -> Images:
        """(R, R, C) uint8, of the shape of the first picture, if there was one before."""

        def check(picture: Image.Image) -> None:
            check_size(path, picture, LARGEST_SIDE**2)
            if picture.mode not in _MODES:  # of 16 bits, Pillow would keep values up to 255 and make white of the others
                raise BadFile(f"{path} has pixels of the kind {picture.mode}; 8 bits, gray or in colour, are expected")
            if picture.height != picture.width:
                raise BadFile(f"{path} is {picture.width} × {picture.height}; square pictures are expected")
            shape = (picture.height, picture.width, 1 if picture.mode in _GRAY else 3)
            if expected not in (None, shape):
                raise BadFile(f"{path} is {shape}, the first picture {expected}")

        try:
            picture = load_picture(path, check)
        except FileNotFoundError:
            raise BadFile(f"the .csv names {path}, which does not exist") from None
        pixels = np.asarray(picture.convert("L" if picture.mode in _GRAY else "RGB"))
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def blocks(self, wanted: Sequence[range]) -> Iterator[Images]:
        for block in wanted:
            images = np.empty((len(block), *self.shape[1:]), np.uint8)
            for row, cell in enumerate(block):
                images[row] = self._read(self.pictures[cell], self.shape[1:])
            yield images
