"""Finished runs and records, read back from folders of anybody's."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from harness.models import MODELS
from harness.report.finished import records_in, runs_in
from harness.report.leaderboard import LeaderboardRow, Source, leaderboard, with_sources
from harness.report.result_record import ResultRecord
from harness.runs.presets import is_plain
from harness.runs.records import CONFIG, SCORES, RunScores, RunSetup, finished_at
from harness.scoring.baselines import BASELINES
from splits import Kind
from splits.errors import InputError, MissingError

logger = logging.getLogger(__name__)

Grid = tuple[str, tuple[str, ...], int]
Read = tuple[RunScores, Source]


def collect(out: Path) -> list[LeaderboardRow]:
    """The finished runs in a folder of run folders, or of records, or in a part of one, best first within each dataset and kind.

    Runs on several grids of one name, such as CelebGlow of other people or attributes, are told apart, and so are those on splits of
    one name that hold out other values: the grid or split of most runs keeps the name. A document that is damaged, or of a format that
    isn't known here, is named in a warning: a run without scores is left out, one without a config has its settings left out.

    Raises:
        FileNotFoundError: if there is no finished run.
    """
    read: list[Read] = []
    for path in sorted([*(run / SCORES for run in runs_in(out)), *records_in(out)]):
        try:
            scores, setup = _read(path)
        except (InputError, OSError) as error:  # the others are worth a report
            logger.warning("left out: %s", error)
            continue
        read.append((scores, Source(path, setup)))
    found: dict[tuple[object, ...], RunScores] = {}
    sources: dict[tuple[object, ...], Source] = {}
    configs: dict[str, dict[str, str]] = {}
    finished: dict[str, float] = {}
    plain: set[str] = set()
    for scores, source in _splits_apart(_grids_apart(read)):
        path, setup = source.path, source.setup
        key = _key(scores)
        if key in found:
            logger.warning("left out: %s is a copy of another run of the same seed", path)
            continue
        found[key], sources[key] = scores, source
        if (when := finished_at(scores, path)) is not None:
            finished[scores.fingerprint] = min(when, finished.get(scores.fingerprint, math.inf))
        if setup is not None:
            configs[scores.fingerprint] = setup.settings()
            if scores.model in MODELS and is_plain(MODELS[scores.model], setup.config):
                plain.add(scores.fingerprint)
    if not found:
        raise MissingError(
            f"no finished run in {out}: give the folder of your runs, or make some with `ood-data bench --model cnn`"
        )
    return with_sources(leaderboard(found.values(), plain, configs, finished), lambda scores: sources[_key(scores)])


def _grids_apart(read: Sequence[Read]) -> list[Read]:
    """Runs with the name of their grid for that of their dataset."""
    names = _names_of_grids(_grid(*each) for each in read)
    return [(_renamed(scores, names[_grid(scores, source)]), source) for scores, source in read]


def _splits_apart(read: Sequence[Read]) -> list[Read]:
    """Runs on a split of the same name as that of most, but with other held-out values, as those of another dataset.

    Baselines see no image, so that what they score tells which split it is.
    """
    splits: dict[tuple[str, Kind], list[list[int]]] = {}
    for number, (scores, _) in enumerate(read):
        found = splits.setdefault((scores.dataset, scores.kind), [])
        alike = next((group for group in found if _is_one_split(read[group[0]][0], scores)), None)
        if alike is None:
            found.append([number])
        else:
            alike.append(number)
    told = list(read)
    for (dataset, _), groups in splits.items():
        for place, group in enumerate(sorted(groups, key=len, reverse=True)[1:], 2):
            for number in group:
                told[number] = _renamed(read[number][0], f"{dataset} (another split, {place})"), read[number][1]
    return told


def _is_one_split(one: RunScores, other: RunScores) -> bool:
    values = ([each.reference[name].factors.values() for name in BASELINES] for each in (one, other))
    first, second = (np.array([list(line) for line in lines], float) for lines in values)
    return first.shape == second.shape and np.allclose(first, second, rtol=0, atol=1e-6, equal_nan=True)


def _renamed(scores: RunScores, dataset: str) -> RunScores:
    return scores if scores.dataset == dataset else scores.model_copy(update={"dataset": dataset})


def _grid(scores: RunScores, source: Source) -> Grid:
    """A dataset, its factors, and how many images it has, 0 if a run does not say."""
    return scores.dataset, tuple(scores.r2.factors), source.setup.images if source.setup else 0


def _names_of_grids(grids: Iterable[Grid]) -> dict[Grid, str]:
    """What to call the grid of each run: by the dataset's name, or with what it has where there are several."""
    names: dict[Grid, str] = {}
    for grid, _ in sorted(Counter(grids).items(), key=lambda item: (not item[0][2], -item[1])):
        dataset, factors, images = grid
        alike = next((name for (*other, _), name in names.items() if not images and other == [dataset, factors]), None)
        taken = dataset in names.values()
        names[grid] = alike or (f"{dataset} ({images:,} images of {', '.join(factors)})" if taken else dataset)
    return names


def _key(scores: RunScores) -> tuple[object, ...]:
    return scores.dataset, scores.kind, scores.model, scores.fingerprint, scores.seed


def _read(path: Path) -> tuple[RunScores, RunSetup | None]:
    """What a run's folder or a record says; without a config that can't be read, which is for the labels only."""
    if path.name != SCORES:
        record = ResultRecord.read(path)
        return record.scores, record.setup
    scores = RunScores.read(path)
    try:
        return scores, RunSetup.read(path.with_name(CONFIG))
    except (InputError, OSError) as error:
        logger.warning("its settings are left out: %s", error)
        return scores, None
