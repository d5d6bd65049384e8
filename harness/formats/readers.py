"""Official files, read as a stream of images in the order of the grid, never whole.

`open_reader` looks at what a file holds, not at what it is called, and checks that it is the dataset that is asked for: the right
keys, dtypes and shapes, and every label where the row-major grid has it. Every mistake is a `BadFile`, one sentence.
"""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.io.npy_stream import BadFile, Rows, npy_rows, open_zip, reading, zip_rows
from splits import FactorGrid, SplitSpec
from splits.errors import MissingError, did_you_mean
from splits.published import PUBLISHED_NAMES

Images = NDArray[np.uint8]
WINDOW = 2**29  # bytes of images that are held at a time where rows are in no order
CHUNK_CACHE = 2**28  # bytes; hdf5 chunks go across thousands of images, and are unpacked once then

_MODES = ("1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")

_PUBLISHED = re.compile(
    r"(?P<name>.+)_(?P<kind>random|composition|interpolation|extrapolation)_(?:train|test)_(?:images|labels)\.npz"
)


class Reader(Protocol):
    """Images of a dataset in the row-major order of its grid.

    Attributes:
        shape: (N, R, R, C).
        files: everything that is read, for checksums.
    """

    shape: tuple[int, int, int, int]
    files: Sequence[Path]

    def blocks(self, wanted: Sequence[range]) -> Iterator[Images]:
        """The images of each of the ascending ranges: (len(range), R, R, C) uint8, binary images as 0 and 255.

        Raises:
            BadFile: where the file turns out to be damaged. What was given before is not to be trusted then.
        """


def open_reader(path: str | Path, spec: SplitSpec) -> Reader:
    """A reader of a file, or a folder, in one of the known layouts.

    dSprites .npz (imgs, latents_classes) and .hdf5 (imgs, latents/classes); 3dshapes.h5 (images, labels); mpi3d .npz (images, flat
    or a dimension per factor); the benchmark's split .npz files, of which any one stands for all four of its kind; a whole array
    as .npy; a folder of pictures with a .csv of factor values, by index or name (a column `file`, and one per factor).

    Raises:
        BadFile: a ValueError in one sentence: not such a file, damaged, or of another dataset.
        FileNotFoundError: if there is no such file, or one that belongs to it is missing.
    """
    path = Path(path)
    if not path.exists():
        raise MissingError(f"there is no file {path}")
    if path.is_dir():
        published = sorted(path.glob("*_train_images.npz"))
        ours = [
            file for file in published if (match := _PUBLISHED.fullmatch(file.name)) and match["name"] in _published_names(spec)
        ]
        return _PublishedSplit((ours or published)[0], spec) if published else _Pictures(path, spec)
    if _PUBLISHED.fullmatch(path.name):
        return _PublishedSplit(path, spec)
    with path.open("rb") as file:
        magic = file.read(8)
    if magic.startswith(b"PK"):
        return _npz(path, spec)
    if magic == b"\x89HDF\r\n\x1a\n":
        return _Hdf5(path, spec)
    if magic.startswith(b"\x93NUMPY"):
        return _Array(path, None, spec)
    raise BadFile(f"{path} is neither npz, hdf5 nor npy: a web page, or a download that failed?")


def image_shape(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], grid: FactorGrid) -> tuple[int, int, int, int]:
    """(N, R, R, C) of images stored as (N, R, R), (N, R, R, C), or with a dimension per factor instead of N."""
    found = f"{path} has images {shape} of {dtype}"
    flat, multi = (len(grid),), grid.sizes
    for lead in (flat, multi):
        rest = shape[len(lead) :]
        if shape[: len(lead)] == lead and len(rest) in (2, 3) and rest[0] == rest[1] > 0 and 1 <= (*rest, 1)[2] <= 4:
            if dtype != np.uint8:
                raise BadFile(f"{found}; uint8 is expected")
            return (len(grid), rest[0], rest[1], rest[2] if len(rest) == 3 else 1)
    raise BadFile(f"{found}, not the {len(grid):,} of this dataset ({' x '.join(map(str, grid.sizes))} factors): another dataset?")


