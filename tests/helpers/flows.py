"""Small flows with random weights, and populations of a few people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from celebglow.directions import Directions
from celebglow.generate import generate
from celebglow.glow import Glow
from celebglow.pipeline import CelebGlowPipeline
from celebglow.population import Population


def random_glow(seed: int = 0, **config: Any) -> Glow:
    """A Glow with no parameter at its initial zero, so that every term counts."""
    torch.manual_seed(seed)
    flow: Glow = Glow(**{"resolution": 16, "steps": (2, 2), "widths": 8, "quantize": False} | config)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    flow.eval()
    return flow


def random_pipeline(**config: Any) -> CelebGlowPipeline:
    flow = random_glow(**config)
    directions = Directions(("smile", "blond", "age"), flow.num_latents)
    directions.table.copy_(0.3 * torch.randn(3, flow.num_latents))
    return CelebGlowPipeline(flow, directions)


def make(root: Path, pipeline: CelebGlowPipeline, part: tuple[int, int] = (1, 1), **changes: object) -> bool:
    """Generate a CelebGlow of three people at two levels, but for `changes`; whether it is whole."""
    population = Population(**{"persons": 3, "levels": 2} | changes)  # type: ignore[arg-type]
    return generate(root, pipeline, population, part=part, progress=False)
