"""What splits cost: index arrays against building them from rows of factor labels, and the command's wall time.

Prints seconds and ratios; run it as `python benchmarks/splitting.py` on an otherwise idle machine.
"""

from __future__ import annotations

import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # and not this folder, whose splits.py would hide the package

import numpy as np  # noqa: E402

import splits  # noqa: E402

GOAL_RATIO, GOAL_SECONDS = 20, 0.35
REPEATS = 11


def median_seconds(function: Callable[[], object], repeats: int = REPEATS) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def ours(spec: splits.SplitSpec, kind: str) -> tuple[np.ndarray, np.ndarray]:
    split = spec.split(kind)  # a new one each time, which remembers no mask
    return split.train, split.test


def from_label_table(split: splits.Split) -> tuple[np.ndarray, np.ndarray]:
    """The (N, F) table of labels in numpy, and the rule on its columns."""
    labels = np.array(np.meshgrid(*map(np.arange, split.grid.sizes), indexing="ij")).reshape(len(split.grid.sizes), -1).T
    held = np.stack([np.isin(labels[:, split.grid.axis(name)], values) for name, values in split.held_out.items()])
    mask = held.any(axis=0) if split.test_if == "any" else held.all(axis=0)
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def from_label_rows(split: splits.Split) -> tuple[np.ndarray, np.ndarray]:
    """A row of labels at a time, as one writes the rule down."""
    combine = any if split.test_if == "any" else all
    held_out = [(split.grid.axis(name), set(values)) for name, values in split.held_out.items()]
    sides: tuple[list[int], list[int]] = ([], [])
    for index, row in enumerate(itertools.product(*map(range, split.grid.sizes))):
        sides[combine(row[axis] in values for axis, values in held_out)].append(index)
    return np.array(sides[0]), np.array(sides[1])


def command_seconds() -> list[tuple[float, float]]:
    """(wall, processor) seconds of `ood-data split mpi3d --kind composition`, each time in a process of its own."""
    command = [sys.executable, str(ROOT / "cli.py"), "split", "mpi3d", "--kind", "composition"]
    measured = []
    for _ in range(REPEATS):
        before, start = os.times(), time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall, after = time.perf_counter() - start, os.times()
        used = after.children_user - before.children_user + after.children_system - before.children_system
        measured.append((wall, used))
    return measured[1:]  # the first one reads the files into memory


def main() -> None:
    spec = splits.load_spec("mpi3d")
    for kind in ("composition", "extrapolation"):
        split = spec.split(kind)
        for one, other in zip(ours(spec, kind), from_label_rows(split), strict=True):
            assert np.array_equal(one, other)
        for one, other in zip(ours(spec, kind), from_label_table(split), strict=True):
            assert np.array_equal(one, other)
        fast = median_seconds(lambda kind=kind: ours(spec, kind))
        rows = median_seconds(lambda split=split: from_label_rows(split), repeats=3)
        table = median_seconds(lambda split=split: from_label_table(split), repeats=5)
        print(f"mpi3d {kind}, train and test indices: {fast * 1e3:.2f} ms")
        print(f"  row by row: {rows * 1e3:.0f} ms, {rows / fast:.0f} x (goal {GOAL_RATIO} x)")
        print(f"  from a numpy table of labels: {table * 1e3:.0f} ms, {table / fast:.0f} x")
    walls, used = zip(*command_seconds(), strict=True)
    print(
        f"ood-data split mpi3d --kind composition: median {statistics.median(walls):.3f} s wall, best {min(walls):.3f} s, "
        f"{statistics.median(used):.3f} s processor (goal < {GOAL_SECONDS} s)"
    )


if __name__ == "__main__":
    main()
