"""How sure a row's mean R² is, and which rows share a rank because nothing tells them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.leaderboard import LeaderboardRow
from harness.runs.maps import RunMaps

# Student's t, two-sided 95 %, by degrees of freedom; beyond ten, that of ten, which is a little wider than it need be.
T95 = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
NORMAL95 = 1.960


@dataclass(frozen=True)
class Interval:
    """A 95 % interval of a mean R².

    Attributes:
        half: its half width, nan if nothing is known.
        how: what it is over, in words.
    """

    half: float
    how: str


def interval(row: LeaderboardRow, maps: RunMaps | None) -> Interval:
    """Over seeds, by Student's t, where there are several; else over the samples that were scored, as far as the run says."""
    count = len(row.runs)
    if count > 1:
        deviation = row.deviation(lambda run: run.r2.mean)
        return Interval(T95[min(count - 1, 10)] * deviation / math.sqrt(count), f"{count} seeds, 95 % by Student's t")
    if maps is None or maps.sampling.mean is None:
        return Interval(math.nan, "1 seed; how far a seed or the sample moves it is not known")
    if maps.sampling.mean == 0:
        return Interval(math.nan, "1 seed, all of test scored: how far another seed would lie is not known")
    half = NORMAL95 * maps.sampling.mean
    return Interval(
        half, f"1 seed: 95 % of the sampling error of {row.first.n_test:,} test images; another seed may lie further off"
    )


def ranks(rows: Sequence[LeaderboardRow], intervals: Sequence[Interval]) -> list[tuple[int, int] | None]:
    """The ranks that each row of one split may have, (best, worst): rows whose intervals overlap, or which round to the same two
    digits, are not told apart. A row of which no interval is known has no rank, and is told from no other."""
    found: list[tuple[int, int] | None] = []
    for row, own in zip(rows, intervals, strict=True):
        better = worse = 0
        for other, theirs in zip(rows, intervals, strict=True):
            distance = other.r2 - row.r2
            if abs(distance) > max(math.hypot(own.half, theirs.half), 0.005):  # never of a nan
                better, worse = better + (distance > 0), worse + (distance < 0)
        found.append(None if math.isnan(own.half) else (better + 1, len(rows) - worse))
    return found
