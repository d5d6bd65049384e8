"""One store for every dataset: a zarr v3 group of image shards, a manifest that proves it, and a way to write it that survives.

``<root>/<name>.zarr`` holds ``images`` (N, R, R, C) uint8 in the row-major order of the factor grid; its group attributes hold the
spec of the dataset (grid and splits) and its source. Beside it: ``<name>.manifest.jsonl``, ``<name>.md`` (the dataset card) and
``<name>.png`` (a preview).

The unit of writing is a shard, and a shard has one writer. It is encoded in memory, written, synced and renamed into place, and
only then gets its line in the manifest: a shard without a line does not exist. Any process may die at any moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
import zarr.storage
from numpy.typing import NDArray

FORMAT = 1
ATTRIBUTE = "ood_data"
COMPRESSION_LEVEL = 5
SPARE_BYTES = 16 * 2**20  # room for the manifest, card and preview
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
            raise ValueError(f"a shard of {self.name} is uint8 {(self.rows, *self.shape[1:])}, not {images.dtype} {images.shape}")
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


@dataclass(frozen=True)
class Paths:
    """Where the parts of a store lie."""

    root: Path
    name: str

    @property
    def group(self) -> Path:
        return self.root / f"{self.name}.zarr"

    @property
    def manifest(self) -> Path:
        return self.root / f"{self.name}.manifest.jsonl"

    @property
    def card(self) -> Path:
        return self.root / f"{self.name}.md"

    @property
    def preview(self) -> Path:
        return self.root / f"{self.name}.png"

    def part(self, part: tuple[int, int]) -> Path:
        return self.root / f"{self.name}.manifest.{part[0]}-of-{part[1]}.jsonl"

    def parts(self) -> list[Path]:
        return sorted(self.root.glob(f"{self.name}.manifest.*-of-*.jsonl"))

    def shard(self, index: int) -> str:
        """Path inside the group."""
        return f"images/c.{index}.0.0.0"


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
        attributes = _read_attributes(self.paths)
        if not self.paths.manifest.exists():
            raise FileNotFoundError(f"{self.paths.group} is unfinished: run the command that makes it again, and it continues")
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
                raise FileNotFoundError(
                    f"{self.shard(index)} is missing: `ood-data data verify {self.name}` names all that is wrong"
                )
        try:
            return np.asarray(self.images[start:stop], dtype=np.uint8)
        except (ValueError, RuntimeError) as error:  # crc32c's and zstd's
            raise OSError(
                f"images {start:,} to {stop - 1:,} of {self.paths.group} are damaged ({error}): "
                f"`ood-data data verify {self.name}` names the shard"
            ) from None


class Writer:
    """Writes the shards of one part of a store, continuing whatever is there.

    Use as a context manager: it holds the part's lock meanwhile.

    Args:
        root: folder of the stores.
        description: what the store is to hold.
        part: (i, n), i from 1: the i-th of n ranges of shards.
        overwrite: remove a store that is there first.

    Raises:
        ValueError: if the folder holds something else, with every difference named.
        BlockingIOError: if another process is writing this part.
        OSError: if the folder cannot be written or the disk has no room, with the bytes needed.
    """

    def __init__(self, root: str | Path, description: Description, part: tuple[int, int] = (1, 1), overwrite: bool = False) -> None:
        index, count = part
        if not 1 <= index <= count:
            raise ValueError(f"part {index}/{count} does not exist: parts are 1/{count} to {count}/{count}")
        self.paths = Paths(Path(root), description.name)
        self.description = description
        self.part = part
        self.range = range((index - 1) * description.shards // count, index * description.shards // count)
        self.paths.root.mkdir(parents=True, exist_ok=True)
        if overwrite:
            remove(root, description.name)
        fresh = not self.paths.group.exists()
        self._prepare()
        self.done = _done_shards(self.paths, self.description)
        try:
            self._check_space()
        except OSError:
            if fresh:
                remove(root, description.name)
            raise
        self._log = self.paths.part(part).open("ab")
        try:
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._log.close()
            raise BlockingIOError(
                f"another process is writing part {index}/{count} of {self.paths.group}: let it finish, or stop it"
            ) from None
        _truncate_torn_line(self.paths.part(part))

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self._log.close()

    @property
    def missing(self) -> list[int]:
        """Indices of this part's shards that are yet to be written."""
        return [shard for shard in self.range if shard not in self.done]

    @property
    def complete(self) -> bool:
        """Whether the whole store was finished before and nothing is to be added."""
        return self.paths.manifest.exists() and not self.missing

    def rows(self, shard: int) -> range:
        """The indices of a shard's images."""
        return range(shard * self.description.rows, min((shard + 1) * self.description.rows, self.description.shape[0]))

    def publish(self, shard: int, images: NDArray[np.uint8]) -> None:
        """Write one shard of this part: ``images`` (rows, R, R, C) uint8. Atomic; safe to interrupt."""
        data = self.description.encode(images)
        path = self.paths.shard(shard)
        write_atomically(self.paths.group / path, data)
        first = shard * self.description.rows
        entry = {
            "path": path,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "first": first,
            "last": first + len(images) - 1,
        }
        self._log.write(_line(entry))
        self._log.flush()
        os.fsync(self._log.fileno())
        self.done[shard] = entry

    def finish(self, card: Callable[[Store], str], preview: Callable[[Store], bytes]) -> bool:
        """If every shard of every part is written, complete the store: card, preview, one sorted manifest. Else do nothing.

        Args:
            card: makes the dataset card's markdown.
            preview: makes the preview's PNG bytes.

        Returns:
            whether the store is complete.
        """
        with _locked(self.paths.group):
            if self.paths.manifest.exists() and not self.paths.parts():
                return True  # another part's process did it
            done = _done_shards(self.paths, self.description)
            if len(done) < self.description.shards:
                return False
            lines = b"".join(_line(done[shard]) for shard in sorted(done))
            store = Store.__new__(Store)  # readable before it is declared finished
            store.paths, store.name = self.paths, self.description.name
            store.spec, store.source = self.description.spec, self.description.source
            store.images = zarr.open_group(self.paths.group, mode="r")["images"]  # type: ignore[assignment]
            write_atomically(self.paths.preview, preview(store))
            write_atomically(self.paths.card, card(store).encode())
            files = {path.name: _sha256(path) for path in (self.paths.card, self.paths.preview)}
            files |= {name: hashlib.sha256(data).hexdigest() for name, data in self.description.metadata().items()}
            last = _line({"files": files, "sha256": _manifest_hash(lines, files)})
            write_atomically(self.paths.manifest, lines + last)
            for path in self.paths.parts():
                path.unlink(missing_ok=True)
            _sync_folder(self.paths.root)
        return True

    def _prepare(self) -> None:
        """Write the metadata, or check that what is there is ours or a shorter run of ours."""
        metadata = self.description.metadata()
        self.paths.group.mkdir(exist_ok=True)
        with _locked(self.paths.group):
            if (self.paths.group / "zarr.json").exists():
                _check_same(self.paths, self.description)
            elif any(self.paths.group.iterdir()) and any(
                entry.name not in ("images", "zarr.json.partial") for entry in self.paths.group.iterdir()
            ):
                raise ValueError(f"{self.paths.group} holds something that is not a dataset store: choose another --out")
            (self.paths.group / "images").mkdir(exist_ok=True)
            others = [path for path in self.paths.parts() if not path.name.endswith(f"-of-{self.part[1]}.jsonl")]
            if others:
                count = others[0].stem.rsplit("-of-", 1)[1]
                raise ValueError(f"{self.paths.group} is being made in {count} parts: continue with --part i/{count}")
            for name in sorted(metadata, reverse=True):  # the group's document last: with it the store is there
                path = self.paths.group / name
                if not path.exists() or path.read_bytes() != metadata[name]:
                    write_atomically(path, metadata[name])

    def _check_space(self) -> None:
        per_shard = self.description.rows * int(np.prod(self.description.shape[1:]))
        needed = len(self.missing) * per_shard // (2 if self.description.compress else 1) + SPARE_BYTES
        free = shutil.disk_usage(self.paths.root).free
        if self.missing and free < needed:
            raise OSError(
                f"not enough space in {self.paths.root}: {needed:,} bytes are needed, {free:,} are free; nothing was written"
            )


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
        raise FileNotFoundError(_missing(paths))
    if not paths.manifest.exists():
        return [Problem(paths.manifest.name, "missing: the store is unfinished, run the command that makes it again")]
    problems: list[Problem] = []
    if paths.parts():
        problems.append(Problem(paths.parts()[0].name, "left over: an extension of the store is unfinished"))
    try:
        entries, files = _parse_manifest(paths.manifest.read_bytes())
    except (ValueError, KeyError, TypeError) as error:
        return [*problems, Problem(paths.manifest.name, f"corrupt: {error}")]
    for file, expected in files.items():
        path = paths.group / file if file.endswith("zarr.json") else paths.root / file
        shown = f"{paths.group.name}/{file}" if file.endswith("zarr.json") else file
        if not path.is_file():
            problems.append(Problem(shown, "missing"))
        elif _sha256(path) != expected:
            problems.append(Problem(shown, "differs from the manifest"))
    for number, entry in enumerate(entries):
        path, shown = paths.group / entry["path"], f"{paths.group.name}/{entry['path']}"
        if not path.is_file():
            problems.append(Problem(shown, "missing"))
        elif path.stat().st_size != entry["bytes"]:
            problems.append(Problem(shown, f"has {path.stat().st_size} bytes instead of {entry['bytes']}"))
        elif _sha256(path) != entry["sha256"]:
            problems.append(Problem(shown, "differs from the manifest"))
        progress(number + 1, len(entries))
    known = {entry["path"] for entry in entries} | set(files)
    for path in sorted(paths.group.rglob("*")):
        inside = path.relative_to(paths.group).as_posix()
        if path.is_file() and inside not in known:
            problems.append(Problem(f"{paths.group.name}/{inside}", "does not belong to the store"))
    return problems


