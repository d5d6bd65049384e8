"""The manifest of a store: a JSON line per shard with its hash, and a last line with the hash of everything else.

While a store is written, each part appends to a manifest of its own; a shard exists from the moment its line does.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.description import ARRAY, GROUP, Description
from harness.data.names import part_manifests
from splits.errors import DamagedError

Entry = dict[str, Any]  # path (inside the group), bytes, sha256, first and last image

SHORTEST = 64  # bytes of a line: each holds a sha256
_SHARD = re.compile(r"images/c\.(0|[1-9]\d{0,17})\.0\.0\.0")
_TYPES = {"bytes": int, "first": int, "last": int, "path": str, "sha256": str}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Paths:
    """The places where the parts of a store lie."""

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

    @property
    def croissant(self) -> Path:
        """What the dataset is, for search engines; stores of before have none."""
        return self.root / f"{self.name}.croissant.json"

    @property
    def lock(self) -> Path:
        return self.root / f".{self.name}.lock"

    @property
    def pending(self) -> Path:
        """The documents that a finished store is to have, while it is extended: until then it keeps its own."""
        return self.root / f".{self.name}.pending.json"

    def part(self, part: tuple[int, int]) -> Path:
        return self.root / f"{self.name}.manifest.{part[0]}-of-{part[1]}.jsonl"

    def parts(self) -> list[Path]:
        """The manifests of parts that were begun."""
        return part_manifests(self.root, self.name)

    def is_begun(self, part: Path) -> bool:
        """Whether the manifest of a part has shards that are not in the finished manifest yet."""
        return _size(part) > 0

    def begun(self) -> bool:
        """Whether any part has."""
        return any(map(self.is_begun, self.parts()))

    def documents(self) -> dict[str, bytes]:
        """Those of the two zarr documents that are there, by path inside the group."""
        found = {}
        for name in (GROUP, ARRAY):
            with contextlib.suppress(FileNotFoundError):
                found[name] = _read(self.group / name)
        return found


def shard_path(index: int) -> str:
    """The path of a shard inside the group."""
    return f"images/c.{index}.0.0.0"


def shard_index(path: str) -> int:
    """Which shard a path inside the group is of; -1 if it is of none."""
    match = _SHARD.fullmatch(path)
    return int(match[1]) if match else -1


def line(entry: Entry) -> bytes:
    """The one spelling of an entry."""
    return json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def finished(entries: list[Entry], files: dict[str, str]) -> bytes:
    """A finished manifest: of the shards `entries`, in order, and the hashes of the other `files`."""
    lines = b"".join(map(line, entries))
    return lines + line({"files": files, "sha256": _hash(lines, files)})


def read_finished(path: Path) -> tuple[list[Entry], dict[str, str]]:
    """Shard entries and the other files' hashes of a finished manifest, after checking its own hash and that each says what it should.

    Raises:
        FileNotFoundError: if there is none.
        DamagedError: if anything in it is not as it was written.
    """
    data = _read(path)
    try:
        if not data.endswith(b"\n"):
            raise ValueError("its last line is cut")
        entries: list[Entry] = []
        last: Entry | None = None
        for entry in _parse(data):
            if last is not None:
                raise ValueError("a line in it is not of a shard")
            if _is_entry(entry):
                entries.append(entry)
            else:
                last = entry
        files = None if last is None else last.get("files")
        if last is None or set(last) != {"files", "sha256"} or not isinstance(files, dict):
            raise ValueError("it has no last line with the hash of the others")
        if _hash(b"".join(map(line, entries)), files) != last["sha256"]:
            raise ValueError("it differs from the hash in its last line")
        if not entries:
            raise ValueError("a line in it is not of a shard")
        if not {GROUP, ARRAY} <= set(files) or not all(map(_is_hash, files.values())):
            raise ValueError("its last line has no hashes of the zarr documents")
    except ValueError as error:
        raise DamagedError(f"{path} is damaged ({error}): the command that made the store restores it") from error
    return entries, files


def read_part(path: Path) -> list[Entry]:
    """The whole lines of a part's manifest; the last one may be cut, if the process was killed.

    Raises:
        DamagedError: if another line is not as it was written.
    """
    data = _read(path)
    try:
        entries = []
        for entry in _parse(data[: data.rfind(b"\n") + 1]):
            if not _is_entry(entry):
                raise ValueError("a line in it is not of a shard")
            entries.append(entry)
    except ValueError as error:
        raise DamagedError(f"{path} is damaged ({error}): delete it, and what it lists is made again") from error
    return entries


def salvaged(path: Path) -> list[Entry]:
    """The shards' lines of a damaged manifest that still read as they were written. What they say is a claim until it is hashed."""
    lines = map(_parsed, io.BytesIO(_read(path)))
    return [entry for entry in lines if entry is not None and _is_entry(entry)]


def cut_torn_line(path: Path) -> None:
    """Remove a last line that was not written to its end."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def parts_entries(paths: Paths) -> list[Entry]:
    """The entries of all parts that were begun."""
    entries = []
    for part in paths.parts():
        with contextlib.suppress(FileNotFoundError):  # merged meanwhile
            entries += read_part(part)
    return entries


def covers(entries: list[Entry], description: Description) -> bool:
    """Whether a manifest's entries are those of all shards that are described, in order, and long enough where that is known."""
    least = 1 if description.compress else description.rows * math.prod(description.shape[1:])
    return len(entries) == description.shards and all(
        entry["path"] == shard_path(index)
        and range(entry["first"], entry["last"] + 1) == description.rows_of(index)
        and entry["bytes"] >= least
        for index, entry in enumerate(entries)
    )


def _hash(lines: bytes, files: dict[str, str]) -> str:
    """The hash of everything in a manifest but the hash itself."""
    return hashlib.sha256(lines + line({"files": files})).hexdigest()


def _parse(data: bytes) -> Iterator[Entry]:
    """A line at a time, so that the first wrong one is the last one looked at."""
    for number, text in enumerate(io.BytesIO(data), start=1):
        entry = _parsed(text)
        if entry is None:
            raise ValueError(f"line {number} is not as it was written")
        yield entry


def _parsed(text: bytes) -> Entry | None:
    """What a line holds; None unless it is in the one spelling, so that no flipped bit passes."""
    if len(text) < SHORTEST:
        return None
    try:
        entry = json.loads(text.decode("utf-8"))
        return entry if isinstance(entry, dict) and line(entry) == text else None
    except (ValueError, RecursionError):
        return None


def _is_entry(entry: Entry) -> bool:
    return (
        {key: type(value) for key, value in entry.items()} == _TYPES
        and shard_index(entry["path"]) >= 0
        and _is_hash(entry["sha256"])
        and 0 <= entry["first"] <= entry["last"]
        and entry["bytes"] > 0
    )


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _read(path: Path) -> bytes:
    """A file's bytes; FileNotFoundError also where something else lies: a fifo would be waited for."""
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return path.read_bytes()


def _size(path: Path) -> int:
    """The bytes of a file, 0 if another process has removed it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
