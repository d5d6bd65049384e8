"""A kept result made again, and compared."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
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
# came out .05 away on CelebGlow and .6 on dSprites, both on extrapolation. So where records of other seeds are known, as much is
# allowed as two seeds differ by: `SPREADS` times their standard deviation.
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
    """

    verdict: Literal["agrees", "differs", "struck out"]
    reason: str
    mean: float | None = None
    factors: dict[str, float] | None = None

    @property
    def ok(self) -> bool:
        """Whether the record stands."""
        return self.verdict == "agrees"


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
    """Whether scores agree with those of before, within the tolerances; on another processor, or within what `seeds` differ by."""
    same = before.device == now.device
    spread = 0.0 if same else SPREADS * _deviation([run.r2.mean for run in seeds])
    most = max(MEAN_TOLERANCE, spread)
    factors = {name: _distance(value, now.r2.factors.get(name)) for name, value in before.r2.factors.items()}
    mean = _distance(before.r2.mean, now.r2.mean)
    spreads = {name: 0.0 if same else SPREADS * _deviation([run.r2.factors.get(name) for run in seeds]) for name in factors}
    far = [name for name, distance in factors.items() if distance > max(FACTOR_TOLERANCE, spreads[name])]
    shown = f"R² {_shown(now.r2.mean)}, and {_shown(before.r2.mean)} in the record"
    where = "" if same else f"; made on {before.device} and now on {now.device}, where a training may come out as with another seed"
    if mean > most:
        return Replay("differs", f"{shown}: more than {most:.2g} apart{where}", mean, factors)
    if far:
        return Replay("differs", f"{shown}, but {', '.join(far)} too far apart{where}", mean, factors)
    return Replay("agrees", shown if mean else f"{shown}: the same to the last digit", mean, factors)


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