def overview(root: str | Path) -> list[dict[str, Any]]:
    """The stores in a folder: name, images, bytes on disk, origin, whether complete."""
    found = []
    for group in sorted(Path(root).glob("*.zarr")):
        paths = Paths(group.parent, group.stem)
        try:
            attributes = _read_attributes(paths)
        except (FileNotFoundError, ValueError):
            continue
        shape = json.loads((group / "images/zarr.json").read_bytes())["shape"]
        found.append(
            {
                "name": paths.name,
                "images": shape[0],
                "shape": shape,
                "bytes": sum(file.stat().st_size for file in group.rglob("*") if file.is_file()),
                "origin": attributes["source"].get("generator", attributes["source"].get("file", "unknown")),
                "complete": paths.manifest.exists() and not paths.parts(),
            }
        )
    return found


def remove(root: str | Path, name: str) -> None:
    """Delete a store, its manifest first: what is left of an interrupted removal is never taken for a store.

    Raises:
        ValueError: if what lies there is not a store of ours.
    """
    paths = Paths(Path(root), name)
    if not paths.group.exists():
        return
    if (paths.group / "zarr.json").exists():
        _read_attributes(paths)
    elif any(entry.name != "images" for entry in paths.group.iterdir()):
        raise ValueError(f"{paths.group} holds something that is not a dataset store: it was left alone")
    for path in (paths.manifest, *paths.parts(), paths.card, paths.preview):
        path.unlink(missing_ok=True)
    shutil.rmtree(paths.group)


