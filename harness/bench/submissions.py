"""Runs that were submitted to a cluster, and how far they are.

The truth is in the run folders: scores.json, failure.json, a lock that is held. The scheduler only tells which tasks are not over.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from harness.bench.cluster import Cluster, packed
from harness.bench.engine import Engine
from harness.bench.estimate import estimate, seconds_of
from harness.bench.execute import LOOK_SECONDS, TRIES, Pack, execute, submit
from harness.bench.outcome import Outcome, outcome_of
from harness.bench.queue import (
    FOLDER,
    STATES,
    UNKNOWN,
    Queue,
    Submission,
    SubmittedTask,
    WorkState,
    check_outlives,
    counted,
    in_words,
    scheduler,
    shortened,
)
from harness.io.locks import is_held
from harness.io.progress import duration
from harness.io.records import Record
from harness.runs.config import Config
from harness.runs.records import FAILURE, DatasetName, Fingerprint, ModelName
from harness.runs.run import LOCK, Run
from harness.scoring.records import Count
from splits import Kind
from splits.errors import how_many
from splits.formatting import Report, table


class SubmittedRun(Record):
    """A run in a submission; `config` is the number of its config there."""

    dataset: DatasetName
    kind: Kind
    model: ModelName
    seed: Count
    fingerprint: Fingerprint
    config: Count


class Runs(Submission):
    """A submission of runs, whose numbers are the work of its tasks.

    Attributes:
        device: where the runs compute.
        data: folder of the stores.
        configs: of the runs, each once.
        runs: all.
    """

    device: str
    data: str
    configs: Annotated[tuple[Config, ...], Field(max_length=100_000)]
    runs: tuple[SubmittedRun, ...]

    @model_validator(mode="after")
    def _numbers_are_there(self) -> Self:
        if any(run.config >= len(self.configs) for run in self.runs):
            raise ValueError("a run has a config that is not there")
        if any(number >= len(self.runs) for task in self.tasks for number in task.work):
            raise ValueError("a task has a run that is not there")
        return self

    @classmethod
    def of(cls, tasks: Mapping[str, Sequence[Run]], cluster: Cluster, device: str) -> Runs:
        runs = [run for each in tasks.values() for run in each]
        configs = {id(run.config): run.config for run in runs}
        numbers = {key: number for number, key in enumerate(configs)}
        places = {id(run): number for number, run in enumerate(runs)}
        return cls(
            cluster=cluster,
            device=device,
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
            tasks=tuple(SubmittedTask(id=key, work=tuple(places[id(run)] for run in each)) for key, each in tasks.items()),
        )

    def run(self, number: int, out: Path) -> Run:
        """A run of it, whose folder is in `out`."""
        run = self.runs[number]
        config = self.configs[run.config]
        return Run(Path(self.data), out, run.dataset, run.kind, run.model, run.seed, config, run.fingerprint)


@dataclass(frozen=True)
class Queued:
    """A run that was submitted, its task, and where both are."""

    run: Run
    task: str
    submission: Runs


class RunQueue(Queue[Runs]):
    """The runs in a folder that were submitted.

    Args:
        out: the folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        super().__init__(out / FOLDER, Runs)

    @property
    def nothing(self) -> str:
        return f"nothing was submitted from {self.out}: `ood-data bench … --cluster cluster.toml --out {self.out}` does that"

    def open(self) -> list[Runs]:
        self.runs: dict[Path, Queued] = {}
        for submission in self.submissions:  # the last one that has a run counts
            for task in submission.tasks:
                for number in task.work:
                    run = submission.run(number, self.out)
                    self.runs[run.folder] = Queued(run, task.id, submission)
        of = {id(queued.submission) for queued in self.runs.values() if not queued.run.is_done}
        return [submission for submission in self.submissions if id(submission) in of]

    def state(self, run: Run) -> WorkState:
        """How far a run is."""
        if run.is_done:
            return "done"
        if is_held(run.folder / LOCK):
            return "running"
        if (run.folder / FAILURE).exists():
            return "failed"
        queued = self.runs.get(run.folder)
        return "queued" if queued and self.has(queued.submission, queued.task) else "left"


@dataclass(frozen=True)
class Order:
    """What a cluster is to do.

    Attributes:
        queue: what is there already.
        engine: of the cluster.
        pack: which runs make a task.
        tasks: what the engine was given, by its ids: empty as yet.
    """

    queue: RunQueue
    engine: Engine
    pack: Pack
    tasks: dict[str, list[Run]]

    def todo(self, runs: Sequence[Run]) -> list[Run]:
        """Those that are neither done nor queued nor running."""
        return [run for run in runs if self.queue.state(run) in ("failed", "left")]


