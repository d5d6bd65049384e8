"""What was submitted to a cluster, and how far it is.

The truth is in the run folders: scores.json, failure.json, a lock that is held. The scheduler only tells which tasks are not over.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from harness.bench.cluster import FOLDER, Call, Cluster, Engine, State, engine_of, packed
from harness.bench.estimate import estimate, seconds_of
from harness.bench.execute import LOOK_SECONDS, Pack, execute, submit
from harness.bench.outcome import Outcome, outcome_of
from harness.io.locks import is_held
from harness.io.progress import duration
from harness.io.records import Document, Record, Upgrade
from harness.runs.config import Config
from harness.runs.records import FAILURE, DatasetName, Fingerprint, ModelName
from harness.runs.run import LOCK, Run
from harness.scoring.records import Count
from splits import Kind
from splits.errors import DependencyError, InputError, MissingError
from splits.formatting import Report, table

logger = logging.getLogger(__name__)

MOST_SHOWN = 20  # lines of tasks, or of failures
RunState = Literal["done", "failed", "running", "queued", "left"]
STATES: tuple[RunState, ...] = ("done", "running", "queued", "failed", "left")


class SubmittedRun(Record):
    """A run in a submission; `config` is the number of its config there."""

    dataset: DatasetName
    kind: Kind
    model: ModelName
    seed: Count
    fingerprint: Fingerprint
    config: Count


class SubmittedTask(Record):
    """A task: its id, and the runs that it holds, by their numbers."""

    id: str
    runs: tuple[Count, ...]


class Submission(Document):
    """The document runs/.cluster/….json: tasks that were handed to a scheduler, together.

    Attributes:
        cluster: which.
        device: where the runs compute.
        data: folder of the stores.
        configs: of the runs, each once.
        runs: all.
        tasks: what was handed over.
    """

    FORMAT: ClassVar[int] = 1
    UPGRADES: ClassVar[dict[int, Upgrade]] = {}
    ADVICE: ClassVar[str] = "delete it"

    format: int = FORMAT
    cluster: Cluster
    device: str
    data: str
    configs: Annotated[tuple[Config, ...], Field(max_length=100_000)]
    runs: tuple[SubmittedRun, ...]
    tasks: tuple[SubmittedTask, ...]


@dataclass(frozen=True)
class Queued:
    """A run that was submitted, its task, and where both are."""

    run: Run
    task: str
    submission: Submission


class Clusters:
    """The clusters to which the runs in a folder were submitted.

    Args:
        out: the folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.submissions = list(_submissions(out / FOLDER))
        self.silent: dict[str, str] = {}  # the schedulers that do not answer, and why
        self._engines: dict[str, Engine] = {}
        for submission in self.submissions:
            self._open(submission.cluster)
        self.look()
        self.runs: dict[Path, Queued] = {}
        for submission in self.submissions:  # the last one that has a run counts
            for task in submission.tasks:
                for number in task.runs:
                    run = _run(submission, submission.runs[number], out)
                    self.runs[run.folder] = Queued(run, task.id, submission)

    def _open(self, cluster: Cluster) -> None:
        """Reach a scheduler, once."""
        name = _scheduler(cluster)
        if name not in self._engines and name not in self.silent:
            try:
                self._engines[name] = engine_of(cluster, self.out)
            except (OSError, DependencyError) as error:
                self.silent[name] = str(error)

    def look(self) -> None:
        """Ask every scheduler which tasks are not over."""
        self._states: dict[str, dict[str, State]] = {}
        for name, engine in self._engines.items():
            try:
                self._states[name] = engine.states()
                self.silent.pop(name, None)
            except OSError as error:
                self.silent[name] = str(error)

    def state(self, run: Run) -> RunState:
        """How far a run is: "left" is what is neither done nor queued."""
        if run.is_done:
            return "done"
        if is_held(run.folder / LOCK):
            return "running"
        if (run.folder / FAILURE).exists():
            return "failed"
        queued = self.runs.get(run.folder)
        return "queued" if queued and queued.task in self._states.get(_scheduler(queued.submission.cluster), {}) else "left"

    def cancel(self) -> int:
        """End every task that is not over; how many that were."""
        ended = 0
        for key, states in self._states.items():
            mine = {task.id for each in self.submissions if _scheduler(each.cluster) == key for task in each.tasks}
            if ids := [task for task in states if task in mine]:
                self._engines[key].cancel(ids)
                ended += len(ids)
        return ended