def write_atomically(path: Path, data: bytes) -> None:
    """Write, sync and rename: ``path`` holds its old content or all of ``data``, whatever happens."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold an advisory lock on a folder: no lock file is left behind."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(entry: dict[str, Any]) -> bytes:
    return json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def _parse_lines(data: bytes) -> list[dict[str, Any]]:
    entries = []
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        entry = json.loads(line)
        if not isinstance(entry, dict) or _line(entry) != line:  # only one spelling is right, so no flipped bit passes
            raise ValueError(f"line {number} is not as it was written")
        entries.append(entry)
    return entries


def _parse_manifest(data: bytes) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Shard entries and the other files' hashes of a finished manifest, after checking the manifest's own hash."""
    if not data.endswith(b"\n"):
        raise ValueError("its last line is cut")
    *entries, last = _parse_lines(data)
    if set(last) != {"files", "sha256"}:
        raise ValueError("it has no last line with the hash of the others")
    if _manifest_hash(b"".join(map(_line, entries)), last["files"]) != last["sha256"]:
        raise ValueError("it differs from the hash in its last line")
    return entries, last["files"]


def _manifest_hash(lines: bytes, files: dict[str, str]) -> str:
    """Of everything in a manifest but this hash itself."""
    return hashlib.sha256(lines + _line({"files": files})).hexdigest()


