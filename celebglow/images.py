"""Training images: read from a folder or an array file, and augmented."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}

# Points of the 478-point face mesh that fix where a face is without fixing its expression: the oval, brows, eyes, nose.
OVAL = (10, 297, 284, 389, 454, 361, 397, 379, 400, 152, 176, 150, 172, 132, 234, 162, 54, 67)
FRAME = (33, 133, 362, 263, 70, 105, 300, 334, 168, 1, 98, 327)
BROWS = (105, 334)
MESH_POINTS = 478


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
            if column not in self.columns:
                raise ValueError(f"no column {column!r} to balance; there are: {', '.join(self.columns) or 'none'}")
            _, which, counts = np.unique(self.columns[column], return_inverse=True, return_counts=True)
            weights = 1 / np.sqrt(counts[which])
        return weights / weights.sum()


def read_images(source: str | Path, size: int) -> LabelledImages:
    """Read a folder of images (centre-cropped to squares of ``size`` pixels, in the order of their names) or an .npz.

    An .npz holds ``images`` (N, S, S, 3) uint8 and, optionally, ``landmarks`` (N, 478, 2) and any columns (N,) of numbers or text.

    Raises:
        ValueError: if there is nothing usable, saying what was expected.
    """
    path = Path(source)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(f"{path} holds no image ({', '.join(sorted(SUFFIXES))})")
        return LabelledImages(np.stack([_read_square(file, size) for file in files]))
    if not path.is_file() or path.suffix != ".npz":
        raise ValueError(f"{path} is neither a folder of images nor an .npz file")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # whatever a damaged file makes the reader raise
        raise ValueError(f"{path} is not a readable .npz file of plain arrays") from error
    images = arrays.pop("images", None)
    if images is None or images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"{path} has no array 'images' of shape (N, S, S, 3)")
    if images.dtype != np.uint8:
        raise ValueError(f"{path}: 'images' must be uint8, not {images.dtype}")
    if wrong := [name for name, array in arrays.items() if array.shape[:1] != images.shape[:1]]:
        raise ValueError(f"{path}: {', '.join(wrong)} must have one row per image ({len(images)})")
    landmarks = arrays.pop("landmarks", None)
    if landmarks is not None and landmarks.shape[1:] != (MESH_POINTS, 2):
        raise ValueError(f"{path}: 'landmarks' must be (N, {MESH_POINTS}, 2), not {landmarks.shape}")
    columns = {name: array for name, array in arrays.items() if array.ndim == 1}
    return LabelledImages(images, columns, None if landmarks is None else landmarks.astype(np.float32))


def _read_square(file: Path, size: int) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            square = image.convert("RGB").crop((left, top, left + side, top + side))
            return np.asarray(square.resize((size, size), Image.Resampling.BOX))
    except OSError as error:
        raise ValueError(f"{file} is not a readable image: {error}") from error


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
    """

    def __init__(
        self,
        images: NDArray[np.uint8],
        landmarks: NDArray[np.float32] | None,
        resolution: int,
        augmentation: Augmentation,
    ) -> None:
        self.side = images.shape[1]
        self.images = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        if self.side > 1.5 * resolution:
            self.images = _smooth(self.images)
        # pixel centres of a picture of side S lie at (i + 1/2) / S * 2 - 1 in grid_sample's coordinates
        self.landmarks = None if landmarks is None else torch.from_numpy(landmarks) / self.side * 2 - 1
        self.resolution = resolution
        self.augmentation = augmentation

    def __len__(self) -> int:
        return len(self.images)

    def __call__(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (B, 3, R, R) for ``indices`` (B,)."""
        aug = self.augmentation
        count = len(indices)
        grid = self._grid(count, generator)
        batch = _sample(self.images[indices].float(), grid)
        if aug.mix > 0 and self.landmarks is not None:
            chosen = torch.rand(count, generator=generator) < aug.mix
            partners = torch.randint(len(self.images), (count,), generator=generator)
            if chosen.any():
                batch[chosen] = self._mix(batch[chosen], grid[chosen], indices[chosen], partners[chosen])
        gamma = torch.exp(_uniform((count, 1, 1, 1), aug.gamma, generator))
        gain = 1 + _uniform((count, 3, 1, 1), aug.white_balance, generator)
        return ((batch / 255).clamp(0, 1) ** gamma * gain * 255).round().clamp(0, 255).to(torch.uint8)

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
        points, targets = self.landmarks[own], self.landmarks[partners]
        anchors = list(OVAL + FRAME)
        coarse = F.interpolate(grid.permute(0, 3, 1, 2), scale_factor=0.5, mode="area").permute(0, 2, 3, 1)
        shift = _thin_plate(points[:, anchors], (targets - points)[:, anchors], coarse.flatten(1, 2))
        shift = shift.reshape(coarse.shape).permute(0, 3, 1, 2)
        shift = F.interpolate(shift, size=grid.shape[1:3], mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
        face = _sample(self.images[partners].float(), grid + shift)
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
    """Binomial 3x3 filter of uint8 (N, C, S, S), so that sampling at half the size does not alias."""
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = (kernel[:, None] * kernel).expand(images.shape[1], 1, 3, 3)
    rows = [
        F.conv2d(F.pad(part.float(), (1, 1, 1, 1), mode="replicate"), kernel, groups=images.shape[1]) for part in images.split(256)
    ]
    return torch.cat([row.round().to(torch.uint8) for row in rows])


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
