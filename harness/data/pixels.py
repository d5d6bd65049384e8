"""The bytes of images, wherever they are fastest to gather from: memory, a map of the files, or the device."""

from __future__ import annotations

import errno
import logging
import math
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.data.manifest import shard_path
from harness.data.store import Store
from splits.errors import DamagedError, InputError

logger = logging.getLogger(__name__)

MEMORY_SHARE = 0.5  # of the available memory that the images of one object may take
PLACES = ("auto", "memory", "mapped")


class Pixels:
    """The bytes of some images of a store, wherever they are fastest to gather from.

    Args:
        store: of the images.
        indices: (n,) distinct indices, ascending; only these can be gathered.
        place: "memory"; "mapped": the files of an uncompressed store, or of a compressed one a decoded temporary file, which is
            gone with this object; "auto": memory if they take at most half of what is available, else mapped.
        device: a GPU keeps them in its own memory if they fit there.

    Raises:
        ValueError: for an index that the store does not have, or an unknown place.
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
            self._maps = _map_shards(store, np.unique(indices // store.rows).tolist())
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


def _map_shards(store: Store, shards: list[int]) -> dict[int, NDArray[np.uint8]]:
    """By shard, as `_map_shard` maps it. Their hashes take seconds for gigabytes: a thread each as far as torch may use cores."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return dict(zip(shards, pool.map(partial(_map_shard, store), shards), strict=True))


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
