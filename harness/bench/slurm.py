"""SLURM as an executor: tasks are an array of submitit's, and `squeue` says which are not over."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from pathlib import Path
from typing import Any

from harness.bench.engine import Call, Engine, State, Task
from splits.errors import DependencyError, InputError, MissingError, did_you_mean

try:
    from submitit import SlurmExecutor, SlurmJob
    from submitit.helpers import Checkpointable
except ImportError as error:
    message = "engine slurm needs submitit: pip install 'ood-data[slurm]', or -e '.[slurm]' in its checkout"
    raise DependencyError(message) from error

LOOK_SECONDS = 5.0  # between questions to the scheduler
MOST_SAID = 300  # characters of what sbatch says: the end of it tells why
TIMEOUTS = 1000  # a task continues after its time limit as often as it takes
# Without sacct, submitit takes a job that was cancelled for one that goes on: so states are squeue's, and results are in run folders.


class Requeued(Checkpointable):  # type: ignore[misc]
    """A call that submitit lets SLURM begin again when its time limit is near: its runs continue."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def __call__(self) -> None:
        self.call()


class Slurm(Engine):
    """See `Engine`. Ids are `squeue`'s: 123_4, or 123 of a single task."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        parameters = {"name": "ood-data", "array_parallelism": self.cluster.workers, **self.cluster.slurm}
        names = SlurmExecutor._equivalence_dict()
        known = {*SlurmExecutor._valid_parameters(), *names}
        if unknown := [key for key in parameters if key not in known]:
            raise InputError(f"[slurm] has an unknown parameter {unknown[0]!r}{did_you_mean(unknown[0], known)}")
        settings = dict(re.findall(r"^(\w+)\s*=\s*(\S+)", _said("scontrol", "show", "config"), re.MULTILINE))
        limit = settings.get("MaxArraySize", "")
        self.most_tasks = int(limit) if limit.isdigit() else None
        self.cluster_name = settings.get("ClusterName", "")
        self._executor = SlurmExecutor(self.folder, max_num_timeout=TIMEOUTS)
        self._executor.update_parameters(**self._executor._convert_parameters(parameters))

    def start(self, tasks: Sequence[Task]) -> list[str]:
        try:
            with self._executor.batch():
                jobs = [self._executor.submit(Requeued(task.call)) for task in tasks]
        except RuntimeError as error:  # submitit's, of what sbatch says
            raise MissingError(f"SLURM does not take the tasks: {' '.join(str(error).split())[-MOST_SAID:]}") from error
        futures = {job: task.future for job, task in zip(jobs, tasks, strict=True)}
        threading.Thread(target=self._follow, args=[futures], daemon=True).start()
        return [str(job.job_id) for job in jobs]

    def _follow(self, futures: dict[SlurmJob[None], Future[None]]) -> None:
        """End the futures of tasks as these leave the queue."""
        while futures:
            time.sleep(LOOK_SECONDS)
            try:
                states = self.states()
            except OSError:  # it may answer later
                continue
            for job in [job for job in futures if job.job_id not in states]:
                future = futures.pop(job)
                if job.paths.result_pickle.exists():
                    future.set_result(None)
                else:
                    future.set_exception(MissingError(f"see {job.paths.stderr}"))

    def states(self) -> dict[str, State]:
        """Those whose script is in this folder, where submitit writes it: ids begin again, and are copied along with folders."""
        folder, resolved = self.folder.resolve(), cache(Path.resolve)
        found: dict[str, State] = {}
        for line in _said("squeue", "-h", "-r", "-o", "%i %T %o").splitlines():
            key, state, script = (*line.split(" ", 2), "", "")[:3]
            if resolved(Path(script).parent) == folder:
                found[key] = "queued" if state == "PENDING" else "running"
        return found

    def cancel(self, ids: Sequence[str]) -> None:
        _said("scancel", *ids)


def _said(*command: str) -> str:
    """What a command of SLURM's prints."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError as error:
        raise MissingError(f"{command[0]} is not there: engine slurm works on a machine that can submit to SLURM") from error
    except subprocess.CalledProcessError as error:
        raise MissingError(f"SLURM does not answer: {command[0]}: {' '.join(error.stderr.split())}") from error