def _scheduler(cluster: Cluster) -> str:
    """The scheduler's name."""
    return "slurm" if cluster.dask is None else f"dask {cluster.dask.scheduler or cluster.dask.cluster}"


def _submissions(folder: Path) -> Iterator[Submission]:
    for path in sorted(folder.glob("*.json")):
        try:
            yield Submission.read(path)
        except (InputError, OSError) as error:
            logger.warning("left out: %s", error)


def _run(submission: Submission, run: SubmittedRun, out: Path) -> Run:
    config = submission.configs[run.config]
    return Run(Path(submission.data), out, run.dataset, run.kind, run.model, run.seed, config, run.fingerprint)


@dataclass(frozen=True)
class Order:
    """What a cluster is to do.

    Attributes:
        todo: the runs that are neither done nor queued nor running.
        engine: of the cluster.
        pack: which runs make a task.
        tasks: what the engine was given, by its ids: empty as yet.
    """

    todo: list[Run]
    engine: Engine
    pack: Pack
    tasks: dict[str, list[Run]]


def order(runs: Sequence[Run], cluster: Cluster, out: Path, device: torch.device) -> Order:
    """Prepare to do runs on a cluster.

    Args:
        runs: whichever.
        cluster: where.
        out: folder of the run folders.
        device: of the machines there.

    Raises:
        OSError: if a scheduler does not answer: nobody knows what is queued there.
    """
    clusters, tasks = Clusters(out), dict[str, list[Run]]()

    def submitted(calls: Mapping[str, Call]) -> None:
        new = {key: list(call.args[0]) for key, call in calls.items() if isinstance(call, partial)}
        tasks.update(new)
        name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}.json"
        _submission(new, engine.reached, device).write(out / FOLDER / name)

    def pack(runs: Sequence[Run]) -> list[list[Run]]:
        seconds = {run.folder: each for run, each in seconds_of(runs, out, device)}
        return packed(runs, seconds, cluster.workers, cluster.minutes_per_task, engine.most_tasks)

    engine = engine_of(cluster, out, submitted)
    if reason := clusters.silent.get(_scheduler(cluster)):
        raise MissingError(reason)
    engine.folder.mkdir(parents=True, exist_ok=True)
    return Order([run for run in runs if clusters.state(run) in ("failed", "left")], engine, pack, tasks)


def _submission(tasks: Mapping[str, Sequence[Run]], cluster: Cluster, device: torch.device) -> Submission:
    runs = [run for each in tasks.values() for run in each]
    configs = {id(run.config): run.config for run in runs}
    numbers = {key: number for number, key in enumerate(configs)}
    places = {id(run): number for number, run in enumerate(runs)}
    return Submission(
        cluster=cluster,
        device=str(device),
        data=str(runs[0].data),
        configs=tuple(configs.values()),
        runs=tuple(
            SubmittedRun(
                dataset=run.dataset,
                kind=run.kind,
                model=run.model,
                seed=run.seed,
                fingerprint=run.fingerprint,
                config=numbers[id(run.config)],
            )
            for run in runs
        ),
        tasks=tuple(SubmittedTask(id=key, runs=tuple(places[id(run)] for run in each)) for key, each in tasks.items()),
    )


def submit_runs(runs: Sequence[Run], cluster: Cluster, out: Path, device: torch.device, jobs: int | None) -> Report:
    """Hand the runs that are neither done nor queued nor running to a cluster, and say what is where; arguments as of `order`.

    Raises:
        ValueError: for a cluster that ends with the command.
    """
    if cluster.dask is not None and cluster.dask.cluster is not None:
        raise InputError(f"the cluster that {cluster.dask.cluster} starts lives as long as the command: wait for the runs (`wait`)")
    ordered = order(runs, cluster, out, device)
    for run in ordered.todo:
        (run.folder / FAILURE).unlink(missing_ok=True)
    if ordered.todo:
        submit(ordered.todo, device, jobs, ordered.engine, ordered.pack)
    rows = [("task", "runs", "the first of them")]
    rows += [(key, str(len(each)), str(each[0])) for key, each in ordered.tasks.items()]
    count = f"{len(ordered.todo)} of {len(runs)} runs were handed to {_scheduler(cluster)}, in {len(ordered.tasks)} tasks"
    others = "; the others are done, running or queued" if len(ordered.todo) < len(runs) else ""
    lines = [
        *_shortened(table(rows) if ordered.tasks else []),
        count + others,
        f"ood-data bench status --out {out} says how far they are",
    ]
    return Report(tuple(lines), {"tasks": {key: [str(run) for run in each] for key, each in ordered.tasks.items()}})


