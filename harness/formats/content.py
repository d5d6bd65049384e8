"""Whether the images of a file look like a dataset's: what no checksum tells of a file that was uploaded garbled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.formats.readers import Reader
from splits import FactorGrid
from splits.arrays import BadFile

PAIRS = 64  # of neighbours, drawn from a seed
ALIKE = 0.7  # of the difference between two cells anywhere, that neighbours' may have at most; dSprites' have 0.11, noise 1


def check_content(path: Path, reader: Reader, grid: FactorGrid) -> None:
    """Raise BadFile unless cells that differ by one step of the last factor look alike, and others don't.

    Reads the file once, front to back. It finds images that are noise, all the same, or in another order; not what is wrong with few.
    """
    last = len(grid.sizes) - 1
    rng = np.random.default_rng(0)
    cells = grid.factors(np.sort(rng.choice(len(grid), min(PAIRS, len(grid)), replace=False)))
    cells[:, last] = np.minimum(cells[:, last], max(grid.sizes[last] - 2, 0))
    firsts = np.unique(grid.index(cells))
    wanted = [range(int(first), min(int(first) + 2, len(grid))) for first in firsts]
    wanted = [
        block for block, after in zip(wanted, [*wanted[1:], range(len(grid), len(grid))], strict=True) if block.stop <= after.start
    ]
    pairs = [images.astype(np.int16) for images in reader.blocks(wanted)]
    pairs = [pair for pair in pairs if len(pair) == 2]
    if len(pairs) < 2:
        return  # a grid too small to tell
    neighbours = np.mean([_difference(*pair) for pair in pairs])
    others = np.mean([_difference(one[0], other[0]) for one, other in zip(pairs, [*pairs[1:], pairs[0]], strict=True)])
    if others == 0:
        raise BadFile(f"{path} is damaged: {len(pairs)} of its images, drawn from all, are the same")
    if neighbours > ALIKE * others:
        raise BadFile(
            f"{path} is damaged: its neighbouring images differ as much as any two ({neighbours:.1f} and {others:.1f} of 255 a pixel)"
        )


def _difference(one: NDArray[np.int16], other: NDArray[np.int16]) -> float:
    return float(np.abs(one - other).mean())
