"""A store and a split as WebDataset: tar files that are read front to back, `webdataset.WebDataset("composition/train-{00000..00019}.tar")`.

A sample is two files of one key, the number of its image: `.png`, and `.json` with `index` and the index of each factor's value. Each tar
holds a part of its side that is drawn from a fixed seed, so that who shuffles tars and a buffer sees no part of the grid at a time.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from harness.io.pictures import picture_of, png
from splits import FactorGrid, Split
from splits.errors import InputError

if TYPE_CHECKING:
    from harness.data.store import Store

SHARD_IMAGES = 10_000
SHARD_BYTES = 2**28  # of pixels; those of a PNG are fewer
MOST_SHARDS = 128  # of a side: all are written at a time
SEED = 0
SIDES = ("train", "test")
INDEX = "index"
BLOCK = tarfile.BLOCKSIZE


def files_of(store: Store, split: Split) -> list[str]:
    """`{kind}/{train,test}-00000.tar` and so on: of at most `SHARD_IMAGES` images or `SHARD_BYTES`, unless there would be too many of them.

    Raises:
        ValueError: if a factor is called "index".
    """
    if INDEX in split.grid.names:
        raise InputError("in WebDataset, index is a key of its own and can't be a factor's")
    numbers = zip(SIDES, _shards(store, split), strict=True)
    return [f"{split.kind}/{side}-{shard:05d}.tar" for side, number in numbers for shard in range(number)]


def write(store: Store, split: Split, blocks: Iterator[tuple[int, NDArray[np.uint8]]], files: Sequence[BinaryIO]) -> Iterator[int]:
    """Write the images, a block at a time, into the files of `files_of`; yields the images of each block that is written."""
    places = _places(split, _shards(store, split))
    digits = len(str(len(split.grid) - 1))
    for start, images in blocks:
        indices = np.arange(start, start + len(images))
        for index, image, factors in zip(indices.tolist(), images, _factors(split.grid, indices), strict=True):
            key, file = f"{index:0{digits}d}", files[places[index]]
            _add(file, f"{key}.png", png(picture_of(image)))
            _add(file, f"{key}.json", json.dumps({INDEX: index, **factors}, ensure_ascii=False).encode())
        yield len(images)
    for file in files:
        file.write(bytes(2 * BLOCK))  # the end of a tar


def _shards(store: Store, split: Split) -> list[int]:
    """How many tars each side has."""
    together = max(1, min(SHARD_IMAGES, SHARD_BYTES // int(np.prod(store.images.shape[1:]))))
    return [min(MOST_SHARDS, max(1, -(-count // together))) for count in split.counts]


def _places(split: Split, shards: Sequence[int]) -> NDArray[np.int64]:
    """The number of the file of each image, (N,): drawn, and of a side's files each has as many as any other, or one more."""
    places, first = np.empty(len(split.grid), np.int64), 0
    for side, number in zip((split.train, split.test), shards, strict=True):
        if len(side):
            places[side] = first + np.random.default_rng(SEED).permutation(len(side)) * number // len(side)
        first += number
    return places


def _factors(grid: FactorGrid, indices: NDArray[np.int64]) -> list[dict[str, int]]:
    return [dict(zip(grid.names, row, strict=True)) for row in grid.factors(indices).tolist()]


def _add(file: BinaryIO, name: str, data: bytes) -> None:
    """A member of a tar, without time and owner, so that the same images are the same file."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    file.write(info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK))
