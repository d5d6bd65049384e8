"""What was handed to schedulers, written down beside what comes of it, and which of its tasks are not over.

How far the work is, only the results tell: a task that is not in the queue any more may have done all of its work, or nothing.
"""

from __future__ import annotations

import abc
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import AfterValidator

from harness.bench.cluster import Cluster
from harness.bench.engine import Engine, State, Submitted
from harness.io.atomic import home, write_atomically
from harness.io.records import Document, Record, Upgrade
from harness.scoring.records import Count
from splits.errors import DependencyError, InputError, MissingError, how_many, shown
from splits.formatting import Report

logger = logging.getLogger(__name__)

FOLDER = ".cluster"  # beside the results: what was submitted, and the scheduler's files
SILENT_SECONDS = 600.0  # for which a scheduler's last answer holds
UNKNOWN = "reason unknown"  # of a failure whose file is gone, or damaged
MOST_SHOWN = 20  # lines of tasks, or of failures
WorkState = Literal["done", "running", "queued", "failed", "left"]  # left: neither done nor queued
STATES: tuple[WorkState, ...] = ("done", "running", "queued", "failed", "left")


def _running(cluster: Cluster) -> Cluster:
    if not outlives(cluster):
        raise ValueError("a scheduler is expected, not a class that starts one, because reading runs no code")
    return cluster


class SubmittedTask(Record):
    """A task: its id, and what it does, by the numbers of its submission."""

    id: str
    work: tuple[Count, ...]


class Submission(Document):
    """A document .cluster/….json: tasks that were handed to a scheduler, together.

    Attributes:
        cluster: which; a scheduler, and no class that starts one: reading runs no code.
        cluster_name: of SLURM's; "" if it has none, and in documents of before.
        tasks: what was handed over.
    """

    FORMAT: ClassVar[int] = 1
    UPGRADES: ClassVar[dict[int, Upgrade]] = {}
    ADVICE: ClassVar[str] = "delete it"

    format: int = FORMAT
    cluster: Annotated[Cluster, AfterValidator(_running)]
    cluster_name: str = ""
    tasks: tuple[SubmittedTask, ...]


_Submission = TypeVar("_Submission", bound=Submission)


class Queue(abc.ABC, Generic[_Submission]):
    """The submissions in a folder, and the schedulers that they were handed to.

    Args:
        folder: of the documents, and for the schedulers' files.
        kind: of the submissions.

    Attributes:
        submissions: in the order in which they were made.
        silent: the schedulers that do not answer, and why.
    """

    def __init__(self, folder: Path, kind: type[_Submission]) -> None:
        self.folder, self._kind = folder, kind
        self.silent: dict[str, str] = {}
        self._engines: dict[str, Engine] = {}
        self._states: dict[str, dict[str, State]] = {}
        self._answered: dict[str, float] = {}
        self.read()

    def read(self) -> None:
        """Read what was submitted, and ask the schedulers of what is not done."""
        self.submissions = list(_read(self.folder, self._kind))
        for submission in self.open():
            self._open(submission)
        self.look()

    @abc.abstractmethod
    def open(self) -> list[_Submission]:
        """The submissions whose work is not done. Called when they are read."""

    @property
    @abc.abstractmethod
    def nothing(self) -> str:
        """Say that nothing was submitted here, and what does that."""

    def check_any(self) -> None:
        """Raise MissingError unless something was submitted."""
        if not self.submissions:
            raise MissingError(self.nothing)

    def _open(self, submission: _Submission) -> None:
        """Reach a scheduler, once; of what a document says, only where it is."""
        cluster = submission.cluster.model_copy(update={"slurm": {}})
        name = scheduler(cluster)
        if name not in self._engines and name not in self.silent:
            try:
                _check_known(cluster)
                self._engines[name] = engine_of(cluster, self.folder)
            except (OSError, DependencyError, InputError) as error:
                self.silent[name] = str(error)
        if name in self._engines and not self._is_of(submission):
            there, here = submission.cluster_name, self._engines[name].cluster_name
            self.silent[f"{name} {there}"] = f"tasks are on SLURM's cluster {shown(there)}, and this machine is of {shown(here)}"

    def _is_of(self, submission: _Submission) -> bool:
        """Whether the scheduler that is reached is the one that has a submission."""
        engine = self._engines.get(scheduler(submission.cluster))
        return engine is not None and submission.cluster_name in ("", engine.cluster_name)

    def look(self) -> None:
        """Ask every scheduler which tasks are not over."""
        for name in self._engines:
            self._ask(name)

    def _ask(self, name: str) -> None:
        """What a scheduler said holds for a while in which it does not answer."""
        try:
            self._states[name] = self._engines[name].states()
            self._answered[name] = time.monotonic()
            self.silent.pop(name, None)
        except OSError as error:
            self.silent[name] = str(error)
            if name in self._states and time.monotonic() - self._answered[name] > SILENT_SECONDS:
                del self._states[name]

    def has(self, submission: _Submission, task: str) -> bool:
        """Whether a task is not over."""
        return self._is_of(submission) and task in self._states.get(scheduler(submission.cluster), {})

    def engine(self, cluster: Cluster, document: Callable[[Mapping[str, list[Any]], Cluster], _Submission]) -> Engine:
        """The engine of a cluster, which writes down what it is given, unless it ends with the command.

        Args:
            cluster: where tasks go.
            document: of the work of tasks, by their ids; and the cluster, as another process finds it.

        Raises:
            OSError: if the scheduler does not answer: nobody knows what is queued there.
        """

        def submitted(work: Mapping[str, list[Any]]) -> None:
            made = document(work, engine.reached).model_copy(update={"cluster_name": engine.cluster_name})
            if outlives(cluster):
                made.write(self.folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}.json")

        engine = engine_of(cluster, self.folder, submitted)
        if outlives(cluster):
            _know(engine.reached)
        name = scheduler(engine.reached)
        self._engines[name] = engine
        self._ask(name)
        if reason := self.silent.get(name):
            raise MissingError(reason)
        engine.folder.mkdir(parents=True, exist_ok=True)
        return engine

    def cancel(self, command: str) -> Report:
        """End every task that is not over. Not ok if a scheduler does not answer.

        Args:
            command: what submits its work again.

        Raises:
            MissingError: if nothing was submitted.
        """
        self.check_any()
        ended = 0
        for key, states in self._states.items():
            submissions = (each for each in self.submissions if scheduler(each.cluster) == key and self._is_of(each))
            mine = {task.id for each in submissions for task in each.tasks}
            if ids := [task for task in states if task in mine]:
                self._engines[key].cancel(ids)
                ended += len(ids)
        lines = [f"cancelled: {how_many(ended, 'task')}; the same `{command}` submits what they leave again", *self.silent.values()]
        return Report(tuple(lines), {"cancelled": ended}, not self.silent)


