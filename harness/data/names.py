"""Which stores a folder holds, by name: without zarr, which takes a while to import."""

from __future__ import annotations

from pathlib import Path


def stores_in(root: str | Path) -> list[str]:
    """The names of the stores in a folder, whole or not; zarr groups of somebody else's, without our manifest, may be among them."""
    groups = sorted(group for group in Path(root).glob("*.zarr") if group.is_dir())
    return [group.stem for group in groups if (group / "zarr.json").exists() or any(group.parent.glob(f"{group.stem}.manifest*"))]
