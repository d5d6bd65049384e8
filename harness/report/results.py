"""Finished runs, read back and averaged over seeds."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.models import MODELS
from harness.runs.run import CONFIG, SCORES, read_scores
from harness.scoring.baselines import NAMES
from splits import KINDS
from splits.errors import MissingError

logger = logging.getLogger(__name__)

# Extrapolation R² in percent, as the benchmark's repository cites the paper: all that is published in numbers.
PUBLISHED: dict[tuple[str, str], dict[str, float]] = {
    ("dsprites", "extrapolation"): {"pcl": 66.7, "densenet121": 64.4},
    ("shapes3d", "extrapolation"): {"resnet101": 67.8, "resnet50": 62.8},
    ("mpi3d", "extrapolation"): {"resnet50-in21k": 54.1, "resnet101-in21k": 41.6},
}


@dataclass(frozen=True)
class Entry:
    """A model on one split under one config: a row of a leaderboard.

    Attributes:
        dataset, kind, model: by name.
        config: hash of config, images and code.
        runs: scores.json of each seed.
        differs: the settings that tell it from the model's other rows on that split.
    """

    dataset: str
    kind: str
    model: str
    config: str
    runs: tuple[dict[str, Any], ...]
    differs: str = ""

    @property
    def label(self) -> str:
        """The model, and what tells it from its other rows."""
        return f"{self.model} ({self.differs})" if self.differs else self.model

    def mean(self, *path: str) -> float:
        """The mean over seeds of a number in scores.json, nan where a run has none."""
        values = self._values(path)
        return sum(values) / len(values)

    def deviation(self, *path: str) -> float:
        """The standard deviation over seeds (n − 1), nan for one seed."""
        values = self._values(path)
        if len(values) < 2:
            return math.nan
        mean = sum(values) / len(values)
        return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))

    @property
    def published(self) -> float | None:
        """The paper's R² of this model on this split, None if it gives none in numbers."""
        percent = PUBLISHED.get((self.dataset, self.kind), {}).get(self.model)
        return None if percent is None else percent / 100

    @property
    def first(self) -> dict[str, Any]:
        """One run's scores, for what all seeds share."""
        return self.runs[0]

    def _values(self, path: tuple[str, ...]) -> list[float]:
        values = []
        for run in self.runs:
            value: Any = run
            for key in path:
                value = None if value is None else value.get(key)
            values.append(math.nan if value is None else float(value))
        return values


def collect(out: Path) -> list[Entry]:
    """The finished runs in a folder of run folders, best first within each dataset and kind.

    Raises:
        FileNotFoundError: if there is none. A scores.json that is damaged or of another format is left out, with a warning.
    """
    found = []
    for path in sorted(out.glob(f"*/*/*/*/{SCORES}")):
        try:
            found.append((path.parent.name, read_scores(path.parent)))
        except ValueError as error:  # the others are worth a report
            logger.warning("left out: %s", error)
    if not found:
        raise MissingError(f"no finished run in {out}: make some with `ood-data bench --model cnn --out {out}`")
    configs = {}
    for path in sorted(out.glob(f"*/*/*/*/{CONFIG}")):
        with contextlib.suppress(ValueError, LookupError, TypeError):  # it is for the labels only
            described = json.loads(path.read_bytes())
            configs[path.parent.name.partition("-")[2]] = _settings(described["config"]) | {"images": f"{described['images']:,}"}
    return _told_apart(entries(found), configs)


def _settings(config: dict[str, Any]) -> dict[str, str]:
    """{"model.beta": "4.0", …} of a resolved config."""
    flat = {"preset": str(config.pop("preset"))}
    for section, values in config.items():
        flat |= {f"{section}.{name}": str(value) for name, value in values.items()}
    return flat


def _told_apart(rows: list[Entry], configs: dict[str, dict[str, str]]) -> list[Entry]:
    """Rows of one model on one split say in which settings they differ; by their hashes if in none, as a user's code may."""
    told = []
    for row in rows:
        alike = {each.config for each in rows if (each.dataset, each.kind, each.model) == (row.dataset, row.kind, row.model)}
        own, others = configs.get(row.config, {}), [configs.get(config, {}) for config in alike - {row.config}]
        names = [name for name, value in own.items() if any(other.get(name, value) != value for other in others)]
        # A preset differs in what it sets: short of that, its name is enough.
        of_preset = [name for name in names if name in ("preset", "images")]
        names = of_preset if "preset" in names and all(other.get("preset") != own["preset"] for other in others) else names
        differs = ", ".join(f"{name.removeprefix('model.')}={own[name]}" for name in names) if others else ""
        unique = not others or sum(all(o.get(n) == own[n] for n in names) for o in others) == 0
        told.append(replace(row, differs=differs if unique else f"{differs} {row.config}".strip()))
    return told


def entries(runs: Iterable[tuple[str, dict[str, Any]]]) -> list[Entry]:
    """Runs, each with the name of its folder, as leaderboard rows."""
    grouped: dict[tuple[str, str, str, str], list[dict[str, Any]]] = {}
    for folder, scores in runs:
        key = (scores["dataset"], scores["kind"], scores["model"], folder.partition("-")[2])
        grouped.setdefault(key, []).append(scores)
    rows = [Entry(*key, runs=tuple(sorted(group, key=lambda run: int(run["seed"])))) for key, group in grouped.items()]
    return sorted(rows, key=lambda row: (row.dataset, KINDS.index(row.kind), -row.mean("r2", "mean")))


def score_table(rows: list[Entry]) -> list[list[str]]:
    """Header and rows of text: R² of each model, and of the reference predictors below the models of their split."""
    lines = [["dataset", "kind", "model", "R² test", "excl. cat.", "R² train", "published", "seeds", "steps", "n test", "preset"]]
    for position, row in enumerate(rows):
        first = row.first
        published = "" if row.published is None else f"{row.published:.3f}"
        shown = [number(row.mean("r2", "mean"), row.deviation("r2", "mean"))]
        shown += [number(row.mean("r2", "mean_excl_categorical")), number(row.mean("train", "r2", "mean")), published]
        counts = [str(len(row.runs)), f"{first['steps']:,}", f"{first['n_test']:,}", first["preset"]]
        lines.append([row.dataset, row.kind, row.label, *shown, *counts])
        following = rows[position + 1] if position + 1 < len(rows) else None
        if following is None or (following.dataset, following.kind) != (row.dataset, row.kind):
            for name in NAMES:
                reference = first["reference"][name]
                both = [number(reference["mean"]), number(reference["mean_excl_categorical"])]
                lines.append([row.dataset, row.kind, f"({name.replace('_', '-')})", *both, "", "", "", "", "", ""])
    return lines


def number(value: float | None, deviation: float = math.nan) -> str:
    """`0.123`, `0.123 ± 0.045`, or `–` where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:z.3f}" if math.isnan(deviation) else f"{value:z.3f} ± {deviation:.3f}"


def families_of(rows: Iterable[Entry]) -> dict[str, str]:
    """The family of each model in the rows."""
    return {row.model: MODELS[row.model].family if row.model in MODELS else "user" for row in rows}