def scheduler(cluster: Cluster) -> str:
    """The scheduler's name."""
    return "slurm" if cluster.dask is None else f"dask {cluster.dask.scheduler or cluster.dask.cluster}"


def outlives(cluster: Cluster) -> bool:
    """Whether a cluster goes on when the command ends."""
    return cluster.dask is None or cluster.dask.cluster is None


def check_outlives(cluster: Cluster) -> None:
    """Raise InputError for a cluster that ends with the command."""
    if cluster.dask is not None and not outlives(cluster):
        raise InputError(f"the cluster that {cluster.dask.cluster} starts lives as long as the command: wait for it (`wait`)")


def counted(states: Iterable[WorkState]) -> dict[WorkState, int]:
    """How many there are of each state."""
    found = list(states)
    return {state: found.count(state) for state in STATES}


def in_words(counts: Mapping[WorkState, int], what: str) -> str:
    """`8 runs: 6 done, 2 queued`; `what` is one of them, a "run"."""
    return f"{how_many(sum(counts.values()), what)}: " + ", ".join(
        f"{number} {state}" for state, number in counts.items() if number
    )


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


def _note(cluster: Cluster) -> Path:
    """The file in this user's home that is there if this user has handed tasks to a Dask scheduler."""
    return home() / "schedulers" / hashlib.sha256(ascii(scheduler(cluster)).encode()).hexdigest()


def _know(cluster: Cluster) -> None:
    """Note that this user has handed tasks to a Dask scheduler, so that `status` may ask it."""
    if cluster.dask is not None:
        note = _note(cluster)
        note.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(note, ascii(scheduler(cluster)).encode(), secrets.token_hex(4))


def _check_known(cluster: Cluster) -> None:
    """Raise MissingError for a Dask scheduler of which only a document speaks: it may be a stranger's, and its answers are pickles."""
    if cluster.dask is not None and not _note(cluster).exists():
        raise MissingError(
            f"the Dask scheduler at {shown(cluster.dask.scheduler)} was not asked, because you have handed no tasks to it from here "
            "(`ood-data bench … --cluster cluster.toml` asks it)"
        )


def engine_of(cluster: Cluster, folder: Path, submitted: Submitted = lambda tasks: None) -> Engine:
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
