"""Training images varied: turned, shifted, recoloured, and with the faces of others mixed in."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from celebglow.fitting.config import Augmentation

# Points of the 478-point face mesh that fix where a face is without fixing its expression: the oval, brows, eyes, nose.
OVAL = (10, 297, 284, 389, 454, 361, 397, 379, 400, 152, 176, 150, 172, 132, 234, 162, 54, 67)
FRAME = (33, 133, 362, 263, 70, 105, 300, 334, 168, 1, 98, 327)
BROWS = (105, 334)


class TrainingImages:
    """A set of images in augmented batches, each a pure function of its indices and a generator.

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
        """The batch, uint8 (B, 3, R, R), of `indices` (B,)."""
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
        """Blend the partners' face interiors into `base` (B, 3, R, R), which was sampled at `grid`."""
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
    """Thin-plate spline through `values` (B, K, 2) at `points` (B, K, 2), evaluated at `where` (B, M, 2)."""

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
    """Soft masks (B, 1, H, W) at the points `grid` (B, H, W, 2): inside the outlines `oval` (B, K, 2), up to just above `brows` (B,).

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
