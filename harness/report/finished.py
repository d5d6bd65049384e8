"""Where finished runs and records lie in a folder; without torch, so that what is missing is said at once."""

from __future__ import annotations

import re
from pathlib import Path

DEPTH = 4  # of a run's folder below that of all runs: dataset, kind, model, run
SCORES = "scores.json"
RECORD = re.compile(r"\d+-[0-9a-f]+\.json")


def runs_in(folder: Path) -> list[Path]:
    """The folders of finished runs: that one, or those in it, as deep as they lie in a folder of all runs; sorted."""
    return sorted(path.parent for path in _files(folder, SCORES, DEPTH))


def records_in(folder: Path) -> list[Path]:
    """The records in a folder, as deep as they lie in one of all records; sorted."""
    return sorted(path for path in _files(folder, "*.json", DEPTH - 1) if RECORD.fullmatch(path.name))


def _files(folder: Path, name: str, depth: int) -> list[Path]:
    return [path for above in range(depth + 1) for path in folder.glob("/".join(["*"] * above + [name]))]
