"""A cluster, written down in a TOML file, and how runs are packed into its tasks.

::

    engine = "slurm"             # or "dask"
    workers = 64                 # tasks at the same time
    minutes_per_task = 20        # short runs are packed together
    [slurm]                      # submitit's parameters, passed on as they are
    partition = "gpu"
    timeout_min = 240
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from harness.bench.written import Strict, read
from splits.mistakes import dotted, in_our_words

if TYPE_CHECKING:
    from harness.runs.run import Run

TASKS_PER_WORKER = 4  # where nobody knows how long runs take


class DaskCluster(Strict):
    """A scheduler that is running, or a class that starts one.

    Attributes:
        scheduler: "tcp://host:8786", or the path of a scheduler file.
        cluster: a class, "dask_jobqueue.PBSCluster", called with `arguments`; it lives as long as the command, which waits.
        arguments: of the class.
    """

    scheduler: str | None = None
    cluster: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.scheduler is None) == (self.cluster is None):
            raise ValueError("either scheduler or cluster is expected")
        if self.cluster is not None and not all(part.isidentifier() for part in self.cluster.split(".")):
            raise ValueError("cluster: a class is expected, such as dask_jobqueue.PBSCluster")
        return self


class Cluster(Strict):
    """What a cluster file says.

    Attributes:
        engine: "slurm" or "dask".
        workers: tasks at the same time; a running Dask scheduler has as many as it has.
        minutes_per_task: runs are packed until a task takes about so long.
        slurm: submitit's parameters.
        dask: where Dask's scheduler is.
    """

    engine: Literal["slurm", "dask"]
    workers: Annotated[int, Field(ge=1)]
    minutes_per_task: Annotated[float, Field(gt=0)] = 20.0
    slurm: dict[str, Any] = Field(default_factory=dict)
    dask: DaskCluster | None = None

    @model_validator(mode="after")
    def _of_its_engine(self) -> Self:
        if self.engine == "dask" and self.dask is None:
            raise ValueError("engine dask needs a table [dask] with its scheduler")
        return self

    @property
    def has_gpus(self) -> bool:
        """Whether SLURM is asked for GPUs."""
        return any(value and ("gpus" in key or (key == "gres" and "gpu" in str(value))) for key, value in self.slurm.items())


def read_cluster(path: Path) -> Cluster:
    """The cluster in a TOML file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is none; in a line that says where and what is wrong.
    """
    return read(path, "a cluster", Cluster, lambda error: [_mistake(details) for details in error.errors(include_url=False)])


def _mistake(details: Any) -> str:
    """A line about one: where it is, and what."""
    place = dotted(details["loc"]) or "the file"
    if details["type"] == "value_error":  # of ours
        return f"{place}: {details['msg'].removeprefix('Value error, ')}"
    return f"{place}: {in_our_words(details, (DaskCluster if 'dask' in details['loc'] else Cluster).model_fields)}"


def packed(
    runs: Sequence[Run], seconds: Mapping[Path, float | None], workers: int, minutes: float, most: int | None = None
) -> list[list[Run]]:
    """The runs of each task, those that take longest first: a long task that begins last would be waited for by all others.

    Args:
        runs: whichever.
        seconds: what each is expected to take, by its folder; of what nobody knows, the mean of the others.
        workers: tasks at the same time.
        minutes: of a task, about; a longer run is a task of its own. Where nothing is known, each worker gets `TASKS_PER_WORKER` tasks.
        most: tasks, at most.
    """
    known = [value for value in seconds.values() if value is not None]
    mean = sum(known) / len(known) if known else 1.0
    cost = {run.folder: seconds.get(run.folder) or mean for run in runs}
    total = sum(cost.values())
    room = 60 * minutes if known else total / (TASKS_PER_WORKER * workers)
    while True:
        tasks: list[list[Run]] = []
        used = room
        for run in sorted(runs, key=lambda run: -cost[run.folder]):
            if not tasks or used + cost[run.folder] > room * (1 + 1e-9):
                tasks.append([])
                used = 0.0
            tasks[-1].append(run)
            used += cost[run.folder]
        if most is None or len(tasks) <= most:
            return tasks
        room *= 1.1  # as many as may be
