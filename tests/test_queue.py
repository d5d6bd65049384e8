"""Submissions that are written down: whose they are, what reading them does, and which tasks of a scheduler's are theirs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.bench import queue
from harness.bench.cluster import Cluster, DaskCluster
from harness.bench.engine import Engine, State, Submitted, Task
from harness.bench.outcome import attempt
from harness.bench.plan import plan
from harness.bench.queue import FOLDER
from harness.bench.submissions import RunQueue, Runs, execute_there, status, submit_runs
from harness.runs.presets import Settings
from harness.runs.run import Run
from helpers.commands import invoke
from splits.errors import MissingError

CPU = "cpu"
TINY = Settings(overrides=("train.steps=20", "train.batch=16", "train.precision=fp32", "score.samples=50"))
SLURM = Cluster(engine="slurm", workers=2)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OOD_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "runs"


@pytest.fixture
def runs(blocks_root: Path, out: Path) -> list[Run]:
    return list(plan(["mlp"], blocks_root, out, kinds=["random"], seeds=2, settings=TINY).runs)


def write(runs: Sequence[Run], where: Cluster, /, *ids: str, name: str = "1", **changes: Any) -> Path:
    """A submission in the runs' folder; each task has a run."""
    folder = runs[0].out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    document = Runs.of({key: [run] for key, run in zip(ids, runs, strict=False)}, where, CPU).to_dict()
    (folder / f"{name}.json").write_text(json.dumps(document | changes))
    return folder


@pytest.mark.parametrize("command", [("bench", "status"), ("bench", "cancel"), ("generate", "status"), ("generate", "cancel")])
def test_a_strangers_document_starts_no_class(runs: list[Run], out: Path, command: tuple[str, str]) -> None:
    cluster = {
        "engine": "dask",
        "workers": 1,
        "dask": {"cluster": "subprocess.Popen", "arguments": {"args": ["touch", str(out / "made")]}},
    }
    write(runs, SLURM, "1", "2", cluster=cluster)
    parts = out / FOLDER / "celebglow"
    parts.mkdir()
    (parts / "1.json").write_text(json.dumps({"format": 1, "cluster": cluster, "count": 1, "tasks": [{"id": "1", "work": [1]}]}))
    told = invoke(*command, "--out", out)
    assert "Traceback" not in told.stderr
    assert not (out / "made").exists()


