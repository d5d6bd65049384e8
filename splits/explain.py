"""A proof by enumeration: every sample is looked at, and its side worked out from its factor values alone.

The grid goes by in blocks: 10⁸ samples take their mask and their distances, three bytes each, and not their factors, 8 bytes per factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from splits.errors import how_many
from splits.formatting import Report, named, sample, table
from splits.split import Counts, Split

BLOCK = 2**17  # samples at a time: what fits into a cache is done in half the time


def explain(split: Split) -> Report:
    """Enumerate the grid and show what the split does; not ok, with a counterexample, where it breaks what its kind promises.

    The promises: train and test are disjoint and complete, and as many as the closed form says; the mask agrees with the rule, sample by
    sample; composition shows every value of every factor in train; interpolation and extrapolation show no held-out value in train, and
    those of ordinal factors lie between, respectively beyond, the values that train has.

    Raises:
        ValueError: for a grid that is too large to enumerate (`splits.split.MOST_SAMPLES`).
    """
    grid, steps = split.grid, steps_to_train(split)
    farthest = int(steps.argmax())
    found = _enumerate(split, steps)
    counted = Counts(len(split.mask) - int(found.by_steps.sum()), int(found.by_steps.sum()))
    partition = len(split.mask) == len(grid) and counted == split.counts
    if not partition:
        counterexample: str | None = f"train and test have {counted.train:,} + {counted.test:,} samples, not {split.counts}"
    elif found.first_wrong is not None:
        counterexample = f"{sample(grid, found.first_wrong)} is on the other side than the rule says"
    else:
        counterexample = _broken_promise(split, found.seen)

    rows, cells = _distances(found.by_steps)
    lines = [
        f"enumerated {len(grid):,} samples: train and test are {'disjoint and complete' if partition else 'not a partition'}",
        "values seen in train:",
        *table(
            (factor.name, f"{len(seen)} of {factor.size}", named(factor, seen))
            for factor, seen in zip(grid, found.seen, strict=True)
        ),
        "test samples by how many of their factors are held out, with the index steps to the nearest train sample:",
        *table(rows),
        f"farthest from train, {how_many(int(steps[farthest]), 'step')}: {sample(grid, farthest)}",
        f"counterexample: {counterexample}" if counterexample else f"every promise of {split.kind} holds",
    ]
    data: dict[str, Any] = {
        "disjoint": partition,
        "complete": partition,
        "seen_in_train": dict(zip(grid.names, found.seen, strict=True)),
        "test_samples": cells,
        "counterexample": counterexample,
    }
    return Report(tuple(lines), data, counterexample is None)


class _Enumeration(NamedTuple):
    """What looking at every sample found.

    Attributes:
        seen: of each factor, the values that train has.
        by_steps: (steps, held out) test samples by their distance to train and by how many of their factors are held out.
        first_wrong: the first sample whose side is not the rule's; None if all are, or if the rule is random.
    """

    seen: list[list[int]]
    by_steps: NDArray[np.int64]
    first_wrong: int | None


def _enumerate(split: Split, steps: NDArray[np.unsignedinteger[Any]]) -> _Enumeration:
    """Look at every sample; `steps` are those of `steps_to_train`."""
    grid, mask = split.grid, split.mask
    in_train = [np.zeros(size, dtype=np.bool_) for size in grid.sizes]
    width = len(grid.sizes) + 1  # as many factors can be held out, or none
    groups = np.zeros((int(steps.max()) + 1) * width, dtype=np.int64)  # test samples by steps, then by held-out count
    first_wrong = None
    for start, factors in _blocks(split):
        here = slice(start, start + len(factors))
        is_test, held_out_count = mask[here], _held_out_count(split, factors)
        for seen, column in zip(in_train, factors[~is_test].T, strict=True):
            seen[column] = True
        found = np.bincount(steps[here][is_test] * np.int64(width) + held_out_count[is_test])
        groups[: len(found)] += found
        if first_wrong is None and split.test_if is not None:
            disagree = (held_out_count >= (1 if split.test_if == "any" else len(split.held_out))) != is_test
            first_wrong = start + int(disagree.argmax()) if disagree.any() else None
    return _Enumeration([np.flatnonzero(seen).tolist() for seen in in_train], groups.reshape(-1, width), first_wrong)


def _distances(by_steps: NDArray[np.int64]) -> tuple[list[tuple[str, ...]], list[dict[str, int]]]:
    """The rows of a table, and the cells as data, of test samples by how many of their factors are held out."""
    rows: list[tuple[str, ...]] = [("held out", "test samples", "nearest", "mean", "farthest")]
    cells = []
    for count, numbers in enumerate(by_steps.T):
        distances = np.flatnonzero(numbers)
        if len(distances):
            total = int(numbers.sum())
            mean = float(distances @ numbers[distances]) / total
            rows.append((str(count), f"{total:,}", str(distances[0]), f"{mean:.2f}", str(distances[-1])))
        cells += [{"held_out_count": count, "steps_to_train": int(d), "samples": int(numbers[d])} for d in distances]
    return rows, cells


def steps_to_train(split: Split) -> NDArray[np.unsignedinteger[Any]]:
    """(N,) whole numbers: the least sum of index steps over all factors from each sample to one in train; 0 in train.

    A distance transform: under this metric, a pass forth and back along each axis in turn is exact.
    """
    sizes = split.grid.sizes
    too_far = sum(sizes)
    dtype = np.uint16 if too_far < 2**16 else np.uint32
    steps: NDArray[np.unsignedinteger[Any]] = split.mask.astype(dtype)
    steps *= dtype(too_far)
    for axis, size in enumerate(sizes):
        position = np.arange(size, dtype=np.int32)[:, None]
        for lines in _lines(steps.reshape(-1, size, math.prod(sizes[axis + 1 :]))):
            signed = lines.astype(np.int32)  # twice MOST_SAMPLES fits
            forth = np.minimum.accumulate(signed - position, axis=1) + position
            back = np.flip(np.minimum.accumulate(np.flip(signed + position, 1), axis=1), 1) - position
            lines[...] = np.minimum(forth, back)
    return steps


def _lines(whole: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Views (a, size, b) that together are `whole` (A, size, B), each of about `BLOCK` elements, or one line."""
    outer, size, inner = whole.shape
    b = min(inner, max(1, BLOCK // size))
    a = max(1, BLOCK // (size * b))
    for i in range(0, outer, a):
        for j in range(0, inner, b):
            yield whole[i : i + a, :, j : j + b]


def _blocks(split: Split) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The start of each block of the grid, and the factors (n, F) of its samples."""
    for start in range(0, len(split.grid), BLOCK):
        yield start, split.grid.factors(np.arange(start, min(start + BLOCK, len(split.grid))))


def _held_out_count(split: Split, factors: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,): how many factors have a listed value, row by row, without the split's own arithmetic on axes."""
    count = np.zeros(len(factors), dtype=np.int64)
    for name, indices in split.held_out.items():
        axis = split.grid.axis(name)
        listed = np.isin(np.arange(split.grid.sizes[axis]), indices)
        count += listed[factors[:, axis]]
    return count


def _broken_promise(split: Split, values: Sequence[list[int]]) -> str | None:
    """The first sample that breaks a promise of its kind, with the promise; None if all hold. `values`: those that train has, by factor."""
    grid = split.grid
    for axis, factor in enumerate(grid):
        seen = set(values[axis])
        for value in split.held_out.get(factor.name, ()):
            first = value * math.prod(grid.sizes[axis + 1 :])  # of the samples with this value
            what = f"{factor.name}={factor.label(value)}"
            if split.kind == "composition":
                if value not in seen:
                    return f"{sample(grid, first)}: train never has {what}, and composition shows every value"
                continue
            if value in seen:
                return f"{sample(grid, _first_in_train(split, axis, value))} is train, though {split.kind} holds out {what}"
            between = values[axis][0] < value < values[axis][-1]
            if factor.kind == "ordinal" and between != (split.kind == "interpolation"):
                where = "between" if between else "beyond"
                return f"{sample(grid, first)}: {what} lies {where} the values of train, which is not {split.kind}"
    return None


def _first_in_train(split: Split, axis: int, value: int) -> int:
    """The first sample of train with this value, of which there is one."""
    return next(
        start + int(found.argmax())
        for start, factors in _blocks(split)
        if (found := (factors[:, axis] == value) & ~split.mask[start : start + len(factors)]).any()
    )
