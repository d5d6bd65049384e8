"""How long runs will take, as far as runs that ended tell, and which of them lack what they need here."""

from __future__ import annotations

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import harness
from harness.io.checkpoints import LOG
from harness.io.progress import duration
from harness.machine import jobs_of, kind_of
from harness.models import find
from harness.models.weights import lacking as lacks
from harness.runs.config import Config
from harness.runs.records import CONFIG, SCORES, RunScores, RunSetup
from harness.runs.run import Run

if TYPE_CHECKING:
    import torch

PHASES = ("train", "readout", "score")


@dataclass(frozen=True)
class Estimate:
    """The time that runs will take, one after the other.

    Attributes:
        seconds: of those whose time is known.
        unknown: the models of which no run of the same kind has ended.
    """

    seconds: float
    unknown: tuple[str, ...]


def estimate(runs: Iterable[Run], out: Path, device: str | torch.device) -> Estimate:
    """The time that runs will take, one after the other; see `seconds_of`."""
    total, unknown = 0.0, dict[str, None]()
    for run, seconds in seconds_of(runs, out, device):
        if seconds is None:
            unknown[run.model] = None
        else:
            total += seconds
    return Estimate(total, tuple(unknown))


def seconds_of(runs: Iterable[Run], out: Path, device: str | torch.device) -> Iterator[tuple[Run, float | None]]:
    """The time that each run will take, from the seconds a step that finished runs in `out` took.

    Only runs of the same model, batch and precision on a CPU, or on a GPU, are compared with; of what has none, nothing is said.

    Args:
        runs: to be made; those that can be continued count whole.
        out: folder of the run folders.
        device: where they will run.
    """
    measured = _measured(out)

    @cache
    def counts(data: Path, dataset: str, kind: str) -> tuple[int, ...]:
        return tuple(harness.open(dataset, data).split(kind).counts)

    for run in runs:
        train, readout, score = (measured.get((*_key(run.model, run.config, kind_of(device)), phase)) for phase in PHASES)
        steps = run.steps - run.config.train.steps
        if train is None or score is None or (steps and readout is None):
            yield run, None
            continue
        images = sum(min(count, run.config.score.samples or count) for count in counts(run.data, run.dataset, run.kind))
        yield run, run.config.train.steps * train + steps * (readout or 0.0) + images * score


def _key(model: str, config: Config, device: str) -> tuple[Any, ...]:
    on_cpu = device.partition(" ")[0] == "cpu"  # of a GPU, runs record its name
    return model, config.train.batch, config.train.precision, on_cpu


def _measured(out: Path) -> dict[tuple[Any, ...], float]:
    """Seconds a step of training and of the readout, and an image of scoring, by model, batch, precision, device and phase."""
    found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for path in out.glob(f"*/*/*/*/{SCORES}"):
        # A run that tells nothing, or is somebody's who tells nonsense.
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
            scores, setup = RunScores.read(path), RunSetup.read(path.with_name(CONFIG))
            key = _key(scores.model, setup.config, scores.device)
            before = 0.0
            for phase, (step, seconds) in _log(path.with_name(LOG)).items():
                found[*key, phase].append((seconds - before) / step)
                before = seconds
            found[*key, "score"].append(scores.seconds.score / (2 * scores.n_test))  # about as many of train
    return {key: mean(values) for key, values in found.items()}


def _log(path: Path) -> dict[str, tuple[int, float]]:
    """The last step of each phase that a log has, and the seconds of training up to it."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {str(line["phase"]): (int(line["step"]), float(line["seconds"])) for line in lines}


def lacking(runs: Iterable[Run]) -> dict[str, str]:
    """The models among those of the runs that cannot be built here without a download or an installation, and what they lack."""
    models = {run.model: run.config.model for run in runs}
    found = ((name, lacks(find(name), options.get("weights"))) for name, options in models.items())
    return {name: what for name, what in found if what}


def time_in_words(runs: Iterable[Run], out: Path, device: str | torch.device, jobs: int | None) -> str:
    """A line about the time that the runs that are not done will take; empty if all are."""
    todo = [run for run in runs if run.state != "done"]
    if not todo:
        return ""
    found, together = estimate(todo, out, device), jobs_of(len(todo), device, jobs)
    if not found.seconds:
        return f"time: unknown, because no run like these has finished in {out}"
    beside = f", {together} at a time" if together > 1 else ""
    but = f"; unknown for {', '.join(found.unknown)}" if found.unknown else ""
    return f"time: about {duration(found.seconds / together)}{beside}, estimated from finished runs in {out}{but}"
