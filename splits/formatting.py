"""Factor values, samples and tables as text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from splits.grid import Factor, FactorGrid


@dataclass(frozen=True)
class Report:
    """One answer in two forms: `lines` to print and `data` for JSON. `ok` is False where the answer is bad news."""

    lines: tuple[str, ...]
    data: dict[str, Any]
    ok: bool = True

    def with_line(self, line: str) -> Report:
        """The same with another line at the end, unless that is empty."""
        return replace(self, lines=(*self.lines, line)) if line else self


def named(factor: Factor, indices: Sequence[int]) -> str:
    """`36-39`, `2, 7, 12`, or with names `brown (4), olive (5)`."""
    if factor.values is not None:
        return ", ".join(f"{factor.label(index)} ({index})" for index in indices)
    return ", ".join(_runs(indices)) or "none"


def sample(grid: FactorGrid, index: int) -> str:
    """`sample 7 (color=white, shape=cone)`."""
    values = zip(grid, grid.factors(index).tolist(), strict=True)
    return f"sample {index} ({', '.join(f'{factor.name}={factor.label(value)}' for factor, value in values)})"


def table(rows: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """The rows as lines, indented, with their columns aligned."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return tuple("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def wrapped_table(rows: Iterable[Sequence[str]], width: int = 80) -> tuple[str, ...]:
    """Lay out rows as `table` does, no line longer than `width`: the last column is wrapped, each of its paragraphs by itself."""
    rows = list(rows)
    *lead, _ = zip(*rows, strict=True)
    widths = [max(map(len, column)) for column in lead]
    room = max(20, width - 2 - sum(widths) - 2 * len(widths))
    lines: list[str] = []
    for *cells, last in rows:
        start = "  " + "".join(f"{cell:<{size}}  " for cell, size in zip(cells, widths, strict=True))
        for line in [line for paragraph in last.splitlines() for line in textwrap.wrap(paragraph, room)] or [""]:
            lines.append((start + line).rstrip())
            start = " " * len(start)
    return tuple(lines)


def _runs(indices: Sequence[int]) -> list[str]:
    """Three and more consecutive indices as one range."""
    runs: list[list[int]] = []
    previous = -math.inf
    for index in indices:
        if index != previous + 1:
            runs.append([])
        runs[-1].append(index)
        previous = index
    return [f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
