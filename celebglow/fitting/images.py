"""Labelled pictures, read from a folder or an array file; without torch, so that what is wrong with them is said at once."""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from celebglow.fitting.labels import column as column_of
from celebglow.fitting.labels import read_labels
from harness.io.pictures import check_size, load_picture
from harness.io.progress import progress_bar
from harness.machine import cores
from splits.arrays import BadFile, open_zip, rows_of
from splits.errors import InputError, listed, shown

logger = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}

MESH_POINTS = 478
MOST_PIXELS = 2**26  # of a picture that is read: a camera's 64 million
LONGEST_ENTRY = 4096  # bytes of an entry of an array file's column
NONE = np.empty((0, 0, 0, 3), np.uint8)
IN_MEMORY = 4 * 10**9  # bytes of a folder's images; more are paged from disk


@dataclass(frozen=True)
class LabelledImages:
    """Square RGB images with what is known about each.

    `images` (N, S, S, 3) uint8; `columns`: name to (N,) values, numbers or text (`person` identifies people);
    `landmarks` (N, 478, 2) pixels, x then y, or None.
    """

    images: NDArray[np.uint8]
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    landmarks: NDArray[np.float32] | None = None

    def held_out(self, fraction: float, seed: int) -> NDArray[np.bool_]:
        """(N,) True for about `fraction` of the images, at least one; images of one person stay together."""
        ids = self.columns.get("person", np.arange(len(self.images)))
        people = np.unique(ids)
        np.random.default_rng(seed).shuffle(people)
        return np.isin(ids, people[: max(1, round(fraction * len(people)))])

    def balanced_weights(self, column: str | None) -> NDArray[np.float64]:
        """(N,) sampling weights, summing to 1: uniform, or so that each value of `column` is drawn with the square root of its count.

        Raises:
            ValueError: if there is no such column.
        """
        weights = np.ones(len(self.images))
        if column is not None:
            _, which, counts = np.unique(column_of(self.columns, column), return_inverse=True, return_counts=True)
            weights = 1 / np.sqrt(counts[which])
        return weights / weights.sum()


@dataclass(frozen=True)
class FoundImages:
    """Images of which all is known but the pixels: what they are labelled with is read, and none is decoded.

    Attributes:
        path: of the folder, or the .npz.
        files: of a folder, in the order of their names; none of an .npz.
        labelled: what is known about each; its `images` are (0, 0, 0, 3).
        center_crop: see `find_images`.
    """

    path: Path
    files: tuple[Path, ...]
    labelled: LabelledImages
    center_crop: int | None = None

    def read(self, size: int, progress: bool = False) -> LabelledImages:
        """The images, decoded.

        Args:
            size: side of a folder's images, the central squares of its pictures; where the first picture is smaller, its side, down to
                half of `size`: enlarging adds nothing.
            progress: show how far it is, on stderr.

        Raises:
            ValueError: for a picture that cannot be read.
        """
        if self.files:
            return replace(self.labelled, images=_decode(self.files, size, self.center_crop, progress))
        with open_zip(self.path) as archive, rows_of(archive, self.path, "images") as rows:
            return replace(self.labelled, images=rows.whole(_allocate(rows.shape)))


