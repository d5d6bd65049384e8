"""Glow (Kingma & Dhariwal 2018, arXiv 1807.03039): images to latents and back, exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from diffusers import ModelMixin  # noqa: F401  # loading a pipeline looks the base class up here
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from celebglow.architecture import CHANNELS, RESOLUTION, STEPS, WIDTHS, check_architecture
from celebglow.flow import Flow
from celebglow.layers import ActNorm, CouplingNet, SplitPrior, Step, TopPrior, squeeze, unsqueeze
from splits.errors import InputError, did_you_mean


class Encoding(NamedTuple):
    """What `Glow.encode` returns: `latents` (B, D) and `log_det` (B,), nats, of the whole map image to latents."""

    latents: Tensor
    log_det: Tensor


class Level(nn.Module):
    """Squeeze, then steps of flow, then (except at the last level) a split that factors half of the channels out."""

    def __init__(
        self, channels: int, steps: int, width: int, coupling: str, border: bool, split: bool, contexts: Mapping[str, int]
    ) -> None:
        super().__init__()
        sides = (contexts.get("conv1", 0), contexts.get("conv2", 0), contexts.get("conv3", 0))
        self.steps = nn.ModuleList(Step(channels, width, coupling, border, sides) for _ in range(steps))
        self.prior = SplitPrior(channels // 2, border, contexts.get("prior", 0)) if split else None

    def __iter__(self) -> Iterator[Step]:
        """The steps in the order of encoding."""
        return iter(cast("list[Step]", list(self.steps)))


PLACES = ("conv1", "conv2", "conv3", "prior", "top")


def _check_contexts(contexts: Mapping[str, Sequence[int]], resolution: int, levels: int) -> None:
    """Raise ValueError for contexts that no Glow of that size has."""
    for place, sides in contexts.items():
        if place not in PLACES:
            raise InputError(f"unknown place of a context {place!r}{did_you_mean(place, PLACES)}")
        most = [resolution // 2 ** (level + 1) for level in range(levels)]
        if len(sides) != levels or not all(0 <= side <= limit for side, limit in zip(sides, most, strict=True)):
            raise InputError(
                f"contexts of {place}: a side for each of {levels} levels is expected, at most {most}, got {list(sides)}"
            )


class Glow(Flow):
    """A multi-scale normalizing flow with an exact inverse and an exact likelihood.

    Latents are one flat vector per image, (B, D) with D = channels * resolution**2: the levels' parts from fine to coarse, each (C, H, W)
    in row-major order (`latent_shapes`). They are standard normal under the model: the priors' means and scales are part of the map.

    Args:
        resolution: height and width of the images, divisible by 2**levels.
        channels: of the images.
        steps: steps of flow per level; its length is the number of levels.
        widths: hidden channels of the coupling networks per level, or one number for all.
        coupling: "additive" or "affine".
        bits: the data's bits per channel (the original CelebA-HQ model: 5).
        border: append the original's border channel to every padded convolution.
        learn_top: learn the last level's prior instead of N(0, 1).
        quantize: `postprocess` rounds down to the 2**bits levels, as the original does; if False it keeps 256 levels, which shows no
            banding.
        contexts: of a conditional Glow whose condition is fixed: the sides of the constant maps that are added in each level, by where:
            "conv1", "conv2" and "conv3" of the couplings, "prior", and "top" of the last level's prior; 0 for none.

    Raises:
        ValueError: for a shape or name that no flow can have.
    """

    @register_to_config
    def __init__(
        self,
        resolution: int = RESOLUTION,
        channels: int = CHANNELS,
        steps: Sequence[int] = STEPS,
        widths: Sequence[int] | int = WIDTHS,
        coupling: str = "additive",
        bits: int = 5,
        border: bool = False,
        learn_top: bool = True,
        quantize: bool = True,
        contexts: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        super().__init__()
        widths = check_architecture(resolution, channels, steps, widths, coupling, bits)
        levels = len(steps)
        _check_contexts(contexts or {}, resolution, levels)
        self.levels = nn.ModuleList()
        self.latent_shapes: list[tuple[int, int, int]] = []
        width_in = channels
        for index, (depth, width) in enumerate(zip(steps, widths, strict=True)):
            split = index < levels - 1
            level_channels = 4 * width_in
            side = resolution // 2 ** (index + 1)
            sides = {place: of_levels[index] for place, of_levels in (contexts or {}).items()}
            self.levels.append(Level(level_channels, depth, width, coupling, border, split, sides))
            width_in = level_channels // 2 if split else level_channels
            self.latent_shapes.append((width_in, side, side))
        self.top_prior = TopPrior(width_in, border, sides.get("top", 0)) if learn_top else None

    def each_level(self) -> list[Level]:
        """The levels, fine to coarse."""
        return cast("list[Level]", list(self.levels))

    # The map

    def encode(self, x: Tensor) -> Encoding:
        """Preprocessed images (B, C, H, W) to standard-normal latents (B, D) and the log-determinant (B,) in nats."""
        log_det = x.new_zeros(x.shape[0])
        parts = []
        for level in self.each_level():
            x = squeeze(x)
            if x.device.type == "cpu" and x.dtype == torch.float32:
                x = x.contiguous(memory_format=torch.channels_last)
            for step in level:
                x, step_log_det = step(x)
                log_det = log_det + step_log_det
            if level.prior is not None:
                x, z2 = x.chunk(2, dim=1)
                mean, logs = level.prior(x)
                parts.append((z2 - mean) * torch.exp(-logs))
                log_det = log_det - logs.sum(dim=(1, 2, 3))
        if self.top_prior is not None:
            mean, logs = self.top_prior(x)
            x = (x - mean) * torch.exp(-logs)
            log_det = log_det - logs.sum()
        parts.append(x)
        return Encoding(torch.cat([part.flatten(1) for part in parts], dim=1), log_det)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, D) to images in the flow's range (B, C, H, W): the exact inverse of `encode`. For speed: `celebglow.decoder`."""
        parts = self.split_latents(latents)
        x = parts[-1]
        if self.top_prior is not None:
            mean, logs = self.top_prior(x)
            x = mean + torch.exp(logs) * x
        for level, eps in zip(reversed(self.each_level()), [None, *reversed(parts[:-1])], strict=True):
            if level.prior is not None and eps is not None:
                mean, logs = level.prior(x)
                x = torch.cat([x, mean + torch.exp(logs) * eps], dim=1)
            for step in reversed(list(level)):
                x = step.inverse(x)
            x = unsqueeze(x)
        return x

    # The model

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-likelihood in nats (B,) of dequantized images (B, C, H, W), as a lower bound on that of the discrete ones.

        Counts the -log(bins) of each dimension, as the original's objective does.
        """
        latents, log_det = self.encode(x)
        log_normal = -0.5 * (latents.square() + math.log(2 * math.pi)).sum(dim=1)
        return log_normal + log_det - self.num_latents * math.log(self.bins)

    def bits_per_dim(self, x: Tensor) -> Tensor:
        """Negative log-likelihood in bits per dimension (B,) of dequantized images (B, C, H, W)."""
        return -self.log_prob(x) / (self.num_latents * math.log(2))

    @torch.no_grad()
    def sample(self, count: int, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """`count` images (count, C, H, W) uint8 from latents N(0, temperature**2), drawn on the CPU."""
        latents = torch.randn(count, self.num_latents, generator=generator, dtype=self.dtype) * temperature
        return self.postprocess(self.decode(latents.to(self.device)))

    forward = encode

    # For training

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Data-dependent initialisation: set every ActNorm from one batch x (B, C, H, W) (section 3.1)."""
        norms = [module for module in self.modules() if isinstance(module, ActNorm)]
        for norm in norms:
            norm.initializing = True
        try:
            self.encode(x)
        finally:
            for norm in norms:
                norm.initializing = False

    def set_coupling_dtype(self, dtype: torch.dtype | None) -> None:
        """Run the coupling networks, nearly all of the work, in `dtype` (e.g. bfloat16), the rest as it is; None: all alike."""
        for module in self.modules():
            if isinstance(module, CouplingNet):
                module.autocast_dtype = dtype
