"""What predictors score that see no image but the right answer: the lines that tell what a number means.

- train_mean: the mean over train, for every sample.
- ood_to_mean: perfect where train has the value, the mean over train where train does not have it.
- clip: perfect, but answers only values that train has: the nearest one.

Each answers a factor by its true value alone, so that its scores follow from how often each value is train and test, in closed form.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from harness.scoring.r2 import grid_variance, per_factor
from harness.scoring.records import Baseline, BaselineName, DistanceError, PerFactor
from splits import Split

BASELINES: tuple[BaselineName, ...] = get_args(BaselineName)
EXPLAINED = (
    "In parentheses, predictors that see no image: (train-mean), a constant; (ood-to-mean) and (clip), the truth where train has the value, "
    "else the mean, or the nearest value, of train. excl. cat.: the mean without categorical factors."
)


def label(name: BaselineName) -> str:
    """The baseline's name in tables and pictures: (train-mean)."""
    return f"({name.replace('_', '-')})"


def baselines(split: Split) -> dict[BaselineName, Baseline]:
    """What each baseline scores over the whole test side, and train side; its `by_distance` is empty for random and composition."""
    variance = grid_variance(split.grid)
    errors: dict[BaselineName, list[float]] = {name: [] for name in BASELINES}
    on_train: dict[BaselineName, list[float]] = {name: [] for name in BASELINES}
    by_distance: dict[BaselineName, list[DistanceError]] = {name: [] for name in BASELINES}
    for axis, factor in enumerate(split.grid):
        train, test = value_counts(split, axis)
        truth = np.arange(factor.size) / max(factor.size - 1, 1)
        for name, answers in predictions(truth, train).items():
            squares = (answers - truth) ** 2 * test
            errors[name].append(squares.sum() / test.sum())
            on_train[name].append(((answers - truth) ** 2 * train).sum() / train.sum())
            if split.test_if == "any":
                steps = split.steps(factor.name)
                sums, numbers = np.bincount(steps, squares), np.bincount(steps, test)
                by_distance[name] += [
                    DistanceError(steps=step, factor=factor.name, mse=float(sums[step] / n), n=int(n))
                    for step, n in enumerate(numbers)
                    if n
                ]

    def r2(mean_squares: list[float]) -> PerFactor:
        return per_factor(split.grid, 1 - np.array(mean_squares) / variance)

    return {
        name: Baseline(**dict(r2(errors[name])), by_distance=tuple(by_distance[name]), train=r2(on_train[name]))
        for name in BASELINES
    }


def predictions(truth: NDArray[np.float64], train: NDArray[np.int64]) -> dict[BaselineName, NDArray[np.float64]]:
    """What each baseline answers for each value of a factor: `truth` (n,), its targets, and `train` (n,), how often train has it."""
    seen = train > 0
    mean = np.full_like(truth, (truth * train).sum() / train.sum())
    above = np.searchsorted(truth[seen], truth).clip(max=seen.sum() - 1)
    high, low = truth[seen][above], truth[seen][(above - 1).clip(min=0)]
    clip = np.where(np.abs(truth - low) <= np.abs(truth - high), low, high)  # of two as near, the lower
    return {"train_mean": mean, "ood_to_mean": np.where(seen, truth, mean), "clip": clip}


def value_counts(split: Split, axis: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n,) int64 each: how many train and how many test samples have each value of the factor `axis`."""
    others = tuple(other for other in range(len(split.grid.sizes)) if other != axis)
    test: NDArray[np.int64] = split.mask.reshape(split.grid.sizes).sum(axis=others, dtype=np.int64)
    return len(split.grid) // split.grid.sizes[axis] - test, test