def _truncate_torn_line(path: Path) -> None:
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def _done_shards(paths: Paths, description: Description) -> dict[int, dict[str, Any]]:
    """Entries of the shards that exist, by index: those with a whole line in some manifest and a file of that length."""
    lines: list[dict[str, Any]] = []
    if paths.manifest.exists():
        lines += _parse_manifest(paths.manifest.read_bytes())[0]
    for path in paths.parts():
        with contextlib.suppress(FileNotFoundError):
            data = path.read_bytes()
            lines += _parse_lines(data[: data.rfind(b"\n") + 1])
    done = {}
    for entry in lines:
        shard = paths.group / entry["path"]
        if shard.is_file() and shard.stat().st_size == entry["bytes"]:
            done[entry["first"] // description.rows] = entry
    return done


def _missing(paths: Paths) -> str:
    return f"there is no {paths.name} in {paths.root}: make it with `ood-data generate` or `ood-data data convert`, or look with `data list`"


def _read_attributes(paths: Paths) -> dict[str, Any]:
    document = paths.group / "zarr.json"
    if not document.is_file():
        raise FileNotFoundError(_missing(paths))
    try:
        attributes = json.loads(document.read_bytes())["attributes"][ATTRIBUTE]
        known = attributes["format"] == FORMAT and {"name", "spec", "source"} <= set(attributes)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise ValueError(f"{paths.group} is not a dataset store of format {FORMAT}: choose another folder")
    return dict(attributes)


def _check_same(paths: Paths, description: Description) -> None:
    """Raise, naming each difference, unless the store there is what is described or the beginning of it."""
    there = _read_attributes(paths)
    if there["name"] != description.name:
        raise ValueError(f"{paths.group} holds {there['name']}, not {description.name}: choose another --out")
    ours, theirs = json.loads(json.dumps(description.source)), there["source"]
    differences = [
        f"{key} is {theirs.get(key)} there, {ours.get(key)} here"
        for key in sorted(ours.keys() | theirs.keys())
        if ours.get(key) != theirs.get(key)
    ]
    if differences:
        raise ValueError(
            f"{paths.group} was made with other parameters ({'; '.join(differences)}): choose another --out, or --overwrite"
        )
    array = json.loads((paths.group / "images/zarr.json").read_bytes())
    if array["shape"][0] > description.shape[0]:
        raise ValueError(
            f"{paths.group} holds {array['shape'][0]:,} images, more than the {description.shape[0]:,} asked for: "
            "a store can be extended, not cut; choose another --out, or --overwrite"
        )
