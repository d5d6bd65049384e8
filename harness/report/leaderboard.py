"""Finished runs, read back and averaged over seeds: the rows of leaderboards."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from harness.models import MODELS
from harness.models.lookup import is_own
from harness.runs.records import RunScores, RunSetup
from harness.scoring.records import Baseline, BaselineName
from splits import KINDS, Kind

logger = logging.getLogger(__name__)

# Extrapolation R² in percent, in the README of the benchmark's repository (bethgelab/InDomainGeneralizationBenchmark) since July 2021.
# Seeds and selection are not stated there.
PUBLISHED: dict[tuple[str, str], dict[str, float]] = {
    ("dsprites", "extrapolation"): {"pcl": 66.7, "densenet121": 64.4},
    ("shapes3d", "extrapolation"): {"resnet101": 67.8, "resnet50": 62.8},
    ("mpi3d", "extrapolation"): {"resnet50-in21k": 54.1, "resnet101-in21k": 41.6},
}
LONGEST_VALUE, LONGEST_DIFFERENCE = 60, 300  # characters, of a setting's value and of all that a row's label shows
UNTRAINED = "untrained"
NOTHING: Mapping[str, dict[str, str]] = MappingProxyType({})
NEVER: Mapping[str, float] = MappingProxyType({})
Number = Callable[[RunScores], float | None]


@dataclass(frozen=True)
class Source:
    """Where the scores of one seed were read.

    Attributes:
        path: of scores.json in a run's folder, or of a record.
        setup: its config, None if that can't be read.
    """

    path: Path
    setup: RunSetup | None


@dataclass(frozen=True)
class LeaderboardRow:
    """A model on one split under one config.

    Attributes:
        dataset, kind, model: by name.
        fingerprint: of config, images and code.
        runs: the scores of each seed.
        differs: what tells it from the model's other configs on that dataset: settings, and that it was not trained at all.
        plain: whether it is of a preset without overrides.
        variant: the place of this config among those of the model on that dataset, by when they were finished.
        sources: of each seed, in the order of `runs`; empty of runs that were not read from files.
    """

    dataset: str
    kind: Kind
    model: str
    fingerprint: str
    runs: tuple[RunScores, ...]
    differs: str = ""
    plain: bool = False
    variant: int = 0
    sources: tuple[Source, ...] = ()

    @property
    def label(self) -> str:
        """The model, and what tells it from its other rows."""
        return f"{self.model} ({self.differs})" if self.differs else self.model

    @property
    def family(self) -> str:
        """The model's family."""
        return MODELS[self.model].family if self.model in MODELS else "user"

    def mean(self, of: Number) -> float:
        """The mean over seeds of a number of their scores, nan where a run has none."""
        values = self._values(of)
        return sum(values) / len(values)

    def deviation(self, of: Number) -> float:
        """The standard deviation over seeds (n − 1), nan for one seed."""
        values = self._values(of)
        if len(values) < 2:
            return math.nan
        mean = sum(values) / len(values)
        return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))

    @property
    def r2(self) -> float:
        """The mean R² on test over factors and seeds: what rows are ranked by."""
        return self.mean(lambda run: run.r2.mean)

    def factor_r2(self, factor: str) -> float:
        """The mean R² on test over seeds."""
        return self.mean(lambda run: run.r2.factors.get(factor))

    @property
    def published(self) -> float | None:
        """The published R² of this model on this split; None where there is none, or the row is not of the preset `full` as it is."""
        if not self.plain or self.first.preset != "full":
            return None
        percent = PUBLISHED.get((self.dataset, self.kind), {}).get(self.model)
        return None if percent is None else percent / 100

    @property
    def first(self) -> RunScores:
        """One run's scores, for what all seeds share."""
        return self.runs[0]

    def _values(self, of: Number) -> list[float]:
        return [math.nan if (value := of(run)) is None else value for run in self.runs]


def by_split(rows: Iterable[LeaderboardRow]) -> list[list[LeaderboardRow]]:
    """The rows of each split, in the order of the first of them."""
    splits: dict[tuple[str, Kind], list[LeaderboardRow]] = {}
    for row in rows:
        splits.setdefault((row.dataset, row.kind), []).append(row)
    return list(splits.values())


def headline_first(rows: Iterable[LeaderboardRow]) -> list[list[LeaderboardRow]]:
    """The rows of each split, by dataset, and of a dataset extrapolation first, as a report shows them."""
    return sorted(by_split(rows), key=lambda members: (members[0].dataset, -KINDS.index(members[0].kind)))


def references(rows: Iterable[LeaderboardRow]) -> Mapping[BaselineName, Baseline]:
    """The baselines of a split, by those of its rows' scores that say most of them: older ones lack R² on train."""
    return max((run.reference for row in rows for run in row.runs), key=lambda found: found["train_mean"].train is not None)


def with_sources(rows: Iterable[LeaderboardRow], source: Callable[[RunScores], Source]) -> list[LeaderboardRow]:
    """Rows that say where each of their runs was read."""
    return [replace(row, sources=tuple(map(source, row.runs))) for row in rows]


