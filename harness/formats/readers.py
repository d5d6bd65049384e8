"""Official files, read as a stream of images in the order of the grid, never whole.

`open_reader` looks at what a file holds, not at what it is called, and checks that it is the dataset that the caller names: the right
keys, dtypes and shapes, and every label where the row-major grid has it. Every mistake is a `BadFile`, one sentence.

One module, though a long one: the formats are told apart by the same look at a file.
"""

from __future__ import annotations

import contextlib
import logging
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.formats import hdf5
from harness.formats.picture_folder import CONVERTED, PictureFolder
from harness.io.pictures import LARGEST_SIDE
from splits import FactorGrid, SplitSpec
from splits.arrays import BadFile, Rows, npy_rows, require_regular, zip_keys, zip_rows
from splits.errors import AbsentError, MissingError, listed, shown
from splits.vocabulary import PUBLISHED_NAMES

logger = logging.getLogger(__name__)

Images = NDArray[np.uint8]
WINDOW = 2**29  # bytes of images that are held at a time where rows are in no order

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


def _is_tar(path: Path) -> bool:
    """Whether a file is a tar, compressed or not, that holds something: zeros, as of a download that failed, are none."""
    try:
        with tarfile.open(path) as tar:
            return tar.next() is not None
    except (tarfile.TarError, OSError, EOFError, ValueError):
        return False


def open_reader(path: str | Path, spec: SplitSpec) -> Reader:
    """A reader of a file, or a folder, in one of the known layouts.

    dSprites .npz (imgs, latents_classes) and .hdf5 (imgs, latents/classes); 3dshapes.h5 (images, labels); mpi3d .npz (images, flat
    or a dimension per factor); disent's copies of these, HDF5 without labels; the benchmark's split .npz files, of which any one
    stands for all four of its kind; a whole array
    as .npy; a folder of pictures with a .csv of factor values, by index or name (a column `file`, and one per factor).

    Raises:
        BadFile: a ValueError in one sentence: not such a file, damaged, or of another dataset.
        FileNotFoundError: if there is no such file, or one that belongs to it is missing.
    """
    path = Path(path)
    if not path.exists():
        raise AbsentError(f"there is no file {path}")
    if not path.is_dir():
        require_regular(path)
    if path.is_dir():
        published = sorted(path.glob("*_train_images.npz"))
        ours = [
            file for file in published if (match := _PUBLISHED.fullmatch(file.name)) and match["name"] in _published_names(spec)
        ]
        return _PublishedSplit((ours or published)[0], spec) if published else PictureFolder(path, spec)
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
    if magic.startswith(b"PAR1") or _is_tar(path):
        raise BadFile(
            f"{path} is a {'parquet' if magic.startswith(b'PAR1') else 'tar'} file, which can't be converted; {CONVERTED}"
        )
    raise BadFile(f"{path} is neither npz, hdf5 nor npy: a web page, or a download that failed?")


def image_shape(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], grid: FactorGrid) -> tuple[int, int, int, int]:
    """(N, R, R, C) of images stored as (N, R, R), (N, R, R, C), or with a dimension per factor instead of N."""
    found = f"{path} has images {shown(shape)} of {str(dtype)[:40]}"
    flat, multi = (len(grid),), grid.sizes
    for lead in (flat, multi):
        rest = shape[len(lead) :]
        if shape[: len(lead)] == lead and len(rest) in (2, 3) and rest[0] == rest[1] > 0 and 1 <= (*rest, 1)[2] <= 4:
            if dtype != np.uint8:
                raise BadFile(f"{found}; uint8 is expected")
            if rest[0] > LARGEST_SIDE:
                raise BadFile(f"{found}; an image can have at most {LARGEST_SIDE} × {LARGEST_SIDE} pixels")
            return (len(grid), rest[0], rest[1], rest[2] if len(rest) == 3 else 1)
    raise BadFile(f"{found}, not the {len(grid):,} of this dataset ({' × '.join(map(str, grid.sizes))} values): another dataset?")


def check_labels(path: Path, what: str, shape: tuple[int, ...], dtype: np.dtype[Any], expected: tuple[int, int]) -> None:
    """Raise unless these are labels, numbers of the expected shape: before they are read, as a file may claim any."""
    if shape != expected or dtype.kind not in "biuf":
        raise BadFile(f"{path} has {what} {shown(shape)} of {str(dtype)[:40]}, not numbers {expected}: another dataset?")