def order(cluster: Cluster, out: Path, device: str) -> Order:
    """Prepare to do runs on a cluster.

    Args:
        cluster: where.
        out: folder of the run folders.
        device: of the machines there.

    Raises:
        OSError: if a scheduler does not answer: nobody knows what is queued there.
    """
    queue, tasks = RunQueue(out), dict[str, list[Run]]()

    def document(new: Mapping[str, list[Run]], reached: Cluster) -> Runs:
        tasks.update(new)
        return Runs.of(new, reached, device)

    def pack(runs: Sequence[Run]) -> list[list[Run]]:
        seconds = {run.folder: each for run, each in seconds_of(runs, out, device)}
        return packed(runs, seconds, cluster.workers, cluster.minutes_per_task, engine.most_tasks)

    engine = queue.engine(cluster, document)
    return Order(queue, engine, pack, tasks)


def submit_runs(runs: Sequence[Run], cluster: Cluster, out: Path, device: str, jobs: int | None) -> Report:
    """Hand the runs that are neither done nor queued nor running to a cluster, and say what is where; arguments as of `order`, `execute`.

    Raises:
        ValueError: for a cluster that ends with the command.
    """
    check_outlives(cluster)
    ordered = order(cluster, out, device)
    todo = ordered.todo(runs)
    for run in todo:
        (run.folder / FAILURE).unlink(missing_ok=True)
    if todo:
        submit(todo, device, jobs, ordered.engine, ordered.pack)
    rows = [("task", "runs", "the first of them")]
    rows += [(key, str(len(each)), str(each[0])) for key, each in ordered.tasks.items()]
    counts = f"{len(todo):,} of {how_many(len(runs), 'run')}, in {how_many(len(ordered.tasks), 'task')}"
    others = "; the others are done, running or queued" if len(todo) < len(runs) else ""
    lines = [
        *shortened(table(rows) if ordered.tasks else []),
        f"handed to {scheduler(cluster)}: {counts}{others}",
        f"ood-data bench status --out {out} says how far they are",
    ]
    return Report(tuple(lines), {"tasks": {key: [str(run) for run in each] for key, each in ordered.tasks.items()}})


def execute_there(
    runs: Sequence[Run], cluster: Cluster, out: Path, device: str, jobs: int | None, progress: bool = True
) -> list[Outcome]:
    """Execute runs on a cluster and wait for all, also for those that were queued or running before; arguments as of `submit_runs`.

    What the tasks of before leave is submitted again, as what its own tasks leave.
    """
    outcomes, todo = dict[Path, Outcome](), list(runs)
    ordered = order(cluster, out, device)
    queue = ordered.queue
    for _ in range(TRIES):
        found = execute(ordered.todo(todo), device, jobs, progress, ordered.engine, ordered.pack)
        outcomes |= {outcome.run.folder: outcome for outcome in found}
        todo = [run for run in todo if run.folder not in outcomes]
        queue.read()
        while any(queue.state(run) in ("queued", "running") for run in todo):
            time.sleep(LOOK_SECONDS)
            queue.look()
        todo = [run for run in todo if queue.state(run) == "left"]
        if not todo:
            break
    return [outcomes[run.folder] if run.folder in outcomes else outcome_of(run) for run in runs]


def status(out: Path) -> Report:
    """How far the runs are that were submitted from a folder of run folders. Not ok if one has failed, or is neither done nor queued."""
    queue = RunQueue(out)
    queue.check_any()
    states = {folder: queue.state(queued.run) for folder, queued in queue.runs.items()}
    by_state: dict[WorkState, list[Queued]] = {state: [] for state in STATES}
    for folder, queued in queue.runs.items():
        by_state[states[folder]].append(queued)
    counts = counted(states.values())
    lines = [in_words(counts, "run")]
    failures = {str(queued.run): outcome_of(queued.run).error or UNKNOWN for queued in by_state["failed"]}
    reasons = Counter((queued.run.model, failures[str(queued.run)]) for queued in by_state["failed"])
    lines += shortened([f"failed: {model}, {number} of its runs: {error}" for (model, error), number in reasons.items()])
    todo = [queued for state in STATES if state != "done" for queued in by_state[state]]
    lines += _time_left(todo, out)
    if counts["left"] or counts["failed"]:
        lines.append(f"what is left or failed is submitted again by the same command; the logs of tasks are in {out / FOLDER}")
    lines += [f"{reason}: what is queued there is counted as left" for reason in queue.silent.values()]
    data = {
        "counts": counts,
        "runs": {str(queued.run): states[folder] for folder, queued in queue.runs.items()},
        "failed": failures,
    }
    return Report(tuple(lines), data, not counts["failed"] and not counts["left"])


def _time_left(todo: Sequence[Queued], out: Path) -> list[str]:
    """A line about the time that runs will take, none if there are none."""
    if not todo:
        return []
    cluster, device = todo[-1].submission.cluster, todo[-1].submission.device
    found = estimate((queued.run for queued in todo), out, device)
    if not found.seconds:
        return ["time: unknown, because no run like these has finished"]
    together = min(cluster.workers, len({queued.task for queued in todo}))
    but = f"; unknown for {', '.join(found.unknown)}" if found.unknown else ""
    whole, beside = duration(found.seconds), duration(found.seconds / together)
    return [f"time: {whole} of one worker, about {beside} of {together} at a time{but}"]
