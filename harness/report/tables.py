"""Rows of leaderboards as tables of text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from harness.report.leaderboard import LeaderboardRow, by_split, mixtures, references
from harness.scoring import baselines
from harness.scoring.records import Baseline
from splits import KINDS

HEADER = ("dataset", "kind", "model", "R² test", "excl. cat.", "R² train", "published", "seeds", "steps", "n test", "preset")


def score_table(rows: list[LeaderboardRow]) -> list[list[str]]:
    """Header and rows of text: R² of each model, and of the baselines below the models of their split, but those that are perfect there.

    The column `published` is left out where it would be empty.
    """
    lines = [list(HEADER)]
    for members in by_split(rows):
        split = [members[0].dataset, members[0].kind]
        for row in members:
            first = row.first
            shown = [
                score_text(row.r2, row.deviation(lambda run: run.r2.mean)),
                score_text(row.mean(lambda run: run.r2.mean_excl_categorical)),
                score_text(row.mean(lambda run: run.train.r2.mean)),
                "" if row.published is None else f"{row.published:.3f}",
            ]
            counts = [str(len(row.runs)), f"{first.steps:,}", f"{first.n_test:,}", first.preset]
            lines.append([*split, row.label, *shown, *counts])
        told = references(members)
        for name in baselines.BASELINES:
            if not is_perfect(baseline := told[name]):
                both = [score_text(baseline.mean), score_text(baseline.mean_excl_categorical)]
                train = "" if baseline.train is None else score_text(baseline.train.mean)
                lines.append([*split, baselines.label(name), *both, train, "", "", "", "", ""])
    if not any(row.published is not None for row in rows):
        place = HEADER.index("published")
        return [line[:place] + line[place + 1 :] for line in lines]
    return lines


def notes(rows: Sequence[LeaderboardRow]) -> list[str]:
    """What a reader of the tables has to know of their numbers, a line each."""
    return [*spread(rows), *mixtures(rows)]


def spread(rows: Sequence[LeaderboardRow]) -> list[str]:
    """What ± is, if it stands in a table of these rows."""
    return ["± is the standard deviation over seeds."] if any(len(row.runs) > 1 for row in rows) else []


def is_perfect(baseline: Baseline) -> bool:
    """Whether a baseline is always right, as one is where train has every value: it says nothing about a model then."""
    return baseline.mean is not None and f"{baseline.mean:.3f}" == "1.000"


def score_text(value: float | None, deviation: float = math.nan) -> str:
    """`0.123`, `0.123 ± 0.045`, or `–` where there is none."""
    if value is None or math.isnan(value):
        return "–"
    shown = f"{value:z.3f}" if abs(value) < 1e6 else f"{value:.3g}"
    if math.isnan(deviation):
        return shown
    return f"{shown} ± {deviation:.3f}" if deviation < 1e6 else f"{shown} ± {deviation:.3g}"


def overviews(rows: Iterable[LeaderboardRow]) -> list[tuple[str, list[list[str]]]]:
    """A table for each dataset: R² on test of each model and baseline, by kind of split; the best on
    the last kind first. A baseline that is perfect on a split says nothing there, and is left out."""
    tables = []
    for dataset, group in itertools.groupby(sorted(rows, key=lambda row: row.dataset), key=lambda row: row.dataset):
        members = list(group)
        kinds = [kind for kind in KINDS if any(row.kind == kind for row in members)]
        by_label: dict[str, dict[str, LeaderboardRow]] = {}
        for row in members:
            by_label.setdefault(row.label, {})[row.kind] = row
        ranked = sorted(
            by_label.items(), key=lambda item: [-item[1][kind].r2 if kind in item[1] else math.inf for kind in kinds[::-1]]
        )
        lines = [["model", *kinds, "seeds", "steps"]]
        for label, of_kinds in ranked:
            numbers = [_r2(of_kinds.get(kind)) for kind in kinds]
            found = of_kinds.values()
            lines.append([label, *numbers, _span(len(row.runs) for row in found), _span(row.first.steps for row in found)])
        told = [references(row for row in members if row.kind == kind) for kind in kinds]
        for name in baselines.BASELINES:
            numbers = ["" if is_perfect(each[name]) else score_text(each[name].mean) for each in told]
            if any(numbers):
                lines.append([baselines.label(name), *numbers, "", ""])
        tables.append((dataset, lines))
    return tables


def _r2(row: LeaderboardRow | None) -> str:
    return "–" if row is None else score_text(row.r2, row.deviation(lambda run: run.r2.mean))


def _span(numbers: Iterable[int]) -> str:
    """`5` or `3 to 5`."""
    found = list(numbers)
    return f"{min(found):,}" if min(found) == max(found) else f"{min(found):,} to {max(found):,}"
