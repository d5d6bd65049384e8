"""Images to training: whole batches, gathered from `harness.data.pixels` and cast at once.

A DataLoader makes a tensor per image and stacks them. Here a batch is one gather of bytes and one cast, so that loading stays a
few percent of the smallest model's step.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, SupportsIndex

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from harness.data.pixels import Pixels
from harness.data.store import Store
from harness.machine import usable
from splits.errors import InputError

SMALL_BATCH = 2**20  # bytes that a pipe carries faster than shared memory


class PairSampler(Protocol):
    """Draws pairs of images: `harness.data.pairs`."""

    def sample(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(count, 2) int64 indices into the grid."""


class Batches:
    """Batches of images and targets, float32, an epoch per iteration.

    Args:
        store: of the images.
        targets: (N, F) float32 of all of them.
        indices: (n,) distinct indices into its grid.
        batch_size: images per batch; the last one of an epoch is smaller, unless `drop_last`.
        shuffle: another order each epoch, drawn from `seed`; else in the order of `indices`.
        seed: of the orders: the same seed gives the same batches, whatever the place and the device.
        device: where batches are wanted.
        drop_last: leave out a smaller last batch.
        place: see `Pixels`.

    Iterating gives (images, targets): (B, C, R, R) float32 in [0, 1], channels last in memory, and (B, F) float32 in [0, 1].

    Raises:
        ValueError: for indices that are not distinct or not there, a batch size below 1, or a device that can't be used.
    """

    def __init__(
        self,
        store: Store,
        targets: NDArray[np.float32],
        indices: ArrayLike,
        batch_size: int = 64,
        *,
        shuffle: bool = True,
        seed: int = 0,
        device: str | torch.device = "cpu",
        drop_last: bool = False,
        place: str = "auto",
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        self.indices = _whole_numbers(indices)
        ascending = np.unique(self.indices)
        if len(ascending) < len(self.indices):
            raise InputError(f"{len(self.indices) - len(ascending):,} indices are repeats: distinct ones are expected")
        self.batch_size, self.shuffle, self.seed, self.drop_last = batch_size, shuffle, seed, drop_last
        self.device = usable(device)
        self.pixels = Pixels(store, ascending, place, self.device)
        self.targets = torch.from_numpy(targets[self.indices]).to(self.device)
        self.epoch = 0
        self._buffers = _Buffers()

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.indices) // self.batch_size if self.drop_last else -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not len(self.indices):
            raise InputError("there is no image to make batches of")
        epoch, self.epoch = self.epoch, self.epoch + 1
        return self._of_epoch(epoch, 0)

    def steps(self, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches without end, epoch after epoch, from step `start` on: a resumed training sees what it would have seen."""
        if not len(self):
            raise InputError(f"{len(self.indices):,} images make no batch of {self.batch_size}")
        epoch, batch = divmod(start, len(self))
        while True:
            yield from self._of_epoch(epoch, batch)
            epoch, batch = epoch + 1, 0

    def pairs(self, sampler: PairSampler, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of images without end, from step `start` on: twice (B, C, R, R) float32 in [0, 1].

        Step i is drawn from (seed, i). An image outside `indices` is an IndexError: a sampler of another split is found out.
        """
        step = start
        while True:
            drawn = sampler.sample(self.batch_size, np.random.default_rng([self.seed, step]))
            images = self.images(drawn.T.reshape(-1))
            yield images[: len(drawn)], images[len(drawn) :]
            step += 1

    def images(self, indices: NDArray[np.int64]) -> Tensor:
        """(B, C, R, R) float32 in [0, 1] of these images of the grid, which must be among `self.indices`."""
        pixels = self.pixels.gather(indices)
        return to_float(pixels, self._buffers.take(tuple(pixels.shape)) if pixels.device.type == "cpu" else None)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """(n,): which of `self.indices` comes when in that epoch."""
        count = len(self.indices)
        return np.random.default_rng([self.seed, epoch]).permutation(count) if self.shuffle else np.arange(count)

    def _of_epoch(self, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.order(epoch)
        for batch in range(first, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield self.images(self.indices[chosen]), self.targets[torch.from_numpy(chosen).to(self.device)]


Transform = Callable[[Tensor], Any]


def _as_it_is(given: Any) -> Any:
    return given


class IndexedImages(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Images at some indices as a map-style Dataset: item i is (C, R, R) float32 in [0, 1] and (F,) float32 in [0, 1].

    Safe to fork, as workers share the pages of their parent and open nothing; spawned workers open the store themselves, when they
    are first asked. A DataLoader asks for a batch at a time (`__getitems__`).

    Args:
        store: of the images.
        targets: (N, F) float32 of all of them.
        indices: (n,) indices into the grid.
        transform: of each image, (C, R, R) float32 in [0, 1].
        target_transform: of each target, (F,) float32 in [0, 1].
    """

    def __init__(
        self,
        store: Store,
        targets: NDArray[np.float32],
        indices: ArrayLike,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
    ) -> None:
        self.root, self.name = store.paths.root, store.name
        self.transform, self.target_transform = transform, target_transform
        self.indices = _whole_numbers(indices)
        self.targets = torch.from_numpy(targets[self.indices])
        self._pixels: Pixels | None = Pixels(store, np.unique(self.indices))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: SupportsIndex) -> tuple[Any, Any]:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Sequence[SupportsIndex]) -> list[tuple[Any, Any]]:
        pixels, targets = self.stored(items)
        pairs = zip(to_float(pixels).contiguous().unbind(), targets.unbind(), strict=True)
        as_is: Transform = _as_it_is
        transform, target_transform = self.transform or as_is, self.target_transform or as_is
        return [(transform(image), target_transform(target)) for image, target in pairs]

    def stored(self, items: Sequence[SupportsIndex]) -> tuple[Tensor, Tensor]:
        """(B, R, R, C) uint8, as the store has them, and their (B, F) float32 targets."""
        wanted = [operator.index(item) for item in items]  # of a Subset or a sampler of a tensor, they are tensors
        if self._pixels is None:
            self._pixels = Pixels(Store(self.root, self.name), np.unique(self.indices))
        return self._pixels.gather(self.indices[wanted]), self.targets[wanted]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pixels": None}


class Loader(torch.utils.data.DataLoader[tuple[Tensor, Tensor]]):
    """A DataLoader of batches as the store has them, which it casts: from a worker to its parent, bytes are a quarter of floats."""

    @classmethod
    def of(cls, images: IndexedImages, batch_size: int, shuffle: bool, seed: int, num_workers: int) -> Loader:
        """Of images without transforms; see `harness.data.dataset.Dataset.dataloader`."""
        order, workers = (torch.Generator().manual_seed(seed) for _ in range(2))  # of one, workers would take numbers too
        return cls(
            _Stored(images),
            batch_size,
            sampler=torch.utils.data.RandomSampler(images, generator=order) if shuffle else None,
            num_workers=num_workers,
            collate_fn=_to_hand_over if num_workers else _as_it_is,
            generator=workers,
            persistent_workers=num_workers > 0,
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:  # type: ignore[override]
        for pixels, targets in super().__iter__():
            yield to_float(torch.as_tensor(pixels)).contiguous(), torch.as_tensor(targets)


class _Stored(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Images at some indices, a batch at a time as the store has them."""

    def __init__(self, images: IndexedImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: SupportsIndex) -> tuple[Tensor, Tensor]:
        return self.images[item]

    def __getitems__(self, items: Sequence[SupportsIndex]) -> tuple[Tensor, Tensor]:
        return self.images.stored(items)


def _to_hand_over(batch: Any) -> Any:
    """A batch as it goes from a worker to its parent fastest: a small one through their pipe, where a tensor's shared memory costs more."""
    pixels, targets = batch
    return (pixels.numpy(), targets.numpy()) if pixels.nbytes < SMALL_BATCH else batch


def to_float(pixels: Tensor, out: Tensor | None = None) -> Tensor:
    """(B, R, R, C) uint8 → (B, C, R, R) float32 in [0, 1], x / 255; channels last in memory, as they were.

    `out` (B, R, R, C) float32 is the memory to use, fresh if None.
    """
    # torch.div of the bytes would be one pass, and slower: it is not vectorised
    floats = pixels.to(torch.float32) if out is None else out.copy_(pixels)
    return floats.div_(255).permute(0, 3, 1, 2)


class _Buffers:
    """Memory for batches, used again once nobody holds a tensor over it: the pages of fresh memory cost as much as the cast.

    A tensor made from a numpy array holds a reference to it for as long as its storage is used, by whichever view.
    """

    KEPT = 4

    def __init__(self) -> None:
        self._arrays: list[NDArray[np.float32]] = []

    def take(self, shape: tuple[int, ...]) -> Tensor:
        """A float32 tensor of that shape; its values are whatever was there."""
        size = math.prod(shape)
        for index in range(len(self._arrays)):  # not over the arrays: the loop would hold references too
            if self._arrays[index].size == size and _references(self._arrays, index) == _UNUSED:
                return torch.from_numpy(self._arrays[index]).view(shape)
        self._arrays = [*self._arrays[1 - self.KEPT :], np.empty(size, dtype=np.float32)]
        return torch.from_numpy(self._arrays[-1]).view(shape)


def _references(arrays: list[NDArray[np.float32]], index: int) -> int:
    return sys.getrefcount(arrays[index])


_UNUSED = _references([np.empty(0, dtype=np.float32)], 0)  # measured, as versions of Python count differently


def _whole_numbers(indices: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(indices)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"(n,) whole numbers are expected as indices, not {array.dtype} {array.shape}")
    return array.astype(np.int64)
