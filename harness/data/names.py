"""Which stores a folder holds, by name: without zarr, which takes a while to import."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

OURS = b'"ood_data"'  # the key of our attributes in a group's zarr.json


def stores_in(root: str | Path) -> list[str]:
    """The names of the stores in a folder, whole or not; zarr groups of somebody else's are left out."""
    return [group.stem for group in sorted(Path(root).glob("*.zarr")) if group.is_dir() and _is_ours(group)]


def part_manifests(root: Path, name: str) -> list[Path]:
    """The manifests of parts of a store that were begun."""
    ours = re.compile(re.escape(name) + r"\.manifest\.\d+-of-\d+\.jsonl")  # no glob: a name may hold its characters
    return sorted(path for path in root.iterdir() if ours.fullmatch(path.name)) if root.is_dir() else []


def _is_ours(group: Path) -> bool:
    """Whether a manifest of ours lies beside a group, or its document has our attributes."""
    with contextlib.suppress(OSError):
        if OURS in (group / "zarr.json").read_bytes():
            return True
    return (group.parent / f"{group.stem}.manifest.jsonl").exists() or bool(part_manifests(group.parent, group.stem))