def check_order(path: Path, labels: NDArray[Any], grid: FactorGrid) -> None:
    """Raise unless row i of the labels (N, F), of any numbers, is cell i of the grid: each column takes its values in the grid's order."""
    if labels.shape != (len(grid), len(grid.sizes)):
        expected = (len(grid), len(grid.sizes))
        raise BadFile(f"{path} has labels of shape {labels.shape}, not {expected}: another dataset?")
    for axis, factor in enumerate(grid):
        values, codes = np.unique(labels[:, axis], return_inverse=True)
        stride = int(np.prod(grid.sizes[axis + 1 :], dtype=np.int64))
        if len(values) != factor.size or not np.array_equal(codes, np.arange(len(grid)) // stride % factor.size):
            raise BadFile(
                f"{path}: its column {axis} does not run through the {factor.size} values of {factor.name} in order: mislabelled?"
            )


def _without_colour(path: Path, classes: NDArray[Any], grid: FactorGrid) -> NDArray[Any]:
    """dSprites' classes but for their first column, the one colour."""
    if classes.ndim != 2 or classes.shape[1] != len(grid.sizes) + 1 or (classes[:, 0] != 0).any():
        raise BadFile(
            f"{path} has latents classes {classes.shape}, of which the first column is not the one colour: another dataset?"
        )
    return classes[:, 1:]


def _binary(path: Path, images: Images) -> Images:
    """0 and 1 as 0 and 255."""
    if images.size and images.max() > 1:
        raise BadFile(f"{path} has images with values above 1, though dSprites' own are 0 and 1: damaged?")
    return images * np.uint8(255)


def _npz(path: Path, spec: SplitSpec) -> Reader:
    keys = zip_keys(path)
    if "imgs" in keys:
        with zip_rows(path, "latents_classes") as rows:
            labels = rows.read(rows.shape[0])
        check_order(path, _without_colour(path, labels, spec.grid), spec.grid)
        return _Array(path, "imgs", spec, binary=True)
    if "images" in keys:
        return _Array(path, "images", spec)
    raise BadFile(f"{path} holds {', '.join(sorted(keys)) or 'nothing'}; imgs (dSprites) or images (mpi3d) is expected")


def zip_keys(path: Path) -> set[str]:
    with open_zip(path) as archive:
        return {name.removesuffix(".npy") for name in archive.namelist()}


class _Array:
    """A whole array: a member of an .npz, or an .npy, in the order of the grid."""

    def __init__(self, path: Path, member: str | None, spec: SplitSpec, binary: bool = False) -> None:
        self.path, self.member, self.binary = path, member, binary
        self.files: Sequence[Path] = (path,)
        with self._open() as rows:
            self.shape = image_shape(path, rows.shape, rows.dtype, spec.grid)

    def _open(self) -> contextlib.AbstractContextManager[Rows]:
        return npy_rows(self.path) if self.member is None else zip_rows(self.path, self.member)

    def blocks(self, wanted: Sequence[range]) -> Iterator[Images]:
        with self._open() as rows:
            rows.flatten(self.shape)
            position = 0
            for block in wanted:
                rows.skip(block.start - position)
                images = rows.read(len(block))
                position = block.stop
                yield _binary(self.path, images) if self.binary else images
            rows.skip(self.shape[0] - position)
            rows.finish()  # only now is the checksum of a zip member known


class _Hdf5:
    """dSprites (imgs, latents/classes) or 3D Shapes (images, labels) as their authors publish them."""

    def __init__(self, path: Path, spec: SplitSpec) -> None:
        self.path = path
        self.files: Sequence[Path] = (path,)
        with self._open() as file:
            self.key, labels = ("imgs", "latents/classes") if "imgs" in file else ("images", "labels")
            if not all(isinstance(file.get(key), h5py.Dataset) for key in (self.key, labels)):
                raise BadFile(
                    f"{path} holds {', '.join(file) or 'nothing'}; imgs and latents (dSprites) or images and labels (3dshapes) are expected"
                )
            images, codes = file[self.key], file[labels][()]
            self.shape = image_shape(path, images.shape, images.dtype, spec.grid)
            check_order(path, _without_colour(path, codes, spec.grid) if self.key == "imgs" else codes, spec.grid)

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            with h5py.File(self.path, "r", rdcc_nbytes=CHUNK_CACHE, rdcc_nslots=100_003) as file:
                yield file
        except BadFile:
            raise
        # h5py's for truncated files, damaged chunks and damaged descriptions of an array
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
            raise BadFile(f"{self.path} is truncated or damaged: {' '.join(str(error).split())}; get it anew") from None

    def blocks(self, wanted: Sequence[range]) -> Iterator[Images]:
        with self._open() as file:
            for block in wanted:
                images = np.asarray(file[self.key][block.start : block.stop]).reshape(-1, *self.shape[1:])
                yield _binary(self.path, images) if self.key == "imgs" else images


def _published_names(spec: SplitSpec) -> tuple[str, str]:
    return PUBLISHED_NAMES.get(spec.name, spec.name), spec.name


@dataclass
class _Side:
    """The train or the test images of a published split: where each row of its file belongs in the grid."""

    path: Path
    index: NDArray[np.int64]
    ascending: bool = field(init=False)

    def __post_init__(self) -> None:
        self.ascending = bool((np.diff(self.index) > 0).all())


class _PublishedSplit:
    """The benchmark's four files of one kind, put back together: images (n, C, R, R) uint8, labels (n, F) factor indices."""

    def __init__(self, path: Path, spec: SplitSpec) -> None:
        match = _PUBLISHED.fullmatch(path.name)
        assert match
        if match["name"] not in _published_names(spec):
            raise BadFile(f"{path} is of {match['name']} by its name, not of {_published_names(spec)[0]}")
        stem = path.with_name(f"{match['name']}_{match['kind']}")
        self.sides = []
        shapes = set()
        for side in ("train", "test"):
            images, labels = (Path(f"{stem}_{side}_{what}.npz") for what in ("images", "labels"))
            for file in (images, labels):
                if not file.is_file():
                    raise MissingError(f"there is no {file}: of a published split, train and test, images and labels are needed")
            index = self._index(labels, spec)
            zip_keys(images)
            with zip_rows(images, "arr_0") as rows:
                if rows.dtype != np.uint8 or len(rows.shape) != 4 or rows.shape[2] != rows.shape[3] or rows.shape[0] != len(index):
                    raise BadFile(
                        f"{images} has {rows.dtype} {rows.shape}; uint8 ({len(index)}, C, R, R) is expected, as it has labels"
                    )
                shapes.add(rows.shape[1:])
            self.sides.append(_Side(images, index))
        self.files: Sequence[Path] = [
            Path(f"{stem}_{side}_{what}.npz") for side in ("train", "test") for what in ("images", "labels")
        ]
        together = np.concatenate([side.index for side in self.sides])
        if len(together) != len(spec.grid) or len(np.unique(together)) != len(spec.grid):
            raise BadFile(
                f"{stem}_*.npz have {len(np.unique(together)):,} different samples of {len(spec.grid):,}: another dataset?"
            )
        if len(shapes) != 1:
            raise BadFile(f"{stem}_*_images.npz differ in the shape of their images: {sorted(shapes)}")
        channels, side_length, _ = shapes.pop()
        self.shape = (len(spec.grid), side_length, side_length, channels)

    def _index(self, path: Path, spec: SplitSpec) -> NDArray[np.int64]:
        zip_keys(path)
        with zip_rows(path, "arr_0") as rows:
            labels = rows.read(rows.shape[0])
            rows.finish()
        if labels.dtype.kind == "f" and (labels == np.round(labels)).all():
            labels = labels.astype(np.int64)
        try:
            return spec.grid.index(labels)
        except ValueError as error:
            raise BadFile(f"{path}: {error}: another dataset?") from None

    def blocks(self, wanted: Sequence[range]) -> Iterator[Images]:
        if not all(side.ascending for side in self.sides):
            yield from self._blocks_by_window(wanted)
            return
        with contextlib.ExitStack() as stack:  # a merge of two ascending streams
            streams = [(side, stack.enter_context(zip_rows(side.path, "arr_0"))) for side in self.sides]
            for block in wanted:
                images = np.empty((len(block), self.shape[3], *self.shape[1:3]), np.uint8)
                for side, rows in streams:
                    first, last = np.searchsorted(side.index, (block.start, block.stop))
                    rows.skip(int(first) - rows.position)
                    images[side.index[first:last] - block.start] = rows.read(int(last - first))
                yield np.ascontiguousarray(images.transpose(0, 2, 3, 1))
            for side, rows in streams:
                rows.skip(len(side.index) - rows.position)
                rows.finish()

    def _blocks_by_window(self, wanted: Sequence[range]) -> Iterator[Images]:
        """Rows in no order: as many blocks as may be held at a time, and a pass over the files for them."""
        size = int(np.prod(self.shape[1:]))
        per_window = max(1, WINDOW // (size * max(map(len, wanted), default=1)))
        for start in range(0, len(wanted), per_window):
            window = wanted[start : start + per_window]
            first, last = window[0].start, window[-1].stop
            images = np.empty((last - first, self.shape[3], *self.shape[1:3]), np.uint8)
            for side in self.sides:
                with zip_rows(side.path, "arr_0") as rows:
                    step = max(1, 2**24 // size)
                    for position in range(0, len(side.index), step):
                        index = side.index[position : position + step]
                        read = rows.read(len(index))
                        inside = (first <= index) & (index < last)
                        images[index[inside] - first] = read[inside]
                    rows.finish()
            for block in window:
                yield np.ascontiguousarray(images[block.start - first : block.stop - first].transpose(0, 2, 3, 1))


class _Pictures:
    """A folder of pictures and a .csv with their `file` and each factor's value, by its index or its name; other columns don't matter."""

    def __init__(self, folder: Path, spec: SplitSpec) -> None:
        self.folder = folder
        tables = sorted(folder.glob("*.csv"))
        if len(tables) != 1:
            raise BadFile(f"{folder} has {len(tables)} .csv files; one is expected, with a column file and one per factor")
        try:
            with tables[0].open(newline="", encoding="utf-8-sig") as file:
                reader = csv.DictReader(file)
                columns, entries = reader.fieldnames or (), list(reader)
        except (UnicodeDecodeError, csv.Error) as error:
            raise BadFile(f"{tables[0]} is not a table in UTF-8, its columns separated by commas: {error}") from None
        missing = [name for name in ("file", *spec.grid.names) if name not in columns]
        if missing:
            raise BadFile(f"{tables[0]} has no column {', '.join(map(repr, missing))}")
        self.pictures = self._by_cell(tables[0], entries, spec.grid)
        self.files: Sequence[Path] = [*tables, *self.pictures]
        first = self._read(self.pictures[0])
        self.shape = (len(spec.grid), first.shape[0], first.shape[1], first.shape[2])
        if first.shape[0] != first.shape[1]:
            raise BadFile(f"{self.pictures[0]} is {first.shape[1]} x {first.shape[0]}; square pictures are expected")

    def _by_cell(self, table: Path, entries: Sequence[Mapping[str, str]], grid: FactorGrid) -> list[Path]:
        """The picture of every cell of the grid."""
        labels = np.empty((len(entries), len(grid.sizes)), np.int64)
        named = [{value: index for index, value in enumerate(factor.values or ()) if isinstance(value, str)} for factor in grid]
        for row, entry in enumerate(entries):
            for axis, factor in enumerate(grid):
                text = (entry[factor.name] or "").strip()
                value = int(text) if text.isascii() and text.isdigit() else named[axis].get(text, -1)
                if not 0 <= value < factor.size:
                    expected = (
                        f"an index from 0 to {factor.size - 1}{', or the name of a value,' if named[axis] else ''} is expected"
                    )
                    meant = did_you_mean(text, named[axis])
                    raise BadFile(f"{table}: in row {row + 1}, {factor.name} is {text!r}; {expected}{meant}")
                labels[row, axis] = value
            if not entry["file"]:
                raise BadFile(f"{table}: row {row + 1} names no file")
        cells = grid.index(labels)
        counts = np.bincount(cells, minlength=len(grid))
        for wrong, what in ((counts == 0, "no picture"), (counts > 1, "several pictures")):
            if wrong.any():
                cell = ", ".join(f"{n} {v}" for n, v in zip(grid.names, grid.factors(int(wrong.argmax())), strict=True))
                raise BadFile(f"{table} has {what} for {int(wrong.sum()):,} cells of the grid, first {cell}")
        pictures = [Path()] * len(grid)
        for cell, entry in zip(cells, entries, strict=True):
            pictures[cell] = self.folder / entry["file"]
        return pictures

    def _read(self, path: Path) -> Images:
        try:
            with reading(path), Image.open(path) as picture:
                if picture.mode not in _MODES:  # of 16 bits, Pillow would keep values up to 255 and make white of the others
                    raise BadFile(f"{path} has pixels of the kind {picture.mode}; 8 bits, gray or in colour, are expected")
                pixels = np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))
        except FileNotFoundError:
            raise BadFile(f"there is no {path}, which the .csv names") from None
        except (OSError, Image.DecompressionBombError) as error:
            raise BadFile(f"{path} is not a readable picture: {error}") from None
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def blocks(self, wanted: Sequence[range]) -> Iterator[Images]:
        for block in wanted:
            images = np.empty((len(block), *self.shape[1:]), np.uint8)
            for row, cell in enumerate(block):
                pixels = self._read(self.pictures[cell])
                if pixels.shape != self.shape[1:]:
                    raise BadFile(f"{self.pictures[cell]} is {pixels.shape}, the first picture {self.shape[1:]}")
                images[row] = pixels
            yield images