def find_images(
    source: str | Path, labels: Path | None = None, center_crop: int | None = None, wanted: Collection[str] = ()
) -> FoundImages:
    """Find a folder's pictures, or an .npz, and read what is known about each.

    Args:
        source: a folder, whose pictures and those of its folders are taken in the order of their names; or an .npz with `images`
            (N, S, S, 3) uint8 and, optionally, `landmarks` (N, 478, 2) and any columns (N,) of numbers or text.
        labels: a table with more columns, see `celebglow.fitting.labels.read_labels`.
        center_crop: side in pixels of the squares that a folder's pictures are cropped to; as large as they can be if None.
        wanted: columns that have to be there.

    Raises:
        ValueError: if there is nothing usable, saying what was expected.
    """
    path = Path(source)
    if not path.is_dir():
        if center_crop is not None:
            raise InputError("`center_crop` is for folders of pictures; `crop` crops an array file's images")
        count, labelled = _look_into(path)
        files: tuple[Path, ...] = ()
        names: list[str] = []
    else:
        files = tuple(sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")))
        if not files:
            raise InputError(f"{path} holds no image ({', '.join(sorted(SUFFIXES))})")
        if odd := next((file for file in files if not file.is_file()), None):  # the reading of a pipe would never end
            raise InputError(f"{odd} is not a regular file: take it out, or rename it")
        count, labelled = len(files), LabelledImages(NONE)
        names = [file.relative_to(path).as_posix() for file in files]
    if labels is not None:
        labelled = replace(labelled, columns=labelled.columns | read_labels(labels, names, count))
    for name in wanted:
        column_of(labelled.columns, name)
    return FoundImages(path, files, labelled, center_crop)


def read_images(
    source: str | Path,
    size: int,
    labels: Path | None = None,
    center_crop: int | None = None,
    wanted: Collection[str] = (),
    progress: bool = False,
) -> LabelledImages:
    """Find images and read them: arguments as of `find_images` and `FoundImages.read`, which raise what is wrong."""
    return find_images(source, labels, center_crop, wanted).read(size, progress)


def _look_into(path: Path) -> tuple[int, LabelledImages]:
    """How many images an .npz has, and all of it but those.

    All arrays are looked at by their headers first: a column may claim, or unpack to, more than there is memory.
    """
    if not path.is_file() or path.suffix != ".npz":
        raise InputError(f"{path} is neither a folder of images nor an .npz file")
    columns: dict[str, NDArray[Any]] = {}
    with open_zip(path) as archive:
        shapes = _shapes(archive, path)
        for name, shape in shapes.items():
            if len(shape) == 1 or name == "landmarks":
                with rows_of(archive, path, name) as rows:
                    columns[name] = rows.whole()
    landmarks = columns.pop("landmarks", None)
    if landmarks is not None and landmarks.dtype.kind not in "iuf":
        raise InputError(f"{path}: 'landmarks' must be numbers, not {landmarks.dtype}")
    return shapes["images"][0], LabelledImages(NONE, columns, None if landmarks is None else landmarks.astype(np.float32))


def _shapes(archive: ZipFile, path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each array of an .npz, if they are of as many images, and of types that can be read."""
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if "images" not in names:
        raise InputError(f"{path} has no array 'images' of shape (N, S, S, 3)")
    shapes = {}
    for name in names:
        with rows_of(archive, path, name) as rows:
            shapes[name] = rows.shape
            if name == "images" and rows.dtype != np.uint8:
                raise InputError(f"{path}: 'images' must be uint8, not {rows.dtype}")
            if len(rows.shape) == 1 and rows.dtype.itemsize > LONGEST_ENTRY:
                raise InputError(f"{path}: the text of {shown(name)} is longer than a column's may be")
    shape = shapes["images"]
    if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise InputError(f"{path} has no array 'images' of shape (N, S, S, 3)")
    if wrong := [name for name in names if shapes[name][0] != shape[0]]:
        raise InputError(f"{path}: {listed(wrong)} must have one row per image ({shape[0]})")
    if shapes.get("landmarks", (0, MESH_POINTS, 2))[1:] != (MESH_POINTS, 2):
        raise InputError(f"{path}: 'landmarks' must be (N, {MESH_POINTS}, 2), not {shapes['landmarks']}")
    return shapes


def _decode(files: Sequence[Path], size: int, center_crop: int | None, progress: bool) -> NDArray[np.uint8]:
    """The central squares of pictures, (N, S, S, 3), in memory if they are not many."""
    side = max(size // 2, min(size, _read_square(files[0], None, center_crop)[0].shape[0]))
    images = _allocate((len(files), side, side, 3))
    shapes = np.empty((len(files), 2), np.int64)

    def decode(index: int) -> None:
        images[index], shapes[index] = _read_square(files[index], side, center_crop)

    with ThreadPoolExecutor(cores()) as pool, progress_bar("read", "img", len(files), shown=progress) as bar:
        for _ in pool.map(decode, range(len(files))):
            bar.update()
    _warn(files, shapes, side, center_crop)
    return images


def _warn(files: Sequence[Path], shapes: NDArray[np.int64], side: int, center_crop: int | None) -> None:
    """Say of pictures of other `shapes` (N, 2), width and height, than squares of `side` what became of them."""
    oblong, small = shapes[:, 0] != shapes[:, 1], np.minimum(shapes.min(axis=1), center_crop or side) < side
    for which, what, so in (
        (oblong if center_crop is None else np.zeros_like(oblong), "not square", "the central square of each is used"),
        (small, f"smaller than {side} × {side}", "they are enlarged, which adds nothing"),
    ):
        if which.any():
            first = int(which.argmax())
            width, height = shapes[first]
            logger.warning(
                "%s: %d of %d pictures, first %s (%d × %d); %s", what, which.sum(), len(files), files[first], width, height, so
            )


def _allocate(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Room for images: beyond `IN_MEMORY` bytes a temporary file, of which the system keeps in memory what there is room for."""
    size = math.prod(shape)
    if size <= IN_MEMORY:
        return np.empty(shape, np.uint8)
    folder = tempfile.gettempdir()
    if shutil.disk_usage(folder).free < size:
        raise InputError(f"{shape[0]} images take {size / 1e9:.1f} GB, more than is free in {folder}: set TMPDIR to a larger disk")
    logger.info("%d images take %.1f GB: they are kept in a temporary file in %s (TMPDIR)", shape[0], size / 1e9, folder)
    with tempfile.TemporaryFile() as file:  # without a name: gone when the process is
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _read_square(file: Path, size: int | None, center_crop: int | None) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """The central square of a picture, resized to `size` if that is given, and the picture's width and height."""
    try:
        image = load_picture(file, lambda picture: check_size(file, picture, MOST_PIXELS))
        ImageOps.exif_transpose(image, in_place=True)
    except BadFile:
        raise
    except Exception as error:  # whatever damaged EXIF data makes Pillow raise
        raise InputError(f"{file} is not a readable image: {error}") from error
    side = center_crop or min(image.size)
    if side > min(image.size):
        raise InputError(f"{file} is {image.width} × {image.height}: too small for `center_crop` {side}")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side)).convert("RGB")
    return np.asarray(square if size is None else square.resize((size, size), Image.Resampling.BOX)), image.size