def execute_there(
    runs: Sequence[Run], cluster: Cluster, out: Path, device: torch.device, jobs: int | None, progress: bool = True
) -> list[Outcome]:
    """Execute runs on a cluster and wait for all, also for those that were queued or running before; arguments as of `order`."""
    ordered = order(runs, cluster, out, device)
    found = execute(ordered.todo, device, jobs, progress, ordered.engine, ordered.pack)
    outcomes = {outcome.run.folder: outcome for outcome in found}
    clusters = Clusters(out)
    while any(clusters.state(run) in ("queued", "running") for run in runs if run.folder not in outcomes):
        time.sleep(LOOK_SECONDS)
        clusters.look()
    return [outcomes[run.folder] if run.folder in outcomes else outcome_of(run) for run in runs]


def status(out: Path) -> Report:
    """How far the runs are that were submitted from a folder of run folders. Not ok if one has failed, or is neither done nor queued."""
    clusters = Clusters(out)
    if not clusters.runs:
        raise MissingError(f"nothing was submitted from {out}: `ood-data bench … --cluster cluster.toml --out {out}` does that")
    states = {folder: clusters.state(queued.run) for folder, queued in clusters.runs.items()}
    by_state: dict[RunState, list[Queued]] = {state: [] for state in STATES}
    for folder, queued in clusters.runs.items():
        by_state[states[folder]].append(queued)
    counts = {state: len(by_state[state]) for state in STATES}
    lines = [f"{len(states)} runs: " + ", ".join(f"{number} {state}" for state, number in counts.items() if number)]
    failures = {str(queued.run): outcome_of(queued.run).error for queued in by_state["failed"]}
    reasons = Counter((queued.run.model, failures[str(queued.run)]) for queued in by_state["failed"])
    lines += _shortened([f"failed: {model}, {number} of its runs: {error}" for (model, error), number in reasons.items()])
    todo = [queued for state in STATES if state != "done" for queued in by_state[state]]
    lines += _time_left(todo, out)
    if counts["left"] or counts["failed"]:
        lines.append(f"what is left or failed is submitted again by the same command; the logs of tasks are in {out / FOLDER}")
    lines += [f"{reason}: what is queued there is counted as left" for reason in clusters.silent.values()]
    data = {
        "counts": counts,
        "runs": {str(queued.run): states[folder] for folder, queued in clusters.runs.items()},
        "failed": failures,
    }
    return Report(tuple(lines), data, not counts["failed"] and not counts["left"])


def cancel(out: Path) -> Report:
    """Cancel what was submitted from a folder of run folders and is not over. Not ok if a scheduler does not answer."""
    clusters = Clusters(out)
    ended = clusters.cancel()
    lines = [f"{ended} tasks were cancelled; the same `ood-data bench` submits their runs again", *clusters.silent.values()]
    return Report(tuple(lines), {"cancelled": ended}, not clusters.silent)


def _time_left(todo: Sequence[Queued], out: Path) -> list[str]:
    """A line about the time that runs will take, none if there are none."""
    if not todo:
        return []
    cluster, device = todo[-1].submission.cluster, torch.device(todo[-1].submission.device)
    found = estimate((queued.run for queued in todo), out, device)
    if not found.seconds:
        return ["time: unknown, because no run like these has finished"]
    together = min(cluster.workers, len({queued.task for queued in todo}))
    but = f"; unknown for {', '.join(found.unknown)}" if found.unknown else ""
    whole, beside = duration(found.seconds), duration(found.seconds / together)
    return [f"time: {whole} of one worker, about {beside} of {together} at a time{but}"]


def _shortened(lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    more = [f"and {len(lines) - MOST_SHOWN:,} more"] if len(lines) > MOST_SHOWN else []
    return [*lines[:MOST_SHOWN], *more]
