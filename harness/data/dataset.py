"""A dataset as researchers use it: images, targets, splits, and the ways to feed them to training."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import zarr
from numpy.typing import ArrayLike, NDArray

from harness.data.store import Store
from splits import Split, SplitSpec, spec_from_dict
from splits.errors import InputError, OutOfRangeError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from harness.data.batches import Batches, IndexedImages


def spec_of(store: Store) -> SplitSpec:
    """The grid and the splits of a store.

    Raises:
        ValueError: if they are not valid, or of another number of images than the store has.
    """
    spec = spec_from_dict(store.spec)
    if math.prod(spec.grid.sizes) != len(store):
        sizes = " × ".join(map(str, spec.grid.sizes[:10]))
        raise InputError(
            f"{store.paths.group} has {len(store):,} images, and its grid {math.prod(spec.grid.sizes):,} cells ({sizes})"
        )
    return spec


class Dataset:
    """Open one with `harness.open`. `data[3]` is an image (R, R, C) uint8 and its factors' indices (F,) int64; a slice or an array of
    numbers gives (n, R, R, C) and (n, F).

    Attributes:
        name: of the dataset.
        store: where its images are.
        spec: its grid and its splits.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        self.store = Store(root, name)
        self.name = name
        self.spec: SplitSpec = spec_of(self.store)

    def __repr__(self) -> str:
        sizes = " × ".join(f"{name} {size}" for name, size in zip(self.spec.grid.names, self.spec.grid.sizes, strict=True))
        height, width, channels = self.images.shape[1:]
        return f"<{self.name}: {len(self):,} images of {height} × {width} × {channels}; {sizes}>"

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: SupportsIndex | slice | ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        if isinstance(index, tuple):  # data[1, 2], which numpy and torch take for places along two axes
            raise InputError(
                f"one number, a slice or a list is expected: data[{[*index]!r:.80}] has several images, not data[{index!r:.80}]"
            )
        if isinstance(index, slice):
            index = np.arange(len(self))[index]
        numbers = np.asarray(index)
        if numbers.shape == (0,):  # of an empty list numpy makes floats
            numbers = numbers.astype(np.int64)
        if numbers.dtype.kind not in "iu" or numbers.ndim > 1:
            raise InputError(f"a whole number, a slice or a list of whole numbers is expected, not {index!r:.80}")
        if numbers.size and not -len(self) <= numbers.min() <= numbers.max() < len(self):
            raise OutOfRangeError(f"{self.name} has {len(self):,} images, and none of number {index!r:.80}")
        numbers = numbers.astype(np.int64) % len(self)
        images = self._images_of(np.atleast_1d(numbers))
        factors = self.spec.grid.factors(np.atleast_1d(numbers))
        return (images[0], factors[0]) if numbers.ndim == 0 else (images, factors)

    def _images_of(self, numbers: NDArray[np.int64]) -> NDArray[np.uint8]:
        """A shard at a time: of one that is damaged, zarr's reading of several at once leaves tasks that complain at length."""
        images = np.empty((len(numbers), *self.images.shape[1:]), dtype=np.uint8)
        shards = numbers // self.store.rows
        for shard in np.unique(shards):
            here = shards == shard
            first, last = numbers[here].min(), numbers[here].max()
            images[here] = self.store.read(int(first), int(last) + 1)[numbers[here] - first]
        return images

    @property
    def factor_names(self) -> tuple[str, ...]:
        """The factors, in the order of the targets."""
        return self.spec.grid.names

    def sel(self, **values: object) -> NDArray[np.int64]:
        """The indices of the images with some values of factors: `data.sel(shape="heart", scale=slice(2, 5))`; see
        `splits.FactorGrid.select`."""
        return self.spec.grid.select(**values)

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

    def batches(
        self,
        indices: ArrayLike | Split,
        batch_size: int = 64,
        *,
        shuffle: bool = True,
        seed: int = 0,
        device: str | torch.device = "cpu",
        drop_last: bool = False,
        place: str = "auto",
    ) -> Batches:
        """Whole batches of the images at `indices`, or on the train side of a split, as fast as the machine allows.

        See `harness.data.batches.Batches` for the arguments.
        """
        from harness.data.batches import Batches  # torch

        return Batches(
            self.store,
            self.targets,
            self._indices(indices),
            batch_size,
            shuffle=shuffle,
            seed=seed,
            device=device,
            drop_last=drop_last,
            place=place,
        )

    def torch_dataset(
        self,
        indices: ArrayLike | Split,
        transform: Callable[[Tensor], Any] | None = None,
        target_transform: Callable[[Tensor], Any] | None = None,
    ) -> IndexedImages:
        """A map-style torch `Dataset` of the images at `indices`, or on the train side of a split.

        See `harness.data.batches.IndexedImages` for the arguments.
        """
        from harness.data.batches import IndexedImages  # torch

        return IndexedImages(self.store, self.targets, self._indices(indices), transform, target_transform)

    def dataloader(
        self, indices: ArrayLike | Split, batch_size: int = 64, *, shuffle: bool = True, seed: int = 0, num_workers: int = 0
    ) -> torch.utils.data.DataLoader[tuple[Tensor, Tensor]]:
        """A torch DataLoader of the images at `indices`, or on the train side of a split; `batches` is several times as fast.

        It is to be iterated itself. One that is put together from its parts, as accelerate does, gives bytes: give that
        `torch_dataset`.

        Args:
            indices: (n,) into the grid, or a split.
            batch_size: images a batch.
            shuffle: another order each epoch, drawn from `seed`.
            seed: of the order.
            num_workers: processes.
        """
        from harness.data.batches import Loader  # torch

        return Loader.of(self.torch_dataset(indices), batch_size, shuffle, seed, num_workers)

    def _indices(self, indices: ArrayLike | Split) -> ArrayLike:
        """The train side of a split, if it is of this grid."""
        if not isinstance(indices, Split):
            return indices
        if indices.grid.sizes != self.spec.grid.sizes:
            raise InputError(f"the split is of a grid of {indices.grid.sizes}, but {self.name} has {self.spec.grid.sizes}")
        return indices.train
