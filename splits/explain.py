"""A proof by enumeration: every sample is looked at, and its side worked out from its factor values alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splits.formatting import Report, named, sample, table
from splits.split import Split


def explain(split: Split) -> Report:
    """Enumerate the grid and show what the split does; not ok, with a counterexample, where it breaks what its kind promises.

    The promises: train and test are disjoint and complete; the mask agrees with the rule, sample by sample; composition shows
    every value of every factor in train; interpolation and extrapolation show no held-out value in train, and those of ordinal
    factors lie between, respectively beyond, the values that train has.
    """
    grid = split.grid
    factors = grid.factors(np.arange(len(grid)))
    train, test = split.train, split.test
    sides = np.bincount(train, minlength=len(grid)) + np.bincount(test, minlength=len(grid))
    held_out_count = _held_out_count(split, factors)
    seen = {
        factor.name: np.flatnonzero(np.bincount(factors[train, axis], minlength=factor.size)).tolist()
        for axis, factor in enumerate(grid)
    }
    steps = steps_to_train(split)
    counterexample = _counterexample(split, factors, sides, held_out_count, seen)

    rows = [("held out", "test samples", "nearest", "mean", "farthest")]
    cells = []
    for count in np.unique(held_out_count[test]):
        group = steps[test][held_out_count[test] == count]
        rows.append((str(count), f"{len(group):,}", str(group.min()), f"{group.mean():.2f}", str(group.max())))
        for distance, samples in zip(*np.unique(group, return_counts=True), strict=True):
            cells.append({"held_out_count": int(count), "steps_to_train": int(distance), "samples": int(samples)})
    farthest = int(steps.argmax())
    partition = bool((sides == 1).all())
    lines = [
        f"enumerated {len(grid):,} samples: train and test are {'disjoint and complete' if partition else 'not a partition'}",
        "values seen in train:",
        *table((factor.name, f"{len(seen[factor.name])} of {factor.size}", named(factor, seen[factor.name])) for factor in grid),
        "test samples by how many of their factors are held out, with the index steps to the nearest train sample:",
        *table(rows),
        f"farthest from train, {steps[farthest]} steps: {sample(grid, farthest)}",
        f"counterexample: {counterexample}" if counterexample else f"every promise of {split.kind} holds",
    ]
    data: dict[str, Any] = {
        "disjoint": bool((sides <= 1).all()),
        "complete": bool((sides >= 1).all()),
        "seen_in_train": seen,
        "test_samples": cells,
        "counterexample": counterexample,
    }
    return Report(tuple(lines), data, counterexample is None)


def steps_to_train(split: Split) -> NDArray[np.int32]:
    """(N,) int32: the least sum of index steps over all factors from each sample to one in train; 0 in train.

    A distance transform: under this metric, a pass forth and back along each axis in turn is exact.
    """
    sizes = split.grid.sizes
    steps = np.where(split.mask, np.int32(sum(sizes)), np.int32(0)).reshape(sizes)
    for axis, size in enumerate(sizes):
        position = np.arange(size, dtype=np.int32).reshape([-1 if other == axis else 1 for other in range(len(sizes))])
        forth = np.minimum.accumulate(steps - position, axis=axis) + position
        back = np.flip(np.minimum.accumulate(np.flip(steps + position, axis), axis=axis), axis) - position
        steps = np.minimum(forth, back)
    return steps.ravel()


def _held_out_count(split: Split, factors: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,): how many factors have a listed value, row by row, without the split's own arithmetic on axes."""
    count = np.zeros(len(factors), dtype=np.int64)
    for name, indices in split.held_out.items():
        count += np.isin(factors[:, split.grid.axis(name)], indices)
    return count


def _counterexample(
    split: Split,
    factors: NDArray[np.int64],
    sides: NDArray[np.int64],
    held_out_count: NDArray[np.int64],
    seen: Mapping[str, list[int]],
) -> str | None:
    """The first sample that breaks a promise, with the promise; None if all hold."""
    grid = split.grid
    if (sides != 1).any():
        return f"{sample(grid, int((sides != 1).argmax()))} is not in one of train and test"
    if split.test_if is None:
        wrong = len(split.test) != split.counts.test
        return f"test has {len(split.test)} samples, and not {split.counts.test}" if wrong else None
    needed = 1 if split.test_if == "any" else len(split.held_out)
    disagree = (held_out_count >= needed) != split.mask
    if disagree.any():
        return f"{sample(grid, int(disagree.argmax()))} is on the other side than the rule says"

    for axis, factor in enumerate(grid):
        for value in split.held_out.get(factor.name, ()):
            with_value = factors[:, axis] == value
            what = f"{factor.name}={factor.label(value)}"
            if split.kind == "composition":
                if value not in seen[factor.name]:
                    return f"{sample(grid, int(with_value.argmax()))}: train never has {what}, and composition shows every value"
                continue
            if value in seen[factor.name]:
                first = int((with_value & ~split.mask).argmax())
                return f"{sample(grid, first)} is train, though {split.kind} holds out {what}"
            between = min(seen[factor.name]) < value < max(seen[factor.name])
            if factor.kind == "ordinal" and between != (split.kind == "interpolation"):
                where = "between" if between else "beyond"
                return (
                    f"{sample(grid, int(with_value.argmax()))}: {what} lies {where} the values of train, which is not {split.kind}"
                )
    return None
