"""Dask as an executor: a scheduler that is running, or one of dask-jobqueue's."""

from __future__ import annotations

import importlib
import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from harness.bench.cluster import Cluster, DaskCluster
from harness.bench.engine import Engine, State, Task
from splits.errors import DependencyError, InputError, MissingError

try:
    from distributed import Client, Future, fire_and_forget
except ImportError as error:
    message = "engine dask needs distributed: pip install 'ood-data[dask]', or -e '.[dask]' in its checkout"
    raise DependencyError(message) from error

JOBQUEUE = "dask_jobqueue"
NAME = "ood-data"  # the beginning of the ids of our tasks
CONNECT_SECONDS = 10
ANSWER_SECONDS, LOOK_SECONDS = 60.0, 0.1


class Dask(Engine):
    """See `Engine`. Ids are keys of the scheduler's. Its tasks outlive the command, but not the scheduler."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        settings = self.cluster.dask
        assert settings is not None
        try:
            self._client = Client(settings.scheduler or self._started(), timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            where = settings.scheduler or settings.cluster
            raise MissingError(f"no Dask scheduler answers at {where}: {' '.join(str(error).split())}") from error

    def _started(self) -> Any:
        """The cluster that a class starts."""
        settings = self.cluster.dask
        assert settings is not None
        assert settings.cluster is not None
        module, _, name = settings.cluster.rpartition(".")
        try:
            cluster = getattr(importlib.import_module(module), name)(**settings.arguments)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            if isinstance(error, ModuleNotFoundError) and error.name == JOBQUEUE:
                raise DependencyError(f"[dask] cluster {settings.cluster} needs a package: pip install dask-jobqueue") from error
            raise InputError(f"[dask] cluster {settings.cluster} cannot be started: {' '.join(str(error).split())}") from error
        cluster.scale(jobs=self.cluster.workers)
        return cluster

    @property
    def reached(self) -> Cluster:
        return self.cluster.model_copy(update={"dask": DaskCluster(scheduler=self._client.scheduler.address)})

    def start(self, tasks: Sequence[Task]) -> list[str]:
        ids = [f"{NAME}-{secrets.token_hex(8)}" for _ in tasks]
        futures = {key: self._client.submit(task.call, key=key, pure=False) for key, task in zip(ids, tasks, strict=True)}
        for future, task in zip(futures.values(), tasks, strict=True):
            future.add_done_callback(partial(_end, task))

        def are_kept() -> bool:
            kept = self._client.run_on_scheduler(_kept)
            others = [future for key, future in futures.items() if key not in kept and not future.done()]
            for future in others:  # again, if the scheduler heard of it before the task
                fire_and_forget(future)
            return not others

        self._until(are_kept)
        return ids

    def _until(self, is_so: Callable[[], bool]) -> None:
        """Wait: messages to the scheduler are sent some time later, and those of a command that has ended never."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not is_so():
            if time.monotonic() > deadline:
                raise MissingError(f"the Dask scheduler at {self._client.scheduler.address} does not do what it is told")
            time.sleep(LOOK_SECONDS)

    def states(self) -> dict[str, State]:
        return dict(self._client.run_on_scheduler(_states))

    def cancel(self, ids: Sequence[str]) -> None:
        self._client.cancel([Future(key, self._client) for key in ids], force=True)
        self._until(lambda: not self.states().keys() & set(ids))


def _end(task: Task, future: Future[None]) -> None:
    """End a task's future as Dask's did."""
    if future.cancelled():
        task.future.cancel()
        task.future.set_running_or_notify_cancel()
    elif error := future.exception():
        task.future.set_exception(error)
    else:
        task.future.set_result(None)


def _kept(dask_scheduler: Any) -> list[str]:
    """On the scheduler: the tasks that outlive their client."""
    return [
        str(key)
        for key, state in dask_scheduler.tasks.items()
        if any(client.client_key == "fire-and-forget" for client in state.who_wants or ())
    ]


def _states(dask_scheduler: Any) -> dict[str, State]:
    """On the scheduler: our tasks that are not over."""
    return {
        str(key): "running" if state.state == "processing" else "queued"
        for key, state in dask_scheduler.tasks.items()
        if str(key).startswith(NAME) and state.state not in ("memory", "erred", "released", "forgotten")
    }
