"""The manifest of a store: a JSON line per shard with its hash, and a last line with the hash of everything else.

While a store is written, each part appends to a manifest of its own; a shard exists from the moment its line does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splits.errors import DamagedError

Entry = dict[str, Any]  # path (inside the group), bytes, sha256, first and last image


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

    @property
    def lock(self) -> Path:
        return self.root / f".{self.name}.lock"

    def part(self, part: tuple[int, int]) -> Path:
        return self.root / f"{self.name}.manifest.{part[0]}-of-{part[1]}.jsonl"

    def parts(self) -> list[Path]:
        """The manifests of parts that were begun."""
        return sorted(self.root.glob(f"{self.name}.manifest.*-of-*.jsonl"))

    def shard(self, index: int) -> str:
        """Path inside the group."""
        return f"images/c.{index}.0.0.0"


def line(entry: Entry) -> bytes:
    """The one spelling of an entry."""
    return json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def finished(entries: list[Entry], files: dict[str, str]) -> bytes:
    """A finished manifest: of the shards ``entries``, in order, and the hashes of the other ``files``."""
    lines = b"".join(map(line, entries))
    return lines + line({"files": files, "sha256": _hash(lines, files)})


def read_finished(path: Path) -> tuple[list[Entry], dict[str, str]]:
    """Shard entries and the other files' hashes of a finished manifest, after checking its own hash.

    Raises:
        DamagedError: if anything in it is not as it was written.
    """
    data = path.read_bytes()
    try:
        if not data.endswith(b"\n"):
            raise ValueError("its last line is cut")
        *entries, last = _parse(data)
        if set(last) != {"files", "sha256"}:
            raise ValueError("it has no last line with the hash of the others")
        if _hash(b"".join(map(line, entries)), last["files"]) != last["sha256"]:
            raise ValueError("it differs from the hash in its last line")
    except ValueError as error:
        raise DamagedError(f"{path} is damaged ({error}): --overwrite makes the store anew") from error
    return entries, last["files"]


def read_part(path: Path) -> list[Entry]:
    """The whole lines of a part's manifest; the last one may be cut, if the process was killed.

    Raises:
        DamagedError: if another line is not as it was written.
    """
    data = path.read_bytes()
    try:
        return _parse(data[: data.rfind(b"\n") + 1])
    except ValueError as error:
        raise DamagedError(f"{path} is damaged ({error}): delete it, and what it lists is made again") from error


def cut_torn_line(path: Path) -> None:
    """Remove a last line that was not written to its end."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        with path.open("r+b") as file:
            file.truncate(whole)


def is_complete(paths: Paths, images: int) -> bool:
    """Whether a store of so many images is finished: its manifest reaches the last one, and no part is being added.

    Raises:
        DamagedError: if the manifest is damaged.
    """
    if not paths.manifest.exists() or any(part.stat().st_size for part in paths.parts()):
        return False
    entries, _ = read_finished(paths.manifest)
    return bool(entries) and entries[-1]["last"] + 1 == images


def all_entries(paths: Paths) -> list[Entry]:
    """Of the finished manifest and of all parts."""
    entries = read_finished(paths.manifest)[0] if paths.manifest.exists() else []
    for part in paths.parts():
        with contextlib.suppress(FileNotFoundError):  # merged meanwhile
            entries += read_part(part)
    return entries


def _hash(lines: bytes, files: dict[str, str]) -> str:
    """Of everything in a manifest but this hash itself."""
    return hashlib.sha256(lines + line({"files": files})).hexdigest()


def _parse(data: bytes) -> list[Entry]:
    entries = []
    for number, text in enumerate(data.splitlines(keepends=True), start=1):
        entry = json.loads(text.decode("utf-8"))
        if not isinstance(entry, dict) or line(entry) != text:  # only one spelling is right, so no flipped bit passes
            raise ValueError(f"line {number} is not as it was written")
        entries.append(entry)
    return entries
