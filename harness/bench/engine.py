"""An engine: an executor that a scheduler of many machines stands behind."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from harness.bench.cluster import Cluster

Call = Callable[[], object]
State = Literal["queued", "running"]
Submitted = Callable[[Mapping[str, list[Any]]], None]


@dataclass
class Task:
    """Something to be done elsewhere; its future ends when it does, without a result.

    Attributes:
        call: it.
        work: what it does, which is written down with its id.
        future: of it.
    """

    call: Call
    work: list[Any]
    future: Future[Any] = field(default_factory=Future)


class Engine(Executor, abc.ABC):
    """An executor whose tasks outlive it: each has an id, by which another process finds it.

    Args:
        cluster: it.
        folder: for the files of its tasks, which all machines see.
        submitted: told the work of tasks by their ids, as soon as they are handed over.
    """

    most_tasks: int | None = None  # at once
    cluster_name: str = ""  # of SLURM's, whose ids mean something else on another one

    def __init__(self, cluster: Cluster, folder: Path, submitted: Submitted = lambda tasks: None) -> None:
        self.cluster, self.folder, self._submitted = cluster, folder.absolute(), submitted
        self._batch: list[Task] | None = None

    @property
    def reached(self) -> Cluster:
        """The cluster, as another process finds it."""
        return self.cluster

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """What is submitted within is handed over at its end, together."""
        self._batch = []
        try:
            yield
            tasks = self._batch
        finally:
            self._batch = None
        if tasks:
            self._submitted(dict(zip(self.start(tasks), (task.work for task in tasks), strict=True)))

    def submit(  # type: ignore[override]
        self, fn: Callable[..., Any], work: Iterable[Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        """A task that calls `fn(work, …)`; the pieces of its work are written down with its id."""
        if self._batch is None:
            with self.batch():
                return self.submit(fn, work, *args, **kwargs)
        work = list(work)
        self._batch.append(Task(partial(fn, work, *args, **kwargs), work))
        return self._batch[-1].future

    @abc.abstractmethod
    def start(self, tasks: Sequence[Task]) -> list[str]:
        """Hand tasks over, and see to it that their futures end; their ids."""

    @abc.abstractmethod
    def states(self) -> dict[str, State]:
        """Every task that is not over, by its id: of this folder's, as far as the scheduler can tell.

        Raises:
            OSError: if the scheduler does not answer.
        """

    @abc.abstractmethod
    def cancel(self, ids: Sequence[str]) -> None:
        """End tasks."""
