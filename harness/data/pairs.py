"""Pairs of images for weakly supervised models, drawn from the train split of a grid and never from outside it.

A factor of the second image is drawn among the values that exist in train *given the label so far*. Drawing each among the values
that train has somewhere would leave it wherever train is no product of values (random, composition), and leak test images.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from splits import Split
from splits.errors import InputError

TRIES = 100  # of a step that must change something


@dataclass(frozen=True)
class _Sampler:
    """What both have: the split, and its train side as a table to look cells up in."""

    split: Split
    _train: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _sizes: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _strides: NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = np.array(self.split.grid.sizes)
        object.__setattr__(self, "_train", self.split.train)
        object.__setattr__(self, "_sizes", sizes)
        object.__setattr__(self, "_strides", np.append(np.cumprod(sizes[:0:-1])[::-1], 1))
        if not len(self._train):
            raise InputError(f"{self.split.kind} of {self.split.dataset} has no train sample to draw from")

    def _first(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        return self._train[rng.integers(len(self._train), size=count)]

    def _alternatives(
        self, cells: NDArray[np.int64], axis: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.int64]]:
        """Along the factor `axis` (n,) of each cell: all its values' cells, whether they are train, and its present value.

        Returns:
            (n, V) int64, (n, V) bool, (n,) int64; V is the most values that one of these factors has.
        """
        sizes, strides = self._sizes[axis], self._strides[axis]
        present = cells // strides % sizes
        values = np.arange(sizes.max())
        exists = values < sizes[:, None]
        along = (cells - present * strides)[:, None] + np.where(exists, values, 0) * strides[:, None]
        return along, exists & ~self.split.mask[along], present


@dataclass(frozen=True)
class ChangedFactors(_Sampler):
    """Ada-GVAE's pairs: the second image differs from the first in `k` factors.

    The factors are visited in random order, and each takes a uniformly drawn other value of those that train has given the label so
    far, until k have changed; where train has none, the factor stays. (Locatello et al., 2020, held to the train split.)

    Args:
        split: whose train side is drawn from.
        k: factors that change; -1: for each pair uniformly 1 to F − 1.

    Raises:
        ValueError: for another k, or an empty train side.
    """

    k: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        factors = len(self.split.grid.sizes)
        if self.k != -1 and not 1 <= self.k <= factors:
            raise InputError(f"k must be 1 to {factors}, or -1 for a random number, not {self.k}")

    def sample(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(count, 2) int64 indices into the grid, all in train."""
        factors = len(self._sizes)
        first = self._first(count, rng)
        second = first.copy()
        left = rng.integers(1, max(factors, 2), size=count) if self.k == -1 else np.full(count, self.k)
        order = rng.permuted(np.broadcast_to(np.arange(factors), (count, factors)), axis=1)
        for visited in range(factors):
            along, allowed, present = self._alternatives(second, order[:, visited])
            rows = np.arange(count)
            allowed[rows, present] = False
            chosen = np.where(allowed, rng.random(allowed.shape, dtype=np.float32), -1).argmax(axis=1)
            changes = (left > 0) & allowed[rows, chosen]
            second = np.where(changes, along[rows, chosen], second)
            left -= changes
        return np.stack([first, second], axis=1)


@dataclass(frozen=True)
class LaplaceSteps(_Sampler):
    """SlowVAE's and PCL's pairs: sparse steps, most factors hardly move and some move far.

    Factor by factor in the order of the grid, each value is drawn from a Laplace distribution centred on the first image's, of scale
    ln(size) / rate, over the values that train has given the label so far. Categorical factors never change. (Klindt et al., 2021,
    held to the train split.)

    Args:
        split: whose train side is drawn from.
        rate: the larger, the shorter the steps.
        unchanged: whether a pair may be twice the same image. Else a step without any change is drawn again, as Klindt et al. do,
            up to `TRIES` times: an image may have no neighbour in train.

    Raises:
        ValueError: for a rate that is not above 0, or an empty train side.
    """

    rate: float = 1.0
    unchanged: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate > 0:
            raise InputError(f"rate must be above 0, not {self.rate}")

    def sample(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(count, 2) int64 indices into the grid, all in train."""
        first = self._first(count, rng)
        second = self._steps(first, rng)
        for _ in range(0 if self.unchanged else TRIES):
            again = np.flatnonzero(second == first)
            if not len(again):
                break
            second[again] = self._steps(first[again], rng)
        return np.stack([first, second], axis=1)

    def _steps(self, first: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """The image (n,) that each steps to."""
        second = first.copy()
        for axis, factor in enumerate(self.split.grid):
            if factor.kind == "categorical" or factor.size == 1:
                continue
            along, allowed, present = self._alternatives(second, np.full(len(first), axis))
            distance = np.abs(np.arange(factor.size) - present[:, None])  # not yet moved along this factor: its first value
            heights = np.where(allowed, np.exp(-distance * self.rate / np.log(factor.size)), 0.0).cumsum(axis=1)
            chosen = (heights <= rng.random((len(first), 1)) * heights[:, -1:]).sum(axis=1)
            second = along[np.arange(len(first)), chosen]
        return second
