"""A small dataset whose images show their factors, for what needs a store to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.data.store import Description
from harness.data.writer import Writer
from splits import Factor, FactorGrid, SplitSpec, derive_spec

FACTORS = (
    Factor("shape", 2, "categorical", ("square", "frame")),
    Factor("brightness", 4),
    Factor("x-position", 5),
    Factor("y-position", 5),
)
NAME = "blocks"


def blocks_spec() -> SplitSpec:
    return derive_spec(NAME, FACTORS, 0.2, never_held_out=("shape",), composition_q=0.4, source="a test")


def blocks(grid: FactorGrid) -> np.ndarray:
    """(N, 64, 64, 1) uint8: a filled or a hollow block, of some brightness, somewhere."""
    images = np.zeros((len(grid), 64, 64, 1), np.uint8)
    for image, (shape, brightness, x, y) in zip(images, grid.factors(np.arange(len(grid))), strict=True):
        top, left = 4 + 10 * y, 4 + 10 * x
        image[top : top + 16, left : left + 16] = 100 + 50 * brightness
        if shape:
            image[top + 4 : top + 12, left + 4 : left + 12] = 0
    return images


def write_blocks(root: Path) -> Path:
    """A finished store of them in `root`."""
    spec = blocks_spec()
    images = blocks(spec.grid)
    description = Description(NAME, images.shape, 50, True, spec.to_dict(), {"generator": "a test"})
    with Writer(root, description) as writer:
        for shard in writer.missing:
            writer.publish(shard, images[50 * shard : 50 * (shard + 1)])
        writer.finish(lambda _: "# blocks\n", lambda _: b"")
    return root
