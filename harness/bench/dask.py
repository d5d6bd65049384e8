"""Dask as an executor: a scheduler that is running, or one of dask-jobqueue's."""

from __future__ import annotations

import importlib
import secrets
from collections.abc import Sequence
from functools import partial
from typing import Any

from harness.bench.cluster import Cluster, DaskCluster, Engine, State, Task
from splits.errors import DependencyError, InputError, MissingError

try:
    from distributed import Client, Future, fire_and_forget
except ImportError as error:
    message = "engine dask needs distributed: pip install 'ood-data[dask]', or '.[dask]' in its checkout"
    raise DependencyError(message) from error

NAME = "ood-data"  # the beginning of the ids of our tasks
CONNECT_SECONDS = 10


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
            raise InputError(f"[dask] cluster {settings.cluster} cannot be started: {' '.join(str(error).split())}") from error
        cluster.scale(jobs=self.cluster.workers)
        return cluster

    @property
    def reached(self) -> Cluster:
        return self.cluster.model_copy(update={"dask": DaskCluster(scheduler=self._client.scheduler.address)})

    def start(self, tasks: Sequence[Task]) -> list[str]:
        ids = [f"{NAME}-{secrets.token_hex(8)}" for _ in tasks]
        for key, task in zip(ids, tasks, strict=True):
            future = self._client.submit(task.call, key=key, pure=False)
            fire_and_forget(future)
            future.add_done_callback(partial(_end, task))
        return ids

    def states(self) -> dict[str, State]:
        return dict(self._client.run_on_scheduler(_states))

    def cancel(self, ids: Sequence[str]) -> None:
        self._client.cancel([Future(key, self._client) for key in ids], force=True)


def _end(task: Task, future: Future[None]) -> None:
    """End a task's future as Dask's did."""
    if future.cancelled():
        task.future.cancel()
        task.future.set_running_or_notify_cancel()
    elif error := future.exception():
        task.future.set_exception(error)
    else:
        task.future.set_result(None)


def _states(dask_scheduler: Any) -> dict[str, State]:
    """On the scheduler: our tasks that are not over."""
    return {
        str(key): "running" if state.state == "processing" else "queued"
        for key, state in dask_scheduler.tasks.items()
        if str(key).startswith(NAME) and state.state not in ("memory", "erred", "released", "forgotten")
    }
