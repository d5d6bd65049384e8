"""A store of a few tiny random images, and manifests that agree with themselves and are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.data.manifest import Entry
from harness.data.store import Description

ROWS, SIDE = 5, 4
SPEC = {"name": "toy", "factor": [{"name": "a", "size": 4, "kind": "ordinal"}]}


def description(images: int = 20, compress: bool = False, **source: Any) -> Description:
    return Description("toy", (images, SIDE, SIDE, 3), ROWS, compress, SPEC, {"seed": 0} | source)


def pictures(shard: int, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(shard).integers(0, 256, (rows, SIDE, SIDE, 3), dtype=np.uint8)


def rows_of(images: int, shard: int) -> int:
    return min(ROWS, images - shard * ROWS)


FORGED: dict[str, Callable[[list[Entry], dict[str, str]], object]] = {
    "without bytes": lambda entries, files: entries[0].pop("bytes"),
    "a path that is a number": lambda entries, files: entries[0].update(path=5),
    "a path outside": lambda entries, files: entries[0].update(path="../../../etc/passwd"),
    "a length that is true": lambda entries, files: entries[0].update(bytes=True),
    "a hash that is none": lambda entries, files: entries[0].update(sha256="x"),
    "no shards": lambda entries, files: entries.clear(),
    "no documents": lambda entries, files: files.clear(),
    "a document's hash that is none": lambda entries, files: files.update({"zarr.json": "1"}),
    "a file outside": lambda entries, files: files.update({"../secret": "0" * 64}),
    "no card": lambda entries, files: files.pop("toy.md"),
}
