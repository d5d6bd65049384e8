"""A dataset as researchers use it: images, targets, splits, and the ways to feed them to training."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray

from harness.data.store import Store
from splits import Split, SplitSpec, spec_from_dict
from splits.errors import InputError

if TYPE_CHECKING:
    from harness.data.batches import Batches, IndexedImages


def spec_of(store: Store) -> SplitSpec:
    """The grid and the splits of a store.

    Raises:
        ValueError: if they are not valid, or of another number of images than the store has.
    """
    spec = spec_from_dict(store.spec)
    if math.prod(spec.grid.sizes) != len(store):
        sizes = " x ".join(map(str, spec.grid.sizes[:10]))
        raise InputError(
            f"{store.paths.group} has {len(store):,} images, and its grid {math.prod(spec.grid.sizes):,} cells ({sizes})"
        )
    return spec


class Dataset:
    """Open one with `harness.open`.

    Attributes:
        name: of the dataset.
        store: where its images are.
        spec: its grid and its splits.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        self.store = Store(root, name)
        self.name = name
        self.spec: SplitSpec = spec_of(self.store)

    def __len__(self) -> int:
        return len(self.store)

    @property
    def images(self) -> zarr.Array[Any]:
        """(N, R, R, C) uint8, in the row-major order of the grid; slices are read from disk, and are what the manifest says or an error."""
        return self.store.images

    @cached_property
    def targets(self) -> NDArray[np.float32]:
        """(N, F) float32 in [0, 1]: each factor's index / (size − 1)."""
        targets = self.spec.grid.targets(np.arange(len(self))).astype(np.float32)
        targets.setflags(write=False)
        return targets

    def split(self, kind: str) -> Split:
        """The split of that kind; ValueError if the dataset has none."""
        return self.spec.split(kind)

    def batches(self, indices: ArrayLike, batch_size: int = 64, **options: Any) -> Batches:
        """Whole batches of the images at `indices`, as fast as the machine allows: see `harness.data.batches.Batches`."""
        from harness.data.batches import Batches  # torch

        return Batches(self.store, self.targets, indices, batch_size, **options)

    def torch_dataset(self, indices: ArrayLike) -> IndexedImages:
        """A map-style torch `Dataset` of the images at `indices`, for a DataLoader: see `harness.data.batches.IndexedImages`."""
        from harness.data.batches import IndexedImages  # torch

        return IndexedImages(self.store, self.targets, indices)
