"""What every flow has, whatever its map: pixels, latents as one flat vector, a config."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from torch import Tensor

from harness.io.atomic import naming
from splits.errors import InputError


class Flow(ModelMixin, ConfigMixin):
    """An invertible map between images and latents, by the names that walks and pipelines use.

    A subclass has `latent_shapes`, a `config` with `resolution`, `channels`, `bits` and `quantize`, and a `decode`. Latents
    are one flat vector per image, (B, D) with D = channels * resolution**2: the levels' parts from fine to coarse, each (C, H, W) in
    row-major order.
    """

    config_name = "config.json"
    latent_shapes: list[tuple[int, int, int]]

    @property
    def num_latents(self) -> int:
        """D, the number of latent (and pixel) dimensions."""
        return sum(math.prod(shape) for shape in self.latent_shapes)

    @property
    def bins(self) -> int:
        return int(2**self.config.bits)

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write config and weights, as diffusers does; an error says where to, and how many bytes."""
        with naming(Path(save_directory), sum(tensor.nbytes for tensor in self.state_dict().values())):
            super().save_pretrained(save_directory, **options)

    # Pixels

    def preprocess(self, images: Tensor, noise: bool = False, generator: torch.Generator | None = None) -> Tensor:
        """Bring uint8 (B, C, H, W) to the flow's range [-1/2, 1/2); `noise` adds the dequantization noise U[0, 1/bins)."""
        x = torch.floor(images.to(self.dtype) / 2 ** (8 - self.config.bits)) / self.bins - 0.5
        if noise:
            x = x + torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device) / self.bins
        return x

    def postprocess(self, x: Tensor) -> Tensor:
        """Bring the flow's range to uint8 (B, C, H, W), in the 2**bits levels of the data or, without `quantize`, in all 256."""
        if self.config.quantize:
            levels = torch.floor((x + 0.5) * self.bins) * (256 / self.bins)
        else:  # dequantized data sits half a bin above its level: take that half off, round to nearest
            levels = torch.floor((x + 0.5) * 256 - 128 / self.bins + 0.5)
        return levels.clamp(0, 255).to(torch.uint8)

    def split_latents(self, latents: Tensor) -> list[Tensor]:
        """Split (B, D) into the levels' parts, fine to coarse, each (B, *latent_shapes[i]).

        Raises:
            ValueError: if the vectors have another length than D.
        """
        if latents.ndim != 2 or latents.shape[1] != self.num_latents:
            raise InputError(f"latents must be (B, {self.num_latents}), not {tuple(latents.shape)}")
        parts = latents.split([math.prod(shape) for shape in self.latent_shapes], dim=1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, self.latent_shapes, strict=True)]

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (B, D) to images in the flow's range (B, C, H, W)."""
        raise NotImplementedError
