"""A kept result made again, and compared."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

import harness
from harness.models import find
from harness.models.lookup import is_own
from harness.report.result_record import ResultRecord
from harness.runs.config import fingerprint, images_of
from harness.runs.records import RunScores
from harness.runs.run import Run
from splits.errors import InputError

# How far R² may lie from the record's: of the mean over factors, and of each. Where processor and versions are the same nothing differs
# (measured). Rounding in another order makes another training, as another seed would: an MLP of 5,000 steps, made again without AVX,
# came out .05 away on CelebGlow and .6 on dSprites, both on extrapolation. So on another device, where records of other seeds are known,
# as much is allowed as two seeds may differ by: `SPREADS` times their standard deviation, which is two standard deviations of a
# difference of two, and of two seeds twice their difference.
MEAN_TOLERANCE, FACTOR_TOLERANCE = 0.03, 0.1
SPREADS = 2 * math.sqrt(2)


@dataclass(frozen=True)
class Replay:
    """What came of making a record's run again.

    Attributes:
        verdict: "agrees" or "differs", by the tolerances; "struck out": it can't be made again, and is no result any more.
        reason: in words.
        mean: how far the mean R² on test is from the record's, None if struck out.
        factors: the same of each factor.
        tolerance: how far the mean may be for "agrees".
        factor_tolerances: the same of each factor.
        by_seeds: whether these are wider than on the device of the record, by what other seeds differ.
    """

    verdict: Literal["agrees", "differs", "struck out"]
    reason: str
    mean: float | None = None
    factors: dict[str, float] | None = None
    tolerance: float | None = None
    factor_tolerances: dict[str, float] | None = None
    by_seeds: bool = False

    @property
    def ok(self) -> bool:
        """Whether the record stands."""
        return self.verdict == "agrees"

    def __str__(self) -> str:
        only = ", but only within what seeds differ by" if self.ok and self.by_seeds else ""
        return f"{self.verdict}{only}: {self.reason}"


def replay(
    record: ResultRecord,
    data: Path,
    out: Path,
    device: torch.device,
    seeds: Sequence[RunScores] = (),
    progress: Callable[[float], None] = lambda part: None,
) -> Replay:
    """Make a record's run again and compare.

    Args:
        record: of it.
        data: folder of the stores.
        out: folder of the run folders; a run that is done there already is taken, one that was interrupted is continued.
        device: where to compute.
        seeds: the record's scores and those of other seeds, which say how much seeds differ.
        progress: called often, with the part of the run that is done, 0 to 1.

    Raises:
        FileNotFoundError: if the dataset is not in `data`.
        ValueError: for a model of a user's, whose code is not run.
    """
    setup = record.setup
    if is_own(setup.model):  # a record is a stranger's file: it must not choose what code is imported
        raise InputError(
            f"a record of {setup.model} is not replayed, as that would run its code: if you trust it, run {record.command}"
        )
    model = find(setup.model)
    opened = harness.open(setup.dataset, data)
    images = images_of(opened)
    digest = fingerprint(setup.config, model, images)
    if digest != record.scores.fingerprint:
        return Replay("struck out", _what_changed(record, images, model.protocol))
    run = Run(data, out, setup.dataset, setup.kind, setup.model, setup.seed, setup.config, digest)
    return compared(record.scores, run.execute(device, progress), seeds)


def _what_changed(record: ResultRecord, images: dict[str, object], protocol: int) -> str:
    setup = record.setup
    if images["source"] != setup.source or images["images"] != setup.images:
        return f"{setup.dataset} here was made in another way: {setup.images:,} images of {setup.source} are expected"
    if protocol != setup.protocol.model:
        return f"{setup.model} is of version {protocol} of its protocol now, and was of {setup.protocol.model}"
    return f"the splits of {setup.dataset}, the code of {setup.model} or the protocol of scoring are not what they were"


def compared(before: RunScores, now: RunScores, seeds: Sequence[RunScores] = ()) -> Replay:
    """Whether scores agree with those of before: within the tolerances; on another device, else within what `seeds` may differ by."""
    mean = _distance(before.r2.mean, now.r2.mean)
    factors = {name: _distance(value, now.r2.factors.get(name)) for name, value in before.r2.factors.items()}
    usual = most, each = _tolerances(factors, ())
    if before.device != now.device and (mean > most or _far(factors, each)):
        most, each = _tolerances(factors, seeds)
    far = _far(factors, each)
    shown = f"R² {_shown(now.r2.mean)}, and {_shown(before.r2.mean)} in the record"
    by_seeds = (most, each) != usual
    verdict: Literal["agrees", "differs"] = "differs" if mean > most or far else "agrees"
    if mean > most:
        reason = f"{shown}: more than {most:.2g} apart"
    elif far:
        reason = f"{shown}, but too far apart: {', '.join(f'{name} by more than {each[name]:.2g}' for name in far)}"
    elif mean or any(factors.values()):
        reason = f"{shown}: within {most:.2g}, and each factor within {_range(each.values())}"
    else:
        reason = f"{shown}: the same to the last digit"
    if before.device != now.device and (verdict == "differs" or by_seeds):
        reason += f"; made on {before.device} and now on {now.device}, where a training may come out as with another seed"
    return Replay(verdict, reason, mean, factors, most, each, by_seeds)


def _tolerances(factors: Iterable[str], seeds: Sequence[RunScores]) -> tuple[float, dict[str, float]]:
    """How far the mean and each factor may be from the record's, at least as far as two of `seeds` may differ."""
    mean = max(MEAN_TOLERANCE, SPREADS * _deviation([run.r2.mean for run in seeds]))
    return mean, {
        name: max(FACTOR_TOLERANCE, SPREADS * _deviation([run.r2.factors.get(name) for run in seeds])) for name in factors
    }


def _far(distances: dict[str, float], tolerances: dict[str, float]) -> list[str]:
    """The factors that are farther than they may be."""
    return [name for name, distance in distances.items() if distance > tolerances[name]]


def _range(values: Collection[float]) -> str:
    """ "0.1", or "0.1 to 0.62"."""
    return " to ".join(dict.fromkeys(f"{value:.2g}" for value in (min(values), max(values))))


def _deviation(values: Sequence[float | None]) -> float:
    """The standard deviation of the scores that are there, 0 of fewer than two."""
    numbers = [value for value in values if value is not None]
    return statistics.stdev(numbers) if len(numbers) > 1 else 0.0


def _distance(a: float | None, b: float | None) -> float:
    """The distance between two scores; none where neither is there, and more than any where one is."""
    if a is None or b is None:
        return 0.0 if a is b else float("inf")
    return abs(a - b)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
