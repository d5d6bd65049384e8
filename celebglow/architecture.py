"""The shapes that a Glow can have, and the precisions in which it runs, checked without torch: what no flow can be is said at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from splits.errors import InputError, how_many

# Of a flow of which nothing else is said.
RESOLUTION, CHANNELS = 64, 3
STEPS, WIDTHS = (4, 8, 12, 10), (64, 96, 128, 128)

PRECISIONS = ("fp32", "bf16")  # of the coupling networks, which are nearly all of the work
COUPLINGS = ("additive", "affine")  # by the names that `celebglow.layers.COUPLINGS` has


def check_architecture(
    resolution: int = RESOLUTION,
    channels: int = CHANNELS,
    steps: Sequence[int] = STEPS,
    widths: Sequence[int] | int = WIDTHS,
    coupling: str = "additive",
    bits: int = 5,
    **others: Any,
) -> tuple[int, ...]:
    """Check the arguments of a `celebglow.glow.Glow`; those of `others` fit every shape.

    Returns:
        the width of each level.

    Raises:
        InputError: for a shape or name that no flow can have.
    """
    levels = len(steps)
    widths = (widths,) * levels if isinstance(widths, int) else tuple(widths)
    if min(resolution, channels, *widths) < 1 or min(steps, default=0) < 0:
        raise InputError(
            f"resolution {resolution}, channels {channels} and widths {widths} must be positive, steps {steps} not negative"
        )
    if levels < 1 or resolution % 2**levels:
        raise InputError(f"resolution {resolution} must be divisible by 2 ** {levels}, the number of levels being {levels}")
    if len(widths) != levels:
        raise InputError(
            f"{len(widths)} widths are given for {how_many(levels, 'level')}: one per level, or one number for all, is expected"
        )
    if coupling not in COUPLINGS:
        raise InputError(f"unknown coupling {coupling!r}; expected one of {', '.join(COUPLINGS)}")
    if not 1 <= bits <= 8:
        raise InputError(f"bits must be from 1 to 8, not {bits}")
    return widths


def check_precision(precision: str) -> None:
    """Raise InputError for a precision that is none of `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
