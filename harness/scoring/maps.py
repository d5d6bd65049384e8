"""Where on the grid a model errs: sums that stream over what is scored, and the answers themselves on a few cells that are always the same.

A map has, for every value of a factor and for every pair of values of two, how many samples were scored there, and of each factor's
answer the root mean square error and the mean error, answer − truth. Means and not sums, as those would leave float16's range.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splits import FactorGrid, Split

MOST_KEPT = 4096  # cells whose answers are kept
MOST_NUMBERS = 2**20  # of one side's maps; of a grid that has more, those of the largest pairs are left out
BUFFERED = 4096  # samples that are summed at once: a sum has a fixed cost for each cell
LARGEST = 65504.0  # of float16

Group = tuple[int, ...]  # the axes that a map is over: one or two


@dataclass(frozen=True)
class SideMaps:
    """The maps of one side of a split, one behind the other in the order of `groups_of`.

    Attributes:
        n: (cells,) uint32, how many samples were scored there.
        rms: (cells, F) float16, the root mean square error of each factor's answer, 0 where there are no samples.
        bias: (cells, F) float16, the mean of answer − truth.
    """

    n: NDArray[np.uint32]
    rms: NDArray[np.float16]
    bias: NDArray[np.float16]


def groups_of(grid: FactorGrid) -> tuple[Group, ...]:
    """What maps are over: each factor, then pairs of them, small ones first, as far as `MOST_NUMBERS` go."""
    sizes = grid.sizes
    pairs = sorted(itertools.combinations(range(len(sizes)), 2), key=lambda pair: (sizes[pair[0]] * sizes[pair[1]], pair))
    groups: list[Group] = []
    room = MOST_NUMBERS // (1 + 2 * len(sizes))
    for group in [*((axis,) for axis in range(len(sizes))), *pairs]:
        room -= cells_of(grid, group)
        if room < 0:
            break
        groups.append(group)
    return tuple(groups)


def cells_of(grid: FactorGrid, group: Group) -> int:
    """How many cells the map over some axes has."""
    return math.prod(grid.sizes[axis] for axis in group)


class ErrorMaps:
    """Collects the maps of a side from predictions that come in batches; of these, at most `BUFFERED` are held.

    Args:
        grid: of the samples.
    """

    def __init__(self, grid: FactorGrid) -> None:
        self.grid, self.groups = grid, groups_of(grid)
        numbers = [cells_of(grid, group) for group in self.groups]
        self._first = np.cumsum([0, *numbers])
        cells, factors = int(self._first[-1]), len(grid.sizes)
        self.n = np.zeros(cells, dtype=np.int64)
        self.squares, self.signed = np.zeros((factors, cells)), np.zeros((factors, cells))
        self._waiting: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
        self._held = 0

    def update(self, indices: NDArray[np.int64], predictions: NDArray[np.float64]) -> None:
        """Take in the predictions (B, F) of the samples `indices` (B,)."""
        self._waiting.append((indices, predictions))
        self._held += len(indices)
        if self._held >= BUFFERED:
            self._add_up()

    def finished(self) -> SideMaps:
        """The maps of all samples so far."""
        self._add_up()
        n = np.maximum(self.n, 1)
        rms, bias = np.sqrt(self.squares / n), self.signed / n
        return SideMaps(self.n.astype(np.uint32), half(rms.T), half(bias.T))

    def _add_up(self) -> None:
        if not self._waiting:
            return
        indices, predictions = (np.concatenate(parts) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._held = [], 0
        values = self.grid.factors(indices)
        errors = predictions - self.grid.targets(indices)
        for group, first, last in zip(self.groups, self._first, self._first[1:], strict=False):
            places = np.ravel_multi_index(tuple(values[:, axis] for axis in group), [self.grid.sizes[axis] for axis in group])
            self.n[first:last] += np.bincount(places, minlength=last - first)
            for axis, error in enumerate(errors.T):
                self.squares[axis, first:last] += np.bincount(places, error**2, last - first)
                self.signed[axis, first:last] += np.bincount(places, error, last - first)


def half(numbers: NDArray[np.float64]) -> NDArray[np.float16]:
    """As float16; what is beyond its range, as its largest."""
    return np.ascontiguousarray(numbers.clip(-LARGEST, LARGEST).astype(np.float16))


def kept_values(split: Split) -> tuple[tuple[int, ...], ...]:
    """The values of each factor, ascending, whose every combination is a cell that a model's answer is kept of.

    A function of the split alone, so that models can be compared there. At most `MOST_KEPT` cells; a factor that holds values out has a
    held-out value and the seen one beside it, both ends, and values as far from each other as can be, as many as its share allows.
    """
    sizes = split.grid.sizes
    counts = [1] * len(sizes)
    growing = sorted(range(len(sizes)), key=lambda axis: split.grid.names[axis] not in split.held_out)
    while growing := [axis for axis in growing if counts[axis] < sizes[axis] and _grown(counts, axis) <= MOST_KEPT]:
        counts[min(growing, key=counts.__getitem__)] += 1
    return tuple(
        tuple(sorted(_spread(size, split.held_out.get(name, ()), count)))
        for name, size, count in zip(split.grid.names, sizes, counts, strict=True)
    )


def kept_cells(grid: FactorGrid, values: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """(K,) the numbers of all combinations of the kept values, ascending."""
    return np.asarray(np.ravel_multi_index(np.ix_(*values), grid.sizes), dtype=np.int64).reshape(-1)


def _grown(counts: Sequence[int], axis: int) -> int:
    return math.prod(counts) // counts[axis] * (counts[axis] + 1)


def _spread(size: int, held_out: Sequence[int], count: int) -> list[int]:
    """`count` values: those beside the first border of train, the ends, then each as far from the others as can be."""
    out = set(held_out)
    border = next((value for value in range(1, size) if (value in out) != (value - 1 in out)), 0)
    found = list(dict.fromkeys([border - 1, border, 0, size - 1] if border else [0, size - 1]))[:count]
    distance = np.abs(np.arange(size)[:, None] - found).min(axis=1)
    while len(found) < count:
        found.append(int(distance.argmax()))
        distance = np.minimum(distance, np.abs(np.arange(size) - found[-1]))
    return found
