"""Training images: read from a folder or an array file, and augmented."""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from celebglow.fitting.labels import column as column_of
from celebglow.fitting.labels import read_labels
from harness.io.pictures import check_size, load_picture
from harness.io.progress import progress_bar
from splits.arrays import BadFile, open_zip, rows_of
from splits.errors import InputError, listed, shown

logger = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}

# Points of the 478-point face mesh that fix where a face is without fixing its expression: the oval, brows, eyes, nose.
OVAL = (10, 297, 284, 389, 454, 361, 397, 379, 400, 152, 176, 150, 172, 132, 234, 162, 54, 67)
FRAME = (33, 133, 362, 263, 70, 105, 300, 334, 168, 1, 98, 327)
BROWS = (105, 334)
MESH_POINTS = 478
MOST_PIXELS = 2**26  # of a picture that is read: a camera's 64 million
LONGEST_ENTRY = 4096  # bytes of an entry of an array file's column
IN_MEMORY = 4 * 10**9  # bytes of a folder's images; more are paged from disk


@dataclass(frozen=True)
class LabelledImages:
    """Square RGB images with what is known about each.

    ``images`` (N, S, S, 3) uint8; ``columns``: name to (N,) values, numbers or text (``person`` identifies people);
    ``landmarks`` (N, 478, 2) pixels, x then y, or None.
    """

    images: NDArray[np.uint8]
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)
    landmarks: NDArray[np.float32] | None = None

    def held_out(self, fraction: float, seed: int) -> NDArray[np.bool_]:
        """(N,) True for about ``fraction`` of the images, at least one; images of one person stay together."""
        ids = self.columns.get("person", np.arange(len(self.images)))
        people = np.unique(ids)
        np.random.default_rng(seed).shuffle(people)
        return np.isin(ids, people[: max(1, round(fraction * len(people)))])

    def balanced_weights(self, column: str | None) -> NDArray[np.float64]:
        """(N,) sampling weights, summing to 1: uniform, or so that each value of ``column`` is drawn with the square root of its count.

        Raises:
            ValueError: if there is no such column.
        """
        weights = np.ones(len(self.images))
        if column is not None:
            _, which, counts = np.unique(column_of(self.columns, column), return_inverse=True, return_counts=True)
            weights = 1 / np.sqrt(counts[which])
        return weights / weights.sum()


def read_images(
    source: str | Path,
    size: int,
    labels: Path | None = None,
    center_crop: int | None = None,
    wanted: Collection[str] = (),
    progress: bool = False,
) -> LabelledImages:
    """Read a folder of pictures, or an .npz, and what is known about each.

    Args:
        source: a folder, whose pictures and those of its folders are read in the order of their names; or an .npz with ``images``
            (N, S, S, 3) uint8 and, optionally, ``landmarks`` (N, 478, 2) and any columns (N,) of numbers or text.
        size: side of a folder's images, the central squares of its pictures; where the first picture is smaller, its side, down to
            half of ``size``: enlarging adds nothing.
        labels: a table with more columns, see `celebglow.fitting.labels.read_labels`.
        center_crop: side in pixels of the squares that a folder's pictures are cropped to; as large as they can be if None.
        wanted: columns that have to be there: said before the pictures are decoded, which can take long.
        progress: show how far it is, on stderr.

    Raises:
        ValueError: if there is nothing usable, saying what was expected.
    """
    path = Path(source)
    if not path.is_dir():
        if center_crop is not None:
            raise InputError("`center_crop` is for folders of pictures; `crop` crops an array file's images")
        data = _read_archive(path)
        if labels is not None:
            data = replace(data, columns=data.columns | read_labels(labels, (), len(data.images)))
    else:
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and not file.name.startswith("."))
        if not files:
            raise InputError(f"{path} holds no image ({', '.join(sorted(SUFFIXES))})")
        if odd := next((file for file in files if not file.is_file()), None):  # the reading of a pipe would never end
            raise InputError(f"{odd} is not a regular file: take it out, or rename it")
        names = [file.relative_to(path).as_posix() for file in files]
        data = LabelledImages(np.empty(0, np.uint8), {} if labels is None else read_labels(labels, names, len(files)))
    for name in wanted:
        column_of(data.columns, name)
    return replace(data, images=_decode(files, size, center_crop, progress)) if path.is_dir() else data


