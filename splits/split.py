"""A split of a grid: which samples are train and which are test, in closed form until someone asks for indices."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splits.errors import InputError, did_you_mean
from splits.grid import FactorGrid
from splits.rules import HeldOutRule, Rule, TestIf, random_mask
from splits.vocabulary import Kind

MOST_SAMPLES = 10**9  # of a grid that is enumerated: a byte each for the mask, eight for indices


class Counts(NamedTuple):
    """How many samples are train and how many are test."""

    train: int
    test: int


@dataclass(frozen=True)
class Split:
    """Train and test of one kind over a grid of N samples. Holds no array until one is asked for.

    >>> import splits
    >>> split = splits.load("mpi3d", "extrapolation")
    >>> split.held_out["x-axis"]
    (36, 37, 38, 39)
    >>> split.steps("x-axis")[-5:]  # index steps from train
    array([0, 1, 2, 3, 4])
    >>> len(split.only("x-axis"))  # test samples where only the x-axis is held out
    34560

    Attributes:
        dataset: the name of the spec that it is from.
        kind: random, composition, interpolation or extrapolation.
        grid: the factors of variation.
        rule: the declarative rule that it follows.
    """

    dataset: str
    kind: Kind
    grid: FactorGrid
    rule: Rule

    @property
    def test_if(self) -> TestIf | None:
        """Whether "any" or "all" of the factors must be held out for a sample to be test; None for a random split."""
        return self.rule.test_if if isinstance(self.rule, HeldOutRule) else None

    @property
    def held_out(self) -> Mapping[str, tuple[int, ...]]:
        """The held-out values of each factor that takes part, as indices; empty for a random split."""
        return self.rule.held_out if isinstance(self.rule, HeldOutRule) else {}

    @functools.cached_property
    def counts(self) -> Counts:
        """(train, test) in closed form: the grid is not enumerated."""
        total = len(self.grid)
        if not isinstance(self.rule, HeldOutRule):
            return Counts(total - self.rule.test_count, self.rule.test_count)
        if self.rule.test_if == "any":
            train = math.prod(size - len(self.held_out.get(name, ())) for name, size in self._named_sizes())
            return Counts(train, total - train)
        test = math.prod(len(self.held_out.get(name, range(size))) for name, size in self._named_sizes())
        return Counts(total - test, test)

    @property
    def test_ratio(self) -> float:
        return self.counts.test / len(self.grid)

    @functools.cached_property
    def mask(self) -> NDArray[np.bool_]:
        """(N,) bool, read-only, True is test.

        Raises:
            ValueError: for more than `MOST_SAMPLES` samples; so do all that enumerate the grid.
        """
        self._require_enumerable()
        if not isinstance(self.rule, HeldOutRule):
            mask = random_mask(len(self.grid), self.rule.test_count, self.rule.seed)
        elif self.rule.test_if == "any":
            mask = _over_grid(np.logical_or, [self._is_held_out(name) for name in self.grid.names])
        else:
            everything = (np.ones(size, dtype=np.bool_) for size in self.grid.sizes)
            sides = zip(self.grid.names, everything, strict=True)
            mask = _over_grid(
                np.logical_and, [self._is_held_out(name) if name in self.held_out else whole for name, whole in sides]
            )
        mask.setflags(write=False)
        return mask

    def is_test(self, index: ArrayLike) -> NDArray[np.bool_]:
        """(…) bool, True is test, for samples (…) of the grid: the `mask` there, which only a random split needs for it.

        Raises:
            ValueError: for what are not whole numbers, or for a number out of range.
        """
        factors = self.grid.factors(index)
        if not isinstance(self.rule, HeldOutRule):
            drawn: NDArray[np.bool_] = self.mask[np.asarray(index)]
            return drawn
        held_out = [self._is_held_out(name)[factors[..., self.grid.axis(name)]] for name in self.held_out]
        test: NDArray[np.bool_] = (np.any if self.rule.test_if == "any" else np.all)(held_out, axis=0)
        return test

    @property
    def train(self) -> NDArray[np.int64]:
        """(counts.train,) int64, ascending, hence row-major."""
        return np.flatnonzero(~self.mask)

    @property
    def test(self) -> NDArray[np.int64]:
        """(counts.test,) int64, ascending, hence row-major."""
        return np.flatnonzero(self.mask)

    @property
    def held_out_count(self) -> NDArray[np.uint8]:
        """(N,) uint8: how many factors of each sample have a held-out value, 0 exactly for train.

        Raises:
            ValueError: unless a sample is test by any held-out factor, as in interpolation and extrapolation.
        """
        self._require_any("counts of held-out factors")
        self._require_enumerable()
        return _over_grid(np.add, [self._is_held_out(name).astype(np.uint8) for name in self.grid.names])

    def only(self, factor: str) -> NDArray[np.int64]:
        """The modularity subset of `factor`: int64 indices of the test samples where it, and only it, is held out.

        Schott et al. compare the score of `factor` on them, out of distribution, with that of the other factors, in distribution.

        Raises:
            ValueError: for an unknown factor, one without held-out values, or a kind other than interpolation and extrapolation.
        """
        self._require_any("modularity subsets")
        self._require_enumerable()
        self.grid.axis(factor)
        if factor not in self.held_out:
            raise InputError(f"{self.kind} holds out no value of {factor!r}{did_you_mean(factor, self.held_out)}")
        sides = [self._is_held_out(name) if name == factor else ~self._is_held_out(name) for name in self.grid.names]
        return np.flatnonzero(_over_grid(np.logical_and, sides))

    def steps(self, factor: str) -> NDArray[np.int64]:
        """(size,) int64: how many index steps each value of `factor` lies from the nearest one that train has; 0 if it has it.

        Raises:
            ValueError: for an unknown factor, or a kind other than interpolation and extrapolation.
        """
        self._require_any("distances of held-out values")
        values = np.arange(self.grid[factor].size)
        seen = np.flatnonzero(~self._is_held_out(factor))
        above = np.searchsorted(seen, values).clip(max=len(seen) - 1)
        nearest = seen[above], seen[(above - 1).clip(min=0)]
        steps: NDArray[np.int64] = np.minimum(*(np.abs(values - value) for value in nearest))
        return steps

    def _named_sizes(self) -> zip[tuple[str, int]]:
        return zip(self.grid.names, self.grid.sizes, strict=True)

    def _is_held_out(self, name: str) -> NDArray[np.bool_]:
        """(size,) bool, True for the held-out values of one factor."""
        vector = np.zeros(self.grid[name].size, dtype=np.bool_)
        vector[list(self.held_out.get(name, ()))] = True
        return vector

    def _require_enumerable(self) -> None:
        if math.prod(self.grid.sizes) > MOST_SAMPLES:
            raise InputError(
                f"the grid of {self.dataset} has {math.prod(self.grid.sizes):,} samples, and at most {MOST_SAMPLES:,} are enumerated: "
                "only its counts of train and test are available"
            )

    def _require_any(self, what: str) -> None:
        if self.test_if != "any":
            raise InputError(
                f"{what} exist where any held-out factor makes a sample test (interpolation, extrapolation), "
                f"not for {self.kind} of {self.dataset}"
            )


def _over_grid(combine: np.ufunc, vectors: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """(N,): a value per sample, combined from one vector per factor. Growing a factor at a time costs little more than N."""
    return functools.reduce(lambda grown, vector: combine.outer(grown, vector).ravel(), vectors)
