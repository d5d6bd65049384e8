"""What a store will hold: as an object, and as the two zarr documents that say so. Each gives the other, to the byte."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import zarr
import zarr.codecs
import zarr.storage
from numpy.typing import NDArray

from splits.errors import InputError

FORMAT = 1
ATTRIBUTE = "ood_data"
COMPRESSION_LEVEL = 5
GROUP, ARRAY = "zarr.json", "images/zarr.json"  # the documents, by their path inside the group
DIMENSIONS = ("image", "row", "column", "channel")  # of the array, which xarray asks for


@dataclass(frozen=True)
class Description:
    """What a store will hold.

    `shape` is (N, R, R, C); `rows` images make a shard; `spec` is the dataset's grid and splits, `source` everything that
    determines the bytes, both plain JSON. Two descriptions with the same source and a different N differ only in how far the first
    factor goes.
    """

    name: str
    shape: tuple[int, int, int, int]
    rows: int
    compress: bool
    spec: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict)
    part: float | None = field(
        default=None, compare=False
    )  # None: all, or half if compressed, which is done where it at least halves them
    dimensions: tuple[str, ...] | None = field(default=DIMENSIONS, compare=False)  # None in stores of before, which say the same

    @property
    def expected_bytes(self) -> int:
        """The bytes of a whole shard on disk, about."""
        part = (0.5 if self.compress else 1.0) if self.part is None else self.part
        return math.ceil(part * self.rows * math.prod(self.shape[1:]))

    @property
    def shards(self) -> int:
        return -(-self.shape[0] // self.rows)

    def rows_of(self, shard: int) -> range:
        """The indices of a shard's images."""
        return range(shard * self.rows, min((shard + 1) * self.rows, self.shape[0]))

    def shards_of(self, part: tuple[int, int]) -> range:
        """The shards of part (i, n): the i-th of n ranges, i from 1."""
        index, count = part
        return range((index - 1) * self.shards // count, index * self.shards // count)

    def attributes(self) -> dict[str, Any]:
        return {"format": FORMAT, "name": self.name, "spec": self.spec, "source": self.source}

    def metadata(self) -> dict[str, bytes]:
        """The zarr.json documents of the group and its array, by path inside the group."""
        documents: dict[str, Any] = {}
        group = zarr.create_group(zarr.storage.MemoryStore(documents), zarr_format=3, attributes={ATTRIBUTE: self.attributes()})
        self._create(group, self.shape)
        return {name: document.to_bytes() for name, document in documents.items()}

    def metadata_in(self, files: Mapping[str, str]) -> dict[str, bytes] | None:
        """The documents, in the form of which a manifest's `files` are the hashes; None if they are of something else."""
        for dimensions in (DIMENSIONS, None):
            documents = replace(self, dimensions=dimensions).metadata()
            if hashes(documents).items() <= files.items():
                return documents
        return None

    def encode(self, images: NDArray[np.uint8]) -> bytes:
        """The bytes of a shard; `images` (rows, R, R, C) uint8, or fewer rows for the last one."""
        if images.dtype != np.uint8 or images.shape[1:] != self.shape[1:] or not 0 < len(images) <= self.rows:
            raise InputError(f"a shard of {self.name} is uint8 {(self.rows, *self.shape[1:])}, not {images.dtype} {images.shape}")
        documents: dict[str, Any] = {}
        group = zarr.create_group(zarr.storage.MemoryStore(documents), zarr_format=3)
        self._create(group, images.shape)[:] = images
        shard: bytes = documents["images/c.0.0.0.0"].to_bytes()
        return shard

    def _create(self, group: zarr.Group, shape: tuple[int, ...]) -> zarr.Array[Any]:
        chunk = (self.rows, *self.shape[1:])
        zstd = [zarr.codecs.ZstdCodec(level=COMPRESSION_LEVEL)] if self.compress else []
        return group.create_array(
            "images",
            shape=shape,
            dtype="uint8",
            chunks=chunk,
            shards=chunk,
            compressors=[*zstd, zarr.codecs.Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
            fill_value=0,
            dimension_names=self.dimensions,
            config={"write_empty_chunks": True},  # else an all-black shard would be no file
        )


def read_attributes(documents: Mapping[str, bytes]) -> dict[str, Any] | None:
    """Ours of the group's attributes: format, name, spec, source; None if the group's document is not one of this format."""
    try:
        attributes = json.loads(documents[GROUP])["attributes"][ATTRIBUTE]
        ours = attributes["format"] == FORMAT and isinstance(attributes["name"], str)
        ours = ours and isinstance(attributes["spec"], dict) and isinstance(attributes["source"], dict)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return dict(attributes) if ours else None


def read_description(documents: Mapping[str, bytes]) -> Description | None:
    """What both documents describe; None if one is missing or says nothing of the kind.

    Nothing else that they may hold counts, such as consolidated metadata or other attributes.
    """
    attributes = read_attributes(documents)
    try:
        array = json.loads(documents[ARRAY])
        shape, rows = tuple(array["shape"]), array["chunk_grid"]["configuration"]["chunk_shape"][0]
        codecs = [codec["name"] for codec in array["codecs"][0]["configuration"]["codecs"]]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return None
    if attributes is None or len(shape) != 4 or not all(type(size) is int and size > 0 for size in (*shape, rows)):
        return None
    return Description(attributes["name"], shape, rows, "zstd" in codecs, attributes["spec"], attributes["source"])


def proven_documents(documents: Mapping[str, bytes], files: Mapping[str, str]) -> dict[str, bytes] | None:
    """The zarr documents that a manifest's `files` are the hashes of, or None.

    If they differ from those that are there, but say the same, they are made again: other programs add to them (consolidated
    metadata, attributes).
    """
    if hashes(documents) == {name: files[name] for name in (GROUP, ARRAY)}:
        return dict(documents)
    description = read_description(documents)
    return description.metadata_in(files) if description else None


def is_consolidated(document: bytes, proven: Mapping[str, bytes]) -> bool:
    """Whether a group's document is the proven one and what `zarr.consolidate_metadata` adds to it, a copy of the array's."""
    try:
        there = json.loads(document)
        added = there.pop("consolidated_metadata")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    copy = {"kind": "inline", "must_understand": False, "metadata": {"images": json.loads(proven[ARRAY])}}
    return bool(there == json.loads(proven[GROUP]) and added == copy)


def hashes(documents: Mapping[str, bytes]) -> dict[str, str]:
    """The sha256 of each document."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in documents.items()}
