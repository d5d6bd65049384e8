"""What was handed to schedulers, written down beside what comes of it, and which of its tasks are not over.

How far the work is, only the results tell: a task that is not in the queue any more may have done all of its work, or nothing.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

from harness.bench.cluster import Cluster
from harness.bench.engine import Call, Engine, State
from harness.io.records import Document, Record, Upgrade
from harness.scoring.records import Count
from splits.errors import DependencyError, InputError, MissingError
from splits.formatting import Report

logger = logging.getLogger(__name__)

FOLDER = ".cluster"  # beside the results: what was submitted, and the scheduler's files
MOST_SHOWN = 20  # lines of tasks, or of failures
WorkState = Literal["done", "running", "queued", "failed", "left"]  # left: neither done nor queued
STATES: tuple[WorkState, ...] = ("done", "running", "queued", "failed", "left")


class SubmittedTask(Record):
    """A task: its id, and what it does, by the numbers of its submission."""

    id: str
    work: tuple[Count, ...]


class Submission(Document):
    """A document .cluster/….json: tasks that were handed to a scheduler, together.

    Attributes:
        cluster: which.
        tasks: what was handed over.
    """

    FORMAT: ClassVar[int] = 1
    UPGRADES: ClassVar[dict[int, Upgrade]] = {}
    ADVICE: ClassVar[str] = "delete it"

    format: int = FORMAT
    cluster: Cluster
    tasks: tuple[SubmittedTask, ...]


_Submission = TypeVar("_Submission", bound=Submission)


class Queue(Generic[_Submission]):
    """The submissions in a folder, and the schedulers that they were handed to.

    Args:
        folder: of the documents, and for the schedulers' files.
        kind: of the submissions.

    Attributes:
        submissions: in the order in which they were made.
        silent: the schedulers that do not answer, and why.
    """

    def __init__(self, folder: Path, kind: type[_Submission]) -> None:
        self.folder = folder
        self.submissions = list(_read(folder, kind))
        self.silent: dict[str, str] = {}
        self._engines: dict[str, Engine] = {}
        for submission in self.submissions:
            self._open(submission.cluster)
        self.look()

    def _open(self, cluster: Cluster) -> None:
        """Reach a scheduler, once."""
        name = scheduler(cluster)
        if name not in self._engines and name not in self.silent:
            try:
                self._engines[name] = engine_of(cluster, self.folder)
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

    def has(self, submission: _Submission, task: str) -> bool:
        """Whether a task is not over."""
        return task in self._states.get(scheduler(submission.cluster), {})

    def engine(self, cluster: Cluster, document: Callable[[Mapping[str, list[Any]], Cluster], _Submission]) -> Engine:
        """The engine of a cluster, which writes down what it is given.

        Args:
            cluster: where tasks go.
            document: of tasks, given the first argument of each one's call by its id; and the cluster, as another process finds it.

        Raises:
            OSError: if the scheduler does not answer: nobody knows what is queued there.
        """

        def submitted(calls: Mapping[str, Call]) -> None:
            work = {key: list(call.args[0]) for key, call in calls.items() if isinstance(call, partial)}
            name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}.json"
            document(work, engine.reached).write(self.folder / name)

        engine = engine_of(cluster, self.folder, submitted)
        if reason := self.silent.get(scheduler(cluster)):
            raise MissingError(reason)
        engine.folder.mkdir(parents=True, exist_ok=True)
        return engine

    def cancel(self, command: str) -> Report:
        """End every task that is not over. Not ok if a scheduler does not answer.

        Args:
            command: what submits its work again.
        """
        ended = 0
        for key, states in self._states.items():
            mine = {task.id for each in self.submissions if scheduler(each.cluster) == key for task in each.tasks}
            if ids := [task for task in states if task in mine]:
                self._engines[key].cancel(ids)
                ended += len(ids)
        lines = [f"{ended} tasks were cancelled; the same `{command}` submits what they leave again", *self.silent.values()]
        return Report(tuple(lines), {"cancelled": ended}, not self.silent)


def scheduler(cluster: Cluster) -> str:
    """The scheduler's name."""
    return "slurm" if cluster.dask is None else f"dask {cluster.dask.scheduler or cluster.dask.cluster}"


def check_outlives(cluster: Cluster) -> None:
    """Raise InputError for a cluster that ends with the command."""
    if cluster.dask is not None and cluster.dask.cluster is not None:
        raise InputError(f"the cluster that {cluster.dask.cluster} starts lives as long as the command: wait for it (`wait`)")


def counted(states: Iterable[WorkState]) -> dict[WorkState, int]:
    """How many there are of each state."""
    found = list(states)
    return {state: found.count(state) for state in STATES}


def in_words(counts: Mapping[WorkState, int], what: str) -> str:
    """`8 runs: 6 done, 2 queued`."""
    return f"{sum(counts.values())} {what}: " + ", ".join(f"{number} {state}" for state, number in counts.items() if number)


def shortened(lines: Iterable[str]) -> list[str]:
    """The first `MOST_SHOWN` lines, and how many more there are."""
    lines = list(lines)
    more = [f"and {len(lines) - MOST_SHOWN:,} more"] if len(lines) > MOST_SHOWN else []
    return [*lines[:MOST_SHOWN], *more]


def _read(folder: Path, kind: type[_Submission]) -> Iterator[_Submission]:
    for path in sorted(folder.glob("*.json")):
        try:
            yield kind.read(path)
        except (InputError, OSError) as error:
            logger.warning("left out: %s", error)


def engine_of(cluster: Cluster, folder: Path, submitted: Callable[[Mapping[str, Call]], None] = lambda tasks: None) -> Engine:
    """The engine of a cluster; arguments as of `Engine`.

    Raises:
        ImportError: if what it needs is not installed.
        OSError: if its scheduler does not answer.
        ValueError: for a parameter that it does not have.
    """
    if cluster.engine == "slurm":
        from harness.bench.slurm import Slurm as engine
    else:
        from harness.bench.dask import Dask as engine  # type: ignore[assignment]
    return engine(cluster, folder, submitted)
