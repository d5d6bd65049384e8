"""Datasets in, scores out.

data = harness.open("mpi3d", "data/")
split = data.split("composition")
for images, targets in data.batches(split.train, batch_size=256):   # (B, C, R, R) float32 in [0, 1], (B, F) float32
    ...
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.data.dataset import Dataset
    from harness.runs.networks import load
    from harness.scoring.scores import score

__all__ = ["load", "open", "score"]


def __getattr__(name: str) -> Any:
    if name == "score":
        from harness.scoring.scores import score  # torch

        return score
    if name == "load":
        from harness.runs.networks import load  # torch

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def open(name: str | Path, root: str | Path = "data/") -> Dataset:
    """The dataset of that name among the stores in `root`; or of a store's own path, `data/celebglow.zarr`.

    Raises:
        FileNotFoundError: if there is no such store, or it is unfinished.
        ValueError: if what is there is not a store.
    """
    from harness.data.dataset import Dataset  # pydantic and zarr

    if (path := Path(name)).suffix == ".zarr":
        return Dataset(path.parent, path.stem)
    return Dataset(root, str(name))