def _read_archive(path: Path) -> LabelledImages:
    """The arrays of an .npz. All are looked at by their headers first: a column may claim, or unpack to, more than there is memory."""
    if not path.is_file() or path.suffix != ".npz":
        raise InputError(f"{path} is neither a folder of images nor an .npz file")
    columns: dict[str, NDArray[Any]] = {}
    with open_zip(path) as archive:
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
        for name in names:
            if len(shapes[name]) == 1 or name == "landmarks":
                with rows_of(archive, path, name) as rows:
                    columns[name] = rows.whole()
        with rows_of(archive, path, "images") as rows:
            images = rows.whole(_allocate(shape))
    landmarks = columns.pop("landmarks", None)
    if landmarks is not None and landmarks.dtype.kind not in "iuf":
        raise InputError(f"{path}: 'landmarks' must be numbers, not {landmarks.dtype}")
    return LabelledImages(images, columns, None if landmarks is None else landmarks.astype(np.float32))


def _decode(files: list[Path], size: int, center_crop: int | None, progress: bool) -> NDArray[np.uint8]:
    """The central squares of pictures, (N, S, S, 3), in memory if they are not many."""
    side = max(size // 2, min(size, _read_square(files[0], None, center_crop)[0].shape[0]))
    images = _allocate((len(files), side, side, 3))
    shapes = np.empty((len(files), 2), np.int64)

    def decode(index: int) -> None:
        images[index], shapes[index] = _read_square(files[index], side, center_crop)

    with ThreadPoolExecutor(os.cpu_count()) as pool, progress_bar("read", "img", len(files), shown=progress) as bar:
        for _ in pool.map(decode, range(len(files))):
            bar.update()
    _warn(files, shapes, side, center_crop)
    return images


def _warn(files: list[Path], shapes: NDArray[np.int64], side: int, center_crop: int | None) -> None:
    """Say of pictures of other ``shapes`` (N, 2), width and height, than squares of ``side`` what became of them."""
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
    """The central square of a picture, resized to ``size`` if that is given, and the picture's width and height."""
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


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied. All ranges are symmetric and uniform.

    With landmarks, ``mix`` of the images get the face interior of another person, warped onto their own landmarks and
    matched in colour: with a thousand people, this is what keeps a flow from learning them by heart.
    """

    crop: float = 1.0  # the central part of the picture that is used
    flip: bool = True
    rotation: float = 4.0  # degrees
    scale: float = 0.06
    shift: float = 0.02  # of the side
    gamma: float = 0.15
    white_balance: float = 0.05
    mix: float = 0.7


NO_AUGMENTATION = Augmentation(flip=False, rotation=0, scale=0, shift=0, gamma=0, white_balance=0, mix=0)


class Batches:
    """Augmented training batches of a set of images; each batch a pure function of its indices and a generator.

    Args:
        images: (N, S, S, 3) uint8.
        landmarks: (N, 478, 2) pixels or None: then no mixing.
        resolution: side of the batches' images.
        augmentation: how to vary them.
        rows: the images that are used; all if None. They are not copied: there may be more than fit into memory.
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        landmarks: NDArray[np.float32] | None,
        resolution: int,
        augmentation: Augmentation,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self.side = images.shape[1]
        self.images = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        self.rows = torch.arange(len(images)) if rows is None else torch.from_numpy(rows)
        # pixel centres of a picture of side S lie at (i + 1/2) / S * 2 - 1 in grid_sample's coordinates
        self.landmarks = None if landmarks is None else torch.from_numpy(landmarks) / self.side * 2 - 1
        self.resolution = resolution
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (B, 3, R, R) for ``indices`` (B,)."""
        aug = self.augmentation
        count = len(indices)
        grid = self._grid(count, generator)
        batch = _sample(self._pixels(indices), grid)
        if aug.mix > 0 and self.landmarks is not None:
            chosen = torch.rand(count, generator=generator) < aug.mix
            partners = torch.randint(len(self), (count,), generator=generator)
            if chosen.any():
                batch[chosen] = self._mix(batch[chosen], grid[chosen], indices[chosen], partners[chosen])
        gamma = torch.exp(_uniform((count, 1, 1, 1), aug.gamma, generator))
        gain = 1 + _uniform((count, 3, 1, 1), aug.white_balance, generator)
        return ((batch / 255).clamp(0, 1) ** gamma * gain * 255).round().clamp(0, 255).to(torch.uint8)

    def _pixels(self, indices: Tensor) -> Tensor:
        """(B, 3, S, S) float, ready to be sampled."""
        images = self.images[self.rows[indices]].float()
        return _smooth(images) if self.side > 1.5 * self.resolution else images

    def _grid(self, count: int, generator: torch.Generator) -> Tensor:
        """Random similarity transforms as sampling grids (B, R, R, 2)."""
        aug = self.augmentation
        angle = torch.deg2rad(_uniform((count,), aug.rotation, generator))
        scale = aug.crop * torch.exp(_uniform((count,), aug.scale, generator))
        mirror = torch.where(torch.rand(count, generator=generator) < 0.5 * aug.flip, -1.0, 1.0)
        shift = _uniform((count, 2), 2 * aug.shift, generator)
        cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
        rows = [torch.stack([cos * mirror, -sin, shift[:, 0]], 1), torch.stack([sin * mirror, cos, shift[:, 1]], 1)]
        return F.affine_grid(torch.stack(rows, 1), [count, 1, self.resolution, self.resolution], align_corners=False)

    def _mix(self, base: Tensor, grid: Tensor, own: Tensor, partners: Tensor) -> Tensor:
        """Blend the partners' face interiors into ``base`` (B, 3, R, R), which was sampled at ``grid``."""
        assert self.landmarks is not None
        points, targets = self.landmarks[self.rows[own]], self.landmarks[self.rows[partners]]
        anchors = list(OVAL + FRAME)
        coarse = F.interpolate(grid.permute(0, 3, 1, 2), scale_factor=0.5, mode="area").permute(0, 2, 3, 1)
        shift = _thin_plate(points[:, anchors], (targets - points)[:, anchors], coarse.flatten(1, 2))
        shift = shift.reshape(coarse.shape).permute(0, 3, 1, 2)
        shift = F.interpolate(shift, size=grid.shape[1:3], mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
        face = _sample(self._pixels(partners), grid + shift)
        mask = _face_mask(points[:, list(OVAL)], points[:, list(BROWS), 1].amin(dim=1), grid)
        mean, std = _masked_moments(base, mask)
        face_mean, face_std = _masked_moments(face, mask)
        face = (face - face_mean) * (std / face_std).clamp(0.5, 2.0) + mean
        return base + mask * (face - base)


def _uniform(shape: tuple[int, ...], half_range: float, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(shape, generator=generator) - 1) * half_range


def _sample(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def _thin_plate(points: Tensor, values: Tensor, where: Tensor) -> Tensor:
    """Thin-plate spline through ``values`` (B, K, 2) at ``points`` (B, K, 2), evaluated at ``where`` (B, M, 2)."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squared = torch.cdist(a, b).square()
        return squared * torch.log(squared + 1e-9)

    count, number = points.shape[:2]
    affine = torch.cat([torch.ones(count, number, 1), points], dim=2)
    system = torch.zeros(count, number + 3, number + 3)
    system[:, :number, :number] = kernel(points, points) + 1e-3 * torch.eye(number)  # slightly smoothed
    system[:, :number, number:] = affine
    system[:, number:, :number] = affine.transpose(1, 2)
    weights = torch.linalg.solve(system, torch.cat([values, torch.zeros(count, 3, 2)], dim=1))
    basis = torch.cat([kernel(where, points), torch.ones(count, where.shape[1], 1), where], dim=2)
    return basis @ weights


def _smooth(images: Tensor) -> Tensor:
    """Binomial 3x3 filter of (B, C, S, S), rounded to whole numbers, so that sampling at half the size does not alias."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    rows = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    return ((rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 16).round()


def _face_mask(oval: Tensor, brows: Tensor, grid: Tensor) -> Tensor:
    """Soft masks (B, 1, H, W) at the points ``grid`` (B, H, W, 2): inside the outlines ``oval`` (B, K, 2), up to just above ``brows`` (B,).

    The forehead stays out: another person's fringe does not belong under this one's hair.
    """
    centre = oval.mean(dim=1, keepdim=True)
    deviations = oval - centre
    precision = torch.linalg.inv(deviations.transpose(1, 2) @ deviations / oval.shape[1])
    offset = grid.flatten(1, 2) - centre
    radius = ((offset @ precision) * offset).sum(dim=2).div(2).sqrt()  # 1 on the outline
    below_brows = grid[..., 1].flatten(1) - (brows[:, None] - 0.03)
    mask = torch.sigmoid((0.86 - radius) / 0.05) * torch.sigmoid(below_brows / 0.025)
    return mask.reshape(grid.shape[0], 1, *grid.shape[1:3])


def _masked_moments(images: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    weight = mask / mask.sum(dim=(2, 3), keepdim=True)
    mean = (images * weight).sum(dim=(2, 3), keepdim=True)
    return mean, ((images - mean).square() * weight).sum(dim=(2, 3), keepdim=True).sqrt() + 1e-3
