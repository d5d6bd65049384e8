"""One form for every dataset: a zarr v3 group of image shards, a manifest that proves it, and a way to write it that survives.

``<root>/<name>.zarr`` holds ``images`` (N, R, R, C) uint8 in the row-major order of the factor grid; its group attributes hold the
spec of the dataset (grid and splits) and its source. Beside it: ``<name>.manifest.jsonl``, ``<name>.md`` (the dataset card) and
``<name>.png`` (a preview).

Here is the format: what a store is, reading it, proving it. `harness.data.writer` writes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
import zarr.storage
from numpy.typing import NDArray

from harness.data.manifest import Paths, is_complete, read_finished
from harness.io.atomic import sha256
from splits.errors import DamagedError, InputError, MissingError

FORMAT = 1
ATTRIBUTE = "ood_data"
COMPRESSION_LEVEL = 5
SHARD_BYTES = 16 * 2**20  # of a shard, uncompressed, unless a dataset has a natural unit


def rows_of_shard(shape: tuple[int, int, int, int]) -> int:
    """How many images of a store of that shape (N, R, R, C) make a shard of about 16 MiB."""
    return max(1, min(shape[0], SHARD_BYTES // math.prod(shape[1:])))


@dataclass(frozen=True)
class Description:
    """What a store is to hold.

    ``shape`` is (N, R, R, C); ``rows`` images make a shard; ``spec`` is the dataset's grid and splits, ``source`` everything that
    determines the bytes, both plain JSON. Two descriptions with the same source and a different N differ only in how far the first
    factor goes.
    """

    name: str
    shape: tuple[int, int, int, int]
    rows: int
    compress: bool
    spec: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict)
    part: float | None = None  # None: all, or half if compressed, which is done where it at least halves them

    @property
    def expected_bytes(self) -> int:
        """Of a whole shard, on the disk."""
        part = (0.5 if self.compress else 1.0) if self.part is None else self.part
        return math.ceil(part * self.rows * math.prod(self.shape[1:]))

    @property
    def shards(self) -> int:
        return -(-self.shape[0] // self.rows)

    def attributes(self) -> dict[str, Any]:
        return {"format": FORMAT, "name": self.name, "spec": self.spec, "source": self.source}

    def metadata(self) -> dict[str, bytes]:
        """The zarr.json documents of the group and its array, by path inside the group."""
        documents: dict[str, Any] = {}
        group = zarr.create_group(zarr.storage.MemoryStore(documents), zarr_format=3, attributes={ATTRIBUTE: self.attributes()})
        self._create(group, self.shape)
        return {name: document.to_bytes() for name, document in documents.items()}

    def encode(self, images: NDArray[np.uint8]) -> bytes:
        """The bytes of a shard; ``images`` (rows, R, R, C) uint8, or fewer rows for the last one."""
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
            config={"write_empty_chunks": True},  # else an all-black shard would be no file
        )


class Store:
    """A finished store, opened for reading.

    Attributes:
        name: of the dataset.
        images: zarr array (N, R, R, C) uint8.
        spec: its grid and splits, plain JSON (`splits.spec_from_dict`).
        source: what it was made from.
    """

    def __init__(self, root: str | Path, name: str) -> None:
        """Open ``<root>/<name>.zarr``.

        Raises:
            FileNotFoundError: if there is no such store, or it is unfinished.
            ValueError: if what is there is not a store of this format.
        """
        self.paths = Paths(Path(root), name)
        attributes = read_attributes(self.paths)
        if not is_complete(self.paths, stored_shape(self.paths)[0]):
            raise MissingError(f"{self.paths.group} is unfinished: run the command that makes it again, and it continues")
        self.name = name
        self.spec: dict[str, Any] = attributes["spec"]
        self.source: dict[str, Any] = attributes["source"]
        array = zarr.open_group(self.paths.group, mode="r")["images"]
        assert isinstance(array, zarr.Array)
        self.images = array

    def __len__(self) -> int:
        return int(self.images.shape[0])

    @property
    def rows(self) -> int:
        """Images per shard."""
        return int(self.images.chunks[0])

    @property
    def compressed(self) -> bool:
        """Whether the shards are; if not, each begins with the bytes of its images."""
        return any(isinstance(codec, zarr.codecs.ZstdCodec) for codec in self.images.compressors)

    def shard(self, index: int) -> Path:
        """The file of a shard."""
        return self.paths.group / self.paths.shard(index)

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Images [start, stop) as (stop - start, R, R, C) uint8.

        Raises:
            OSError: if one of their shards is missing, or a bit in it flipped.
        """
        for index in range(start // self.rows, -(-stop // self.rows)):
            if not self.shard(index).exists():  # zarr would give black images
                raise MissingError(f"{self.shard(index)} is missing: `ood-data data verify {self.name}` names all that is wrong")
        try:
            return np.asarray(self.images[start:stop], dtype=np.uint8)
        except (ValueError, RuntimeError) as error:  # crc32c's and zstd's
            raise OSError(
                f"images {start:,} to {stop - 1:,} of {self.paths.group} are damaged ({error}): "
                f"`ood-data data verify {self.name}` names the shard"
            ) from None


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a store: the file, relative to the root, and what about it."""

    path: str
    what: str


def verify(root: str | Path, name: str, progress: Callable[[int, int], None] = lambda done, total: None) -> list[Problem]:
    """Hash everything of a store against its manifest; returns what is wrong, empty if nothing is.

    Args:
        root: folder of the stores.
        name: of the dataset.
        progress: called with shards done and their number.

    Raises:
        FileNotFoundError: if there is no such store.
    """
    paths = Paths(Path(root), name)
    if not paths.group.is_dir():
        raise MissingError(missing(paths))
    if not paths.manifest.exists():
        return [Problem(paths.manifest.name, "missing: the store is unfinished, run the command that makes it again")]
    problems: list[Problem] = []
    if any(part.stat().st_size for part in paths.parts()):
        problems.append(Problem(paths.parts()[0].name, "left over: an extension of the store is unfinished"))
    try:
        entries, files = read_finished(paths.manifest)
    except DamagedError as error:
        return [*problems, Problem(paths.manifest.name, f"damaged: {error.__cause__}")]
    for file, expected in files.items():
        path = paths.group / file if file.endswith("zarr.json") else paths.root / file
        shown = f"{paths.group.name}/{file}" if file.endswith("zarr.json") else file
        if not path.is_file():
            problems.append(Problem(shown, "missing"))
        elif sha256(path) != expected:
            problems.append(Problem(shown, "differs from the manifest"))
    for number, entry in enumerate(entries):
        path, shown = paths.group / entry["path"], f"{paths.group.name}/{entry['path']}"
        if not path.is_file():
            problems.append(Problem(shown, "missing"))
        elif path.stat().st_size != entry["bytes"]:
            problems.append(Problem(shown, f"has {path.stat().st_size} bytes instead of {entry['bytes']}"))
        elif sha256(path) != entry["sha256"]:
            problems.append(Problem(shown, "differs from the manifest"))
        progress(number + 1, len(entries))
    known = {entry["path"] for entry in entries} | set(files)
    for path in sorted(paths.group.rglob("*")):
        inside = path.relative_to(paths.group).as_posix()
        if path.is_file() and inside not in known:
            problems.append(Problem(f"{paths.group.name}/{inside}", "does not belong to the store: delete it"))
    return problems


def overview(root: str | Path) -> list[dict[str, Any]]:
    """The stores in a folder: name, images, bytes on disk, origin, whether complete, what is damaged."""
    found = []
    for group in sorted(Path(root).glob("*.zarr")):
        paths = Paths(group.parent, group.stem)
        try:
            attributes, shape = read_attributes(paths), stored_shape(paths)
            complete, state = is_complete(paths, shape[0]), ""
            source = attributes["source"]
        except FileNotFoundError:
            continue  # a zarr group of somebody else's
        except (ValueError, DamagedError) as error:
            complete, state, shape, source = False, str(error), (0,), {}
        found.append(
            {
                "name": paths.name,
                "images": shape[0],
                "shape": list(shape),
                "bytes": sum(map(_size, group.rglob("*"))),
                "origin": source.get("generator", source.get("file", "unknown")),
                "complete": complete,
                "damage": state,
            }
        )
    return found


def _size(path: Path) -> int:
    """Of a file, 0 for a folder, or a file that a writer has renamed since it was listed."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def missing(paths: Paths) -> str:
    return f"there is no {paths.name} in {paths.root}: make it with `ood-data generate` or `ood-data data convert`, or look with `data list`"


def read_attributes(paths: Paths) -> dict[str, Any]:
    """Ours of the group's attributes: format, name, spec, source.

    Raises:
        FileNotFoundError: if there is no store.
        ValueError: if it is not one of this format.
    """
    document = paths.group / "zarr.json"
    if not document.is_file():
        raise MissingError(missing(paths))
    try:
        attributes = json.loads(document.read_bytes())["attributes"][ATTRIBUTE]
        known = attributes["format"] == FORMAT and {"name", "spec", "source"} <= set(attributes)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise InputError(f"{paths.group} is not a dataset store of format {FORMAT}: choose another folder")
    return dict(attributes)


def stored_shape(paths: Paths) -> tuple[int, ...]:
    """(N, R, R, C) as the array's document says.

    Raises:
        DamagedError: if it says nothing of the kind, or is not there.
    """
    document = paths.group / "images/zarr.json"
    try:
        return tuple(int(size) for size in json.loads(document.read_bytes())["shape"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{document} is damaged or missing: --overwrite makes the store anew") from error