def check_order(path: Path, labels: NDArray[Any], grid: FactorGrid) -> None:
    """Raise unless row i of the labels (N, F), of any numbers, is cell i of the grid: each column takes its values in the grid's order."""
    for axis, factor in enumerate(grid):
        values, codes = np.unique(labels[:, axis], return_inverse=True)
        stride = int(np.prod(grid.sizes[axis + 1 :], dtype=np.int64))
        if len(values) != factor.size or not np.array_equal(codes, np.arange(len(grid)) // stride % factor.size):
            raise BadFile(
                f"{path}: its column {axis} does not run through the {factor.size} values of {factor.name} in order: mislabelled?"
            )


def _without_colour(path: Path, classes: NDArray[Any]) -> NDArray[Any]:
    """The classes of dSprites (N, 1 + F) but for their first column, the one colour."""
    if (classes[:, 0] != 0).any():
        raise BadFile(f"{path} has latents classes, of which the first column is not the one colour: another dataset?")
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
            check_labels(path, "latents classes", rows.shape, rows.dtype, (len(spec.grid), 1 + len(spec.grid.sizes)))
            labels = rows.whole()
        check_order(path, _without_colour(path, labels), spec.grid)
        return _Array(path, "imgs", spec, binary=True)
    if "images" in keys:
        return _Array(path, "images", spec)
    raise BadFile(f"{path} holds {listed(sorted(keys)) or 'nothing'}; imgs (dSprites) or images (mpi3d) is expected")


class _Array:
    """A whole array: a member of an .npz, or an .npy, in the order of the grid."""

    def __init__(self, path: Path, member: str | None, spec: SplitSpec, binary: bool = False) -> None:
        self.path, self.member, self.binary = path, member, binary
        self.files: Sequence[Path] = (path,)
        with self._open() as rows:
            rows.require_rows()
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
    """A reader of dSprites (imgs, latents/classes) or 3D Shapes (images, labels) as their authors publish them, or as disent keeps them.

    disent copies the images alone, in their order, those of dSprites as 0 and 255.
    """

    def __init__(self, path: Path, spec: SplitSpec) -> None:
        self.path = path
        self.files: Sequence[Path] = (path,)
        with hdf5.opened(path) as file:
            self.key, labels = ("imgs", "latents/classes") if "imgs" in file else ("images", "labels")
            images, codes = (hdf5.dataset(file, key) for key in (self.key, labels))
            if images is None or (codes is None and len(file) > 1):
                raise BadFile(
                    f"{path} holds {listed(file) or 'nothing'}; imgs and latents (dSprites) or images and labels (3dshapes) are expected"
                )
            self.shape = image_shape(path, images.shape, images.dtype, spec.grid)
            self.labelled = codes is not None
            if codes is None:
                logger.info("%s has no labels: its images are taken in the order of the grid", path)
                return
            of_colour = self.key == "imgs"
            what, columns = ("latents classes", 1 + len(spec.grid.sizes)) if of_colour else ("labels", len(spec.grid.sizes))
            check_labels(path, what, codes.shape, codes.dtype, (len(spec.grid), columns))
            check_order(path, _without_colour(path, codes[()]) if of_colour else codes[()], spec.grid)

    def blocks(self, wanted: Sequence[range]) -> Iterator[Images]:
        with hdf5.opened(self.path) as file:
            stored = hdf5.dataset(file, self.key)
            for block in wanted:
                images = np.asarray(stored[block.start : block.stop]).reshape(-1, *self.shape[1:])
                yield self._as_stored(images)

    def _as_stored(self, images: Images) -> Images:
        if self.key != "imgs":
            return images
        if self.labelled:
            return _binary(self.path, images)
        if not np.isin(images, (0, 255)).all():
            raise BadFile(f"{self.path} has imgs without labels with values besides 0 and 255, which disent's are: damaged?")
        return images


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
            with zip_rows(images, "arr_0") as rows:
                rows.require_rows()
                if rows.dtype != np.uint8 or len(rows.shape) != 4 or rows.shape[2] != rows.shape[3] or rows.shape[0] != len(index):
                    raise BadFile(
                        f"{images} has {str(rows.dtype)[:40]} {shown(rows.shape)}; uint8 ({len(index)}, C, R, R) is expected, as it has labels"
                    )
                shapes.add(rows.shape[1:])
            self.sides.append(_Side(images, index))
        self.files: Sequence[Path] = [
            Path(f"{stem}_{side}_{what}.npz") for side in ("train", "test") for what in ("images", "labels")
        ]
        together = np.concatenate([side.index for side in self.sides])
        if len(together) != len(spec.grid) or len(np.unique(together)) != len(spec.grid):
            raise BadFile(
                f"{stem}_*.npz have {len(np.unique(together)):,} different samples of {len(spec.grid):,}: another dataset? If a .toml lies "
                "beside them, it has their grid: give it as `spec_file`"
            )
        if len(shapes) != 1:
            raise BadFile(f"{stem}_*_images.npz differ in the shape of their images: {sorted(shapes)}")
        channels, side_length, _ = shapes.pop()
        self.shape = image_shape(path, (len(spec.grid), side_length, side_length, channels), np.dtype(np.uint8), spec.grid)

    def _index(self, path: Path, spec: SplitSpec) -> NDArray[np.int64]:
        with zip_rows(path, "arr_0") as rows:
            check_labels(path, "labels", rows.shape, rows.dtype, (min(rows.shape[0], len(spec.grid)), len(spec.grid.sizes)))
            labels = rows.whole()
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