def leaderboard(
    runs: Iterable[RunScores],
    plain: Container[str] = (),
    configs: Mapping[str, dict[str, str]] = NOTHING,
    finished: Mapping[str, float] = NEVER,
) -> list[LeaderboardRow]:
    """Runs as rows, best first within each dataset and kind.

    Args:
        runs: their scores.
        plain: the fingerprints of those of a preset without overrides.
        configs: their settings by fingerprint, as far as they are known: what rows of one model are labelled with.
        finished: when the first of each fingerprint was finished, in seconds since 1970, as far as that is known.
    """
    grouped: dict[tuple[str, Kind, str, str], list[RunScores]] = {}
    for scores in runs:
        grouped.setdefault((scores.dataset, scores.kind, scores.model, scores.fingerprint), []).append(scores)
    rows = [
        LeaderboardRow(
            *key,
            runs=tuple(sorted(group, key=lambda run: run.seed)),
            differs="" if any(run.steps for run in group) else UNTRAINED,
            plain=key[3] in plain,
        )
        for key, group in grouped.items()
    ]
    return _with_differences(sorted(rows, key=lambda row: (row.dataset, KINDS.index(row.kind), -row.r2)), configs, finished)


def _with_differences(
    rows: list[LeaderboardRow], configs: Mapping[str, dict[str, str]], finished: Mapping[str, float]
) -> list[LeaderboardRow]:
    """Rows of one model on one dataset say in which settings they differ; if in none, as a user's code may, which came when.

    On all kinds of split, so that a config has one label, and is one row of a table over kinds.
    """
    alike: dict[tuple[str, str, bool], set[str]] = {}
    for row in rows:
        alike.setdefault((row.dataset, row.model, not row.first.steps), set()).add(row.fingerprint)  # UNTRAINED tells enough
    labelled = []
    for row in rows:
        own = configs.get(row.fingerprint, {})
        order = sorted(alike[row.dataset, row.model, not row.first.steps], key=lambda each: (finished.get(each, 0.0), each))
        others = [configs.get(other, {}) for other in order if other != row.fingerprint]
        differs = [row.differs, _difference(own, others, _version(row, order, finished))]
        labelled.append(replace(row, differs=", ".join(filter(None, differs)), variant=order.index(row.fingerprint)))
    return labelled


def _version(row: LeaderboardRow, order: Sequence[str], finished: Mapping[str, float]) -> str:
    """What tells a version of a user's code from others: which it is, and from when; its fingerprint where that is not known."""
    if not is_own(row.model) or any(each not in finished for each in order):
        return row.fingerprint
    when = datetime.fromtimestamp(finished[row.fingerprint], UTC)
    return f"version {order.index(row.fingerprint) + 1} of {len(order)}, {when:%Y-%m-%d %H:%M} UTC"


def _difference(own: dict[str, str], others: list[dict[str, str]], version: str) -> str:
    """The settings in which a row differs from others of its model; its version too, if they don't tell it from all."""
    if not others:
        return ""
    names = [name for name, value in own.items() if any(other.get(name, value) != value for other in others)]
    # A preset differs in what it sets: short of that, its name is enough.
    if "preset" in names and all(other.get("preset") != own["preset"] for other in others):
        names = ["preset"]
    whole = ", ".join(f"{name.removeprefix('model.')}={_short(own[name], LONGEST_VALUE)}" for name in names)
    differs = _short(whole, LONGEST_DIFFERENCE)
    if differs != whole or any(all(other.get(name) == own[name] for name in names) for other in others):
        return f"{differs} {version}".strip()
    return differs


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def mixtures(rows: Sequence[LeaderboardRow]) -> list[str]:
    """What rows, or the seeds of one, differ in that makes numbers less comparable; in words, a line each.

    Versions of Python and packages are compared where the rows' sources tell them.
    """
    runs = [run for row in rows for run in row.runs]
    versions = {model: {run.protocol.model for run in runs if run.model == model} for model in {run.model for run in runs}}
    scoring: dict[
        tuple[str, str], set[int]
    ] = {}  # of a split: all images of a small dataset are scored, and a sample of a large one
    for run in runs:
        scoring.setdefault((run.dataset, run.kind), set()).add(run.protocol.score)
    told: dict[str, list[set[str]]] = {  # of each row
        "presets": [{run.preset for run in row.runs} for row in rows],
        "devices": [{run.device for run in row.runs} for row in rows],
        "versions of a model's protocol": [
            {f"{run.model} {run.protocol.model}" for run in row.runs if len(versions[run.model]) > 1} for row in rows
        ],
        "versions of scoring": [
            {str(run.protocol.score) for run in row.runs if len(scoring[run.dataset, run.kind]) > 1} for row in rows
        ],
    }
    setups = [[source.setup for source in row.sources if source.setup is not None] for row in rows]
    for package in sorted({package for each in setups for setup in each for package in setup.versions}):
        told[f"versions of {package}"] = [
            {setup.versions[package] for setup in each if package in setup.versions} for each in setups
        ]
    return [_mixture(what, values) for what, values in told.items() if len(set().union(*values)) > 1]


def _mixture(what: str, values: Sequence[set[str]]) -> str:
    """A line about what rows mix, and how many of them in one average."""
    averages = sum(len(each) > 1 for each in values)
    within = f"; {averages} {'average is' if averages == 1 else 'averages are'} over several of them" if averages else ""
    return f"These runs mix {what}: {', '.join(sorted(set().union(*values)))}{within}."
