"""The split rules of Schott et al. (ICLR 2022, arXiv 2107.08221) and of its supplementary code, as functions.

r is the ratio of each varying factor's values that is held out: 0.2 for dSprites, 0.15 for Shapes3D, 0.1 for MPI3D and
0.3 for CelebGlow. Some factors are never held out; the others, v of them, are the varying ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from splits.errors import InputError
from splits.vocabulary import Kind

TestIf = Literal["any", "all"]

# n·r is meant in real numbers: without a tolerance ceil(100 · 0.07) would be 8, because the product is 7.000000000000001.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class HeldOutRule:
    """A sample is test if any, or all, of the factors in `held_out` have a value listed there (sorted indices)."""

    test_if: TestIf
    held_out: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class RandomRule:
    """`test_count` samples drawn by `random_mask`; `test_count_of` is the kind whose test count it repeats, or None."""

    test_count: int
    seed: int = 0
    test_count_of: Kind | None = None


Rule = HeldOutRule | RandomRule


def extrapolation(size: int, ratio: float) -> tuple[int, ...]:
    """The top ceil(size · ratio) values.

    >>> extrapolation(40, 0.1)
    (36, 37, 38, 39)
    """
    return tuple(range(size - _held_out_count(size, ratio), size))


def interpolation(size: int, ratio: float) -> tuple[int, ...]:
    """The ceil(size · ratio) values, spread as evenly as possible: the kept ones are round(linspace(0, size − 1)), half to even.

    >>> interpolation(40, 0.1)
    (5, 15, 24, 34)

    Raises:
        ValueError: if fewer than two values would be kept, as held-out values then lie outside the kept ones.
    """
    kept = size - _held_out_count(size, ratio)
    if kept < 2:
        raise InputError(f"{size} values less the held-out {size - kept} leave {kept}, but both ends must be kept")
    ends_and_between = np.round(np.linspace(0, size - 1, kept)).astype(int)
    return tuple(sorted(set(range(size)) - set(ends_and_between.tolist())))


def composition_quantile(ratio: float, varying: int) -> float:
    """The quantile q = 1 − (1 − (1 − r)^v)^(1/v): with it, composition's test ratio comes near that of the other kinds."""
    return float(1 - (1 - (1 - ratio) ** varying) ** (1 / varying))


def composition(size: int, quantile: float) -> tuple[int, ...]:
    """The values from p = floor(size · q) up, all of which are needed to be test; none if p is 0: the factor takes no part.

    >>> composition(6, 0.2)
    (1, 2, 3, 4, 5)
    >>> composition(3, 0.2)
    ()
    """
    threshold = math.floor(size * quantile + _TOLERANCE)
    return tuple(range(threshold, size)) if threshold else ()


def indices_of_range(text: str, size: int) -> tuple[int, ...]:
    """The indices that "36:", ":4" or "4:8" stands for in a spec; none where it isn't such a range within 0:size.

    >>> indices_of_range("36:", 40)
    (36, 37, 38, 39)
    """
    start, colon, stop = text.partition(":")
    if not colon or not all(end.isdecimal() or not end for end in (start, stop)):
        return ()
    first, end = int(start or 0), int(stop or size)
    return tuple(range(first, end)) if end <= size else ()


def random_mask(length: int, test_count: int, seed: int) -> NDArray[np.bool_]:
    """(length,) bool, True is test: the first `test_count` entries set, shuffled by `numpy.random.RandomState(seed).shuffle`.

    NumPy has frozen that generator's streams (NEP 19), so the mask is the same in every process and NumPy version. The rule
    is the supplementary code's; that `test_count` is extrapolation's is what its comment says, and isn't seen in its code.
    """
    mask = np.zeros(length, dtype=np.bool_)
    mask[:test_count] = True
    np.random.RandomState(seed).shuffle(mask)
    return mask


def _held_out_count(size: int, ratio: float) -> int:
    return math.ceil(size * ratio - _TOLERANCE)
