"""Our splits against the label files that the benchmark repository (bethgelab/InDomainGeneralizationBenchmark) publishes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splits.arrays import BadFile, zip_rows
from splits.errors import InputError, how_many
from splits.formatting import Report, named, sample
from splits.split import Split
from splits.vocabulary import PUBLISHED_NAMES

_SHOWN = 3


def labels_file(split: Split, side: str) -> str:
    """`mpi3d_composition_train_labels.npz`: one array `arr_0`, (n, F) factor indices, for side "train" or "test"."""
    return f"{PUBLISHED_NAMES.get(split.dataset, split.dataset)}_{split.kind}_{side}_labels.npz"


def published_files(split: Split) -> list[str]:
    """The four files of a split: the images and the labels of train, then of test."""
    labels = [labels_file(split, side) for side in ("train", "test")]
    return [name for label in labels for name in (label.replace("_labels.npz", "_images.npz"), label)]


def compare(split: Split, folder: str | Path) -> Report:
    """Whether the published train and test labels in `folder` are those of `split`, in whatever order their rows are.

    Not ok where they differ, with the first differences by factor, or where a file is missing or isn't such a file.
    """
    paths = {side: Path(folder) / labels_file(split, side) for side in ("train", "test")}
    differences: list[str] = []
    for side, ours in (("train", split.train), ("test", split.test)):
        differences += [f"{paths[side].name}: {line}" for line in _differences(split, paths[side], ours)]
    there = any(path.is_file() for path in paths.values())
    verdict = ("differs from" if there else "not compared with") if differences else "equal to"
    verdict = f"{verdict} the published labels in {folder}"
    lines = (f"{split.dataset}, {split.kind}: {verdict}", *(f"  {line}" for line in differences))
    return Report(lines, {"equal": not differences, "differences": differences}, not differences)


def _differences(split: Split, path: Path, ours: NDArray[np.int64]) -> list[str]:
    if not path.is_file():
        return ["is missing"]
    try:
        with zip_rows(path, "arr_0") as rows:
            if rows.shape[1:] != (len(split.grid.sizes),) or rows.dtype.kind not in "iuf":
                split.grid.index(np.broadcast_to(np.zeros((), rows.dtype), rows.shape))  # says what is wrong, and takes no memory
            if rows.shape[0] > len(split.grid):
                return [f"{rows.shape[0]:,} rows, and {len(ours):,} are expected: more than the grid has samples"]
            labels = rows.whole()
    except BadFile as error:
        return [f"is not an npz file with an array arr_0: {error}"]
    except (InputError, OSError) as error:
        return [str(error)]
    if labels.dtype.kind == "f" and (labels == np.round(labels)).all():
        labels = labels.astype(np.int64)
    try:
        theirs = np.sort(split.grid.index(labels))
    except ValueError as error:
        return [str(error)]
    if np.array_equal(ours, theirs):
        return []

    lines = [f"{len(theirs):,} rows, and {len(ours):,} are expected"] if len(theirs) != len(ours) else []
    unique, repeats = np.unique(theirs, return_counts=True)
    if len(unique) < len(theirs):
        lines.append(
            f"repeats: {how_many(len(theirs) - len(unique), 'row')}, first {sample(split.grid, int(unique[repeats.argmax()]))}"
        )
    missing, extra = np.setdiff1d(ours, unique, assume_unique=True), np.setdiff1d(unique, ours, assume_unique=True)
    lines += _by_factor(split, ours, unique)
    for indices, what in ((missing, "missing"), (extra, "not of this split")):
        if len(indices):
            shown = "; ".join(sample(split.grid, int(index)) for index in indices[:_SHOWN])
            lines.append(f"{what}: {how_many(len(indices), 'sample')}, first {shown}")
    return lines


def _by_factor(split: Split, ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> list[str]:
    """The values of each factor that only one of the two has."""
    lines = []
    our_factors, their_factors = split.grid.factors(ours), split.grid.factors(theirs)
    for axis, factor in enumerate(split.grid):
        our_values, their_values = np.unique(our_factors[:, axis]), np.unique(their_factors[:, axis])
        for only, what in (
            (np.setdiff1d(our_values, their_values), "never has"),
            (np.setdiff1d(their_values, our_values), "should not have"),
        ):
            if len(only):
                lines.append(f"{factor.name}: {what} {named(factor, only.tolist())}")
    return lines
