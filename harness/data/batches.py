"""Images to training: uint8 kept in memory, mapped, or on the device; whole batches gathered and cast at once.

A DataLoader makes a tensor per image and stacks them. Here a batch is one gather of bytes and one cast, so that loading stays a
few percent of the smallest model's step.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from harness.data.manifest import shard_path
from harness.data.store import Store
from splits.errors import DamagedError, InputError

logger = logging.getLogger(__name__)

MEMORY_SHARE = 0.5  # of the available memory that the images of one object may take
PLACES = ("auto", "memory", "mapped")


class PairSampler(Protocol):
    """Draws pairs of images: `harness.data.pairs`."""

    def sample(self, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """(count, 2) int64 indices into the grid."""


class Pixels:
    """The bytes of some images of a store, wherever they are fastest to gather from.

    Args:
        store: of the images.
        indices: (n,) distinct indices, ascending; only these can be gathered.
        place: "memory"; "mapped": the files of an uncompressed store, or of a compressed one a decoded temporary file, which is
            gone with this object; "auto": memory if they take at most half of what is available, else mapped.
        device: a GPU keeps them in its own memory if they fit there.

    Raises:
        ValueError: for an index that the store hasn't, or an unknown place.
        OSError: if a shard of these images is missing, or not what the manifest says.
    """

    def __init__(self, store: Store, indices: NDArray[np.int64], place: str = "auto", device: torch.device | None = None) -> None:
        if place not in PLACES:
            raise InputError(f"unknown place {place!r}; known: {', '.join(PLACES)}")
        if len(indices) and (indices[0] < 0 or indices[-1] >= len(store)):
            raise InputError(
                f"index {indices[0] if indices[0] < 0 else indices[-1]} is out of range: {store.name} has {len(store):,} images"
            )
        self.store, self.device = store, device or torch.device("cpu")
        self.shape = tuple(store.images.shape[1:])
        self.bytes = len(indices) * math.prod(self.shape)
        self.place = self._place(place)
        self._position = np.full(len(store), -1, dtype=np.int64)
        self._position[indices] = np.arange(len(indices))
        self._maps: dict[int, NDArray[np.uint8]] = {}
        self._rows: Tensor | None = None
        if self.place == "mapped" and not store.compressed:
            self._maps = {shard: _map_shard(store, shard) for shard in np.unique(indices // store.rows).tolist()}
        else:
            self._rows = self._read(indices)
        logger.debug("%s: %s images, %.2f GB, %s", store.name, f"{len(indices):,}", self.bytes / 1e9, self.place)

    def gather(self, indices: NDArray[np.int64]) -> Tensor:
        """(B, R, R, C) uint8 on the device, in the order of `indices`.

        Raises:
            IndexError: for an image that is not among those of this object.
        """
        positions = self._position[indices]
        if positions.size and positions.min() < 0:
            raise IndexError(f"image {int(indices[positions.argmin()])} of {self.store.name} is not among those that were opened")
        if self._rows is not None:
            chosen = self._rows.index_select(0, torch.from_numpy(positions).to(self._rows.device, non_blocking=True))
        else:
            rows = np.empty((len(indices), math.prod(self.shape)), dtype=np.uint8)
            shards, offsets = np.divmod(indices, self.store.rows)
            for row, (shard, offset) in enumerate(zip(shards.tolist(), offsets.tolist(), strict=True)):
                rows[row] = self._maps[shard][offset]
            chosen = torch.from_numpy(rows)
        return chosen.to(self.device, non_blocking=True).view(-1, *self.shape)

    def _place(self, place: str) -> str:
        if self.device.type == "cuda" and place != "mapped" and self.bytes <= 0.8 * torch.cuda.mem_get_info(self.device)[0]:
            return "device"
        if place == "auto":
            return "memory" if self.bytes <= MEMORY_SHARE * available_memory() else "mapped"
        return place

    def _read(self, indices: NDArray[np.int64]) -> Tensor:
        """(n, R·R·C) uint8: read shard by shard."""
        size = math.prod(self.shape)
        if self.place == "mapped":
            root = self.store.paths.root
            folder = root if os.access(root, os.W_OK) else None  # beside the store, which has room, rather than in a small /tmp
            with tempfile.TemporaryFile(dir=folder) as file:  # its map, which is made before it is closed, keeps what is in it
                try:
                    for rows in self._decoded(indices):
                        file.write(rows.data)
                    file.flush()  # written, not mapped: a map of a full disk would end the process
                except OSError as error:
                    if error.errno == errno.ENOSPC:
                        where = folder or tempfile.gettempdir()
                        raise OSError(
                            f"not enough space in {where} to decode {self.store.name}: {self.bytes:,} bytes are needed"
                        ) from error
                    raise
                return torch.from_numpy(
                    np.memmap(file, np.uint8, "r+", shape=(len(indices), size)) if len(indices) else np.empty((0, size), np.uint8)
                )
        kept = np.empty((len(indices), size), dtype=np.uint8)
        position = 0
        for rows in self._decoded(indices):
            kept[position : position + len(rows)] = rows
            position += len(rows)
        tensor = torch.from_numpy(kept)
        return tensor.to(self.device) if self.place == "device" else tensor

    def _decoded(self, indices: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
        """The rows (…, R·R·C) of these images, shard by shard."""
        for start in range(0, len(self.store), self.store.rows):
            stop = min(start + self.store.rows, len(self.store))
            first, last = np.searchsorted(indices, (start, stop))
            if first < last:
                yield self.store.read(start, stop).reshape(stop - start, -1)[indices[first:last] - start]


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
        ValueError: for indices that are not distinct or not there, or a batch size below 1.
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
        self.device = torch.device(device)
        self.pixels = Pixels(store, ascending, place, self.device)
        self.targets = torch.from_numpy(targets[self.indices]).to(self.device)
        self.epoch = 0
        self._buffers = _Buffers()

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.indices) // self.batch_size if self.drop_last else -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
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


class IndexedImages(torch.utils.data.Dataset[tuple[Tensor, Tensor]]):
    """Images at some indices as a map-style Dataset: item i is (C, R, R) float32 in [0, 1] and (F,) float32 in [0, 1].

    Safe to fork, as workers share the pages of their parent and open nothing; spawned workers open the store themselves, when they
    are first asked. A DataLoader asks for a batch at a time (`__getitems__`).

    Args:
        store: of the images.
        targets: (N, F) float32 of all of them.
        indices: (n,) indices into the grid.
    """

    def __init__(self, store: Store, targets: NDArray[np.float32], indices: ArrayLike) -> None:
        self.root, self.name = store.paths.root, store.name
        self.indices = _whole_numbers(indices)
        self.targets = torch.from_numpy(targets[self.indices])
        self._pixels: Pixels | None = Pixels(store, np.unique(self.indices))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: list[int]) -> list[tuple[Tensor, Tensor]]:
        if self._pixels is None:
            self._pixels = Pixels(Store(self.root, self.name), np.unique(self.indices))
        images = to_float(self._pixels.gather(self.indices[items])).contiguous()
        return list(zip(images.unbind(), self.targets[items].unbind(), strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pixels": None}


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


def available_memory() -> int:
    """Bytes that can be taken without swapping, within the limit of a container; half of all where the system doesn't say."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():  # macOS says only how much there is
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
    available = 1024 * int(fields["MemAvailable"].split()[0])
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{what}").read_text().strip() for what in ("max", "current"))
    except OSError:
        return available
    return available if limit == "max" else max(0, min(available, int(limit) - int(used)))


def _map_shard(store: Store, shard: int) -> NDArray[np.uint8]:
    """(rows, R·R·C) uint8 over the file of an uncompressed shard. torch's map, as numpy's would hold a descriptor for each file.

    Its hash is checked now, before the first use and in the process whose workers will share it.
    """
    size, path = math.prod(store.images.shape[1:]), store.shard(shard)
    with store.files.opened(shard_path(shard)) as file:
        mapped = torch.from_file(str(path), shared=False, size=store.rows * size, dtype=torch.uint8)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):  # the one that was checked was replaced before it was mapped
            raise DamagedError(f"{path} was replaced while it was opened: try again")
    rows: NDArray[np.uint8] = mapped.numpy().reshape(store.rows, size)
    return rows


def _whole_numbers(indices: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(indices)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(f"(n,) whole numbers are expected as indices, not {array.dtype} {array.shape}")
    return array.astype(np.int64)
