"""One form for every dataset: a zarr v3 group of image shards, a manifest that proves it, and a way to write it that survives.

`<root>/<name>.zarr` holds `images` (N, R, R, C) uint8 in the row-major order of the factor grid; its group attributes hold the
spec of the dataset (grid and splits) and its source. Beside it: `<name>.manifest.jsonl`, `<name>.md` (the dataset card),
`<name>.png` (a preview) and `<name>.croissant.json` (the card for programs).

Here is a finished store, to read. `harness.data.writer` writes it, `harness.data.verify` says what is wrong with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from harness.data.description import (
    ARRAY,
    FORMAT,
    GROUP,
    Description,
    hashes,
    proven_documents,
    read_attributes,
    read_description,
)
from harness.data.manifest import Entry, Paths, covers, read_finished, shard_path
from harness.data.names import stores_in
from harness.data.shards import ShardFiles
from splits.errors import DamagedError, InputError, MissingError, did_you_mean

__all__ = ["Description", "Store", "rows_of_shard"]

SHARD_BYTES = 16 * 2**20  # of a shard, uncompressed, unless a dataset has a natural unit


def rows_of_shard(shape: tuple[int, int, int, int]) -> int:
    """How many images of a store of that shape (N, R, R, C) make a shard of about 16 MiB."""
    return max(1, min(shape[0], SHARD_BYTES // math.prod(shape[1:])))


class Store:
    """A finished store, opened for reading: whatever is read of it is what its manifest says, or an error.

    A store that is being extended is, until that is finished, the one that it was.

    Attributes:
        name: of the dataset.
        images: zarr array (N, R, R, C) uint8.
        spec: its grid and splits, plain JSON (`splits.spec_from_dict`).
        source: what it was made from.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        """Open `<root>/<name>.zarr`.

        Raises:
            FileNotFoundError: if there is no such store, or it is unfinished.
            ValueError: if what is there is not a store of this format.
            DamagedError: if its manifest or a zarr document is damaged.
        """
        paths = Paths(Path(root), name)
        documents = paths.documents()
        if not paths.manifest.exists() or not paths.group.is_dir():
            if GROUP not in documents:
                raise MissingError(missing(paths))
            if read_attributes(documents) is None:
                raise InputError(f"{paths.group} is not a dataset store of format {FORMAT}: choose another folder")
            raise MissingError(f"{paths.group} is unfinished: repeat the command that makes it, and it continues")
        for _ in range(2):  # once more if it was finished or overwritten between two looks
            entries, files = read_finished(paths.manifest)
            proven = proven_documents(documents, files)
            if proven is not None:
                break
            documents = paths.documents()
        if proven is None and paths.begun():
            raise MissingError(f"{paths.group} is being changed: repeat the command that changes it, and it continues")
        if proven is None:
            which = next(name for name in (GROUP, ARRAY) if hashes(documents).get(name) != files[name])
            raise DamagedError(f"{paths.group / which} is missing or damaged: the command that made the store restores it")
        description = read_description(proven)
        if description is None:
            raise InputError(f"{paths.group} is not a dataset store of format {FORMAT}: choose another folder")
        if not covers(entries, description):
            raise DamagedError(
                f"{paths.manifest} is damaged (it lists other shards than the store has): the command that made it restores it"
            )
        self._open(paths, description, proven, entries)

    @classmethod
    def of(cls, paths: Paths, description: Description, entries: Iterable[Entry]) -> Store:
        """A store whose shards are all there, before it is declared finished."""
        store = cls.__new__(cls)
        store._open(paths, description, description.metadata(), entries)
        return store

    def _open(self, paths: Paths, description: Description, documents: Mapping[str, bytes], entries: Iterable[Entry]) -> None:
        self.paths, self.description, self.name = paths, description, paths.name
        self.spec: dict[str, Any] = description.spec
        self.source: dict[str, Any] = description.source
        self.files = ShardFiles(paths.group, documents, entries)
        self.images: zarr.Array[Any] = zarr.open_array(self.files, path="images", mode="r")

    def __len__(self) -> int:
        return self.description.shape[0]

    @property
    def rows(self) -> int:
        """Images per shard."""
        return self.description.rows

    @property
    def compressed(self) -> bool:
        """Whether the shards are; if not, each begins with the bytes of its images."""
        return self.description.compress

    def shard(self, index: int) -> Path:
        """The file of a shard."""
        return self.paths.group / shard_path(index)

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images [start, stop) as (stop - start, R, R, C) uint8.

        Raises:
            ValueError: if there are no such images.
            OSError: if one of their shards is missing or damaged.
        """
        if not 0 <= start <= stop <= len(self):
            raise InputError(f"{self.name} has {len(self):,} images: there are none from {start:,} to {stop - 1:,}")
        if self.compressed:
            try:
                return np.asarray(self.images[start:stop], dtype=np.uint8)
            except (ValueError, RuntimeError) as error:  # crc32c's and zstd's
                raise DamagedError(
                    f"images {start:,} to {stop - 1:,} of {self.paths.group} are damaged ({error}): "
                    f"`ood-data data verify {self.name} --data {self.paths.root}` names the shard"
                ) from None
        images = np.empty((stop - start, *self.description.shape[1:]), dtype=np.uint8)
        for shard in range(start // self.rows, -(-stop // self.rows)):
            rows = self.description.rows_of(shard)
            first, last = max(start, rows.start), min(stop, rows.stop)
            with self.files.opened(shard_path(shard)) as file:
                file.seek((first - rows.start) * math.prod(images.shape[1:]))
                wanted = images[first - start : last - start]
                if file.readinto(wanted.data) != wanted.nbytes:
                    raise DamagedError(
                        f"{self.shard(shard)} was cut while it was read: `ood-data data verify {self.name} --data {self.paths.root}`"
                    )
        return images


def missing(paths: Paths) -> str:
    if meant := did_you_mean(paths.name, stores_in(paths.root), else_all=False):
        return f"there is no {paths.name} in {paths.root}{meant}"
    return f"there is no {paths.name} in {paths.root}: make it with `ood-data generate` or `ood-data data convert`, or see `ood-data data list`"