def test_a_document_with_a_class_is_left_out_in_a_line(runs: list[Run], out: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(runs, SLURM, "1", cluster={"engine": "dask", "workers": 1, "dask": {"cluster": "subprocess.Popen"}})
    assert not RunQueue(out).submissions
    (line,) = caplog.messages
    assert "cluster: a scheduler is expected, not a class that starts one" in line


@pytest.mark.parametrize("case", ["work", "config"])
def test_numbers_that_are_not_there_are_left_out_in_a_line(
    runs: list[Run], out: Path, caplog: pytest.LogCaptureFixture, case: str
) -> None:
    folder = write(runs, SLURM, "1", "2")
    document = json.loads((folder / "1.json").read_text())
    if case == "work":
        document["tasks"][0]["work"] = [2]
    else:
        document["runs"][0]["config"] = 1
    (folder / "1.json").write_text(json.dumps(document))
    assert not RunQueue(out).submissions
    assert "that is not there" in caplog.messages[0]


def test_a_dask_scheduler_is_only_asked_by_who_has_handed_tasks_to_it(
    runs: list[Run], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Cluster]()

    def engine_of(cluster: Cluster, folder: Path, submitted: Submitted = lambda tasks: None) -> Engine:
        asked.append(cluster)
        return Doing(cluster, folder, submitted)

    monkeypatch.setattr(queue, "engine_of", engine_of)
    there = Cluster(engine="dask", workers=1, dask=DaskCluster(scheduler="tcp://127.0.0.1:1"))
    write(runs, there, "1", "2")
    told = status(out)
    assert "was not asked, because you have handed no tasks to it from here" in told.lines[-1]
    assert not RunQueue(out).cancel("ood-data bench").ok
    assert not asked
    RunQueue(out).engine(there, lambda work, reached: Runs.of(work, reached, CPU))
    assert len(asked) == 1
    assert RunQueue(out).cancel("ood-data bench").ok
    assert len(asked) == 2


@pytest.fixture
def a_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands in the place of SLURM's: `queue` is what squeue prints, `cancelled` what scancel was given."""
    pytest.importorskip("submitit")
    folder = tmp_path / "slurm"
    folder.mkdir()
    said = {
        "scontrol": "printf 'ClusterName             = here\\nMaxArraySize            = 1001\\n'",
        "squeue": f'[ "$*" = "-h -r -o %i %T %o" ] && cat {folder}/queue',
        "scancel": f'echo "$@" >> {folder}/cancelled',
        "srun": "true",
    }
    for name, script in said.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_slurm_tasks_are_those_whose_script_is_in_the_folder(runs: list[Run], out: Path, a_slurm: Path) -> None:
    folder = write(runs, SLURM, "4711", "4712_0")
    (a_slurm / "queue").write_text(
        f"4711 RUNNING /home/me/other.sh\n4712_0 PENDING {folder}/.submission_file_ab.sh\n4713 RUNNING {folder}/x.sh\n4714 RUNNING\n"
    )
    assert status(out).data["counts"] == {"done": 0, "running": 0, "queued": 1, "failed": 0, "left": 1}
    assert RunQueue(out).cancel("ood-data bench").data == {"cancelled": 1}
    assert (a_slurm / "cancelled").read_text() == "4712_0\n"


def test_a_copy_of_a_folder_has_none_of_the_tasks(runs: list[Run], out: Path, a_slurm: Path) -> None:
    folder = write(runs, SLURM, "1", "2")
    (a_slurm / "queue").write_text(f"1 RUNNING {folder}/.submission_file_ab.sh\n2 RUNNING {folder}/.submission_file_ab.sh\n")
    out.rename(out.parent / "copy")
    assert RunQueue(out.parent / "copy").cancel("ood-data bench").data == {"cancelled": 0}
    assert not (a_slurm / "cancelled").exists()
    out.symlink_to(out.parent / "copy")  # another name of the folder
    (a_slurm / "queue").write_text(f"1 RUNNING {folder}/.submission_file_ab.sh\n")
    assert RunQueue(out.parent / "copy").cancel("ood-data bench").data == {"cancelled": 1}


def test_ids_of_another_slurm_are_not_looked_up(runs: list[Run], out: Path, a_slurm: Path) -> None:
    folder = write(runs, SLURM, "1", "2", cluster_name="there")
    (a_slurm / "queue").write_text(f"1 RUNNING {folder}/.submission_file_ab.sh\n")
    told = status(out)
    assert told.data["counts"]["left"] == 2
    assert "tasks are on SLURM's cluster 'there', and this machine is of 'here'" in told.lines[-1]
    assert not RunQueue(out).cancel("ood-data bench").ok
    assert not (a_slurm / "cancelled").exists()
    write(runs, SLURM, "1", "2", cluster_name="here")
    assert status(out).data["counts"]["queued"] == 1


def test_a_parameter_of_before_stops_nothing(runs: list[Run], out: Path, a_slurm: Path) -> None:
    old = SLURM.model_copy(update={"slurm": {"of_before": 1}})
    folder = write(runs, old, "1", "2")
    (a_slurm / "queue").write_text("".join(f"{key} RUNNING {folder}/.submission_file_ab.sh\n" for key in (1, 2)))
    assert status(out).data["counts"]["queued"] == 2
    report = submit_runs(runs, SLURM, out, CPU, None)
    assert "handed to slurm: 0 of 2 runs, in 0 tasks" in report.lines[0]
    assert RunQueue(out).cancel("ood-data bench").data == {"cancelled": 2}


class Doing(Engine):
    """A scheduler whose tasks are over when they are handed over; the first of all does nothing."""

    made = handed = 0
    cluster_name = "here"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        Doing.made += 1

    @property
    def reached(self) -> Cluster:
        dask = self.cluster.dask and DaskCluster(scheduler="tcp://127.0.0.1:1")
        return self.cluster.model_copy(update={"dask": dask})

    def start(self, tasks: Sequence[Task]) -> list[str]:
        for task in tasks:
            Doing.handed += 1
            if Doing.handed > 1:
                for run in task.work:
                    attempt(run, CPU)
            task.future.set_result(None)
        return [f"{Doing.handed}_{number}" for number, _ in enumerate(tasks)]

    def states(self) -> dict[str, State]:
        return {}

    def cancel(self, ids: Sequence[str]) -> None:
        raise AssertionError


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def used() -> None:
        Doing.made = Doing.handed = 0
        monkeypatch.setattr(queue, "engine_of", lambda *arguments: Doing(*arguments))

    return used


@pytest.mark.parametrize("cluster", [SLURM, Cluster(engine="dask", workers=1, dask=DaskCluster(cluster="a.Class"))])
def test_waiting_reaches_a_cluster_once_and_writes_down_what_goes_on(
    runs: list[Run], out: Path, use: Callable[[], None], cluster: Cluster
) -> None:
    use()
    outcomes = execute_there(runs, cluster, out, CPU, None, progress=False)
    assert all(outcome.scores is not None for outcome in outcomes)
    assert Doing.made == 1
    documents = sorted((out / FOLDER).glob("*.json"))
    if cluster is SLURM:
        assert {json.loads(path.read_text())["cluster_name"] for path in documents} == {"here"}
    else:
        assert not documents
        with pytest.raises(MissingError, match="nothing was submitted"):
            status(out)


def test_who_has_done_all_is_not_asked(runs: list[Run], out: Path, use: Callable[[], None]) -> None:
    use()
    write(runs, SLURM, "1", "2")
    assert RunQueue(out).submissions
    assert Doing.made == 1
    for run in runs:
        attempt(run, CPU)
    assert status(out).ok
    assert RunQueue(out).cancel("ood-data bench").ok
    assert Doing.made == 1
