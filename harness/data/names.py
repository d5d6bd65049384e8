"""Which stores a folder holds, by name: without zarr, which takes a while to import."""

from __future__ import annotations

import contextlib
from pathlib import Path

OURS = b'"ood_data"'  # the key of our attributes in a group's zarr.json


def stores_in(root: str | Path) -> list[str]:
    """The names of the stores in a folder, whole or not; zarr groups of somebody else's are left out."""
    return [group.stem for group in sorted(Path(root).glob("*.zarr")) if group.is_dir() and _is_ours(group)]


def _is_ours(group: Path) -> bool:
    """Whether a manifest of ours lies beside a group, or its document has our attributes."""
    if any(path.name.startswith(f"{group.stem}.manifest.") for path in group.parent.glob("*.jsonl")):
        return True
    with contextlib.suppress(OSError):
        return OURS in (group / "zarr.json").read_bytes()
    return False
