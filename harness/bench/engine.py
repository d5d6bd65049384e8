"""An engine: an executor that a scheduler of many machines stands behind."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from harness.bench.cluster import Cluster

Call = Callable[[], object]
State = Literal["queued", "running"]


@dataclass
class Task:
    """Something to be done elsewhere; its future ends when it does, without a result.

    Attributes:
        call: it.
        future: of it.
    """

    call: Call
    future: Future[Any] = field(default_factory=Future)


class Engine(Executor, abc.ABC):
    """An executor whose tasks outlive it: each has an id, by which another process finds it.

    Args:
        cluster: it.
        folder: for the files of its tasks, which all machines see.
        submitted: told the ids of tasks and what they call, as soon as they are handed over.
    """

    most_tasks: int | None = None  # at once

    def __init__(
        self, cluster: Cluster, folder: Path, submitted: Callable[[Mapping[str, Call]], None] = lambda tasks: None
    ) -> None:
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
            self._submitted(dict(zip(self.start(tasks), (task.call for task in tasks), strict=True)))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if self._batch is None:
            with self.batch():
                return self.submit(fn, *args, **kwargs)
        self._batch.append(Task(partial(fn, *args, **kwargs)))
        return self._batch[-1].future

    @abc.abstractmethod
    def start(self, tasks: Sequence[Task]) -> list[str]:
        """Hand tasks over, and see to it that their futures end; their ids."""

    @abc.abstractmethod
    def states(self) -> dict[str, State]:
        """Every task of the scheduler's that is not over, by its id.

        Raises:
            OSError: if the scheduler does not answer.
        """

    @abc.abstractmethod
    def cancel(self, ids: Sequence[str]) -> None:
        """End tasks."""
