"""Runs by tasks of an executor, and clusters written down: what is packed, what dies, who owns a folder."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.bench.cluster import packed, read_cluster
from harness.bench.execute import TRIES, carry_out, execute
from harness.bench.outcome import attempt, outcome_of
from harness.bench.plan import plan
from harness.io.locks import locked, owned
from harness.runs.presets import Settings
from harness.runs.records import FAILURE, SCORES, Failure
from harness.runs.run import LOCK, Run
from helpers.files import contents
from splits.errors import BusyError, DependencyError, InputError, MissingError

CPU = "cpu"
TINY = ("train.steps=20", "train.batch=16", "train.precision=fp32", "score.samples=50")


def planned(data: Path, out: Path, *models: str, seeds: int = 1, settings: tuple[str, ...] = ()) -> list[Run]:
    return list(plan(models, data, out, kinds=["random"], seeds=seeds, settings=Settings(overrides=(*TINY, *settings))).runs)


def weights(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(out).items() if name.endswith("model.safetensors")}


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, pytest.param(ProcessPoolExecutor, marks=pytest.mark.slow)])
def test_any_executor_gives_what_this_machine_gives(blocks_root: Path, tmp_path: Path, kind: type[Executor]) -> None:
    here, there = (planned(blocks_root, tmp_path / name, "mlp", seeds=3) for name in ("here", "there"))
    execute(here, jobs=1, progress=False)
    with kind() as executor:
        outcomes = execute(there, progress=False, executor=executor, pack=lambda runs: [runs[:2], runs[2:]])
    assert [outcome.run for outcome in outcomes] == there
    assert all(outcome.scores is not None for outcome in outcomes)
    assert weights(tmp_path / "here") == weights(tmp_path / "there")


class Dying(Executor):
    """Its tasks die, the first so many of them; each other one is done at once."""

    def __init__(self, deaths: int) -> None:
        self.deaths, self.tasks = deaths, 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.tasks += 1
        if self.tasks <= self.deaths:
            future.set_exception(BrokenProcessPool("the node is gone"))
        else:
            for run in args[0]:
                attempt(run, CPU)
            future.set_result(None)
        return future


def test_a_task_that_dies_is_tried_again_and_then_told(blocks_root: Path, tmp_path: Path) -> None:
    executor = Dying(TRIES - 1)
    (outcome,) = execute(planned(blocks_root, tmp_path, "mlp"), progress=False, executor=executor)
    assert outcome.scores is not None
    assert executor.tasks == TRIES
    (outcome,) = execute(planned(blocks_root, tmp_path / "b", "mlp"), progress=False, executor=Dying(99))
    assert outcome.error == "3 tasks ended without it: the node is gone"
    assert not outcome.defect


@pytest.mark.slow
def test_a_run_that_kills_its_process_is_given_up_and_the_others_are_done(
    blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deadly.py").write_text(
        "def build(in_channels, num_outputs):\n    import os\n    open('deaths', 'a').write('x')\n    os.kill(os.getpid(), 9)\n"
    )
    runs = planned(blocks_root, tmp_path / "runs", "deadly:build", "mlp")
    carry_out(runs, CPU, 1)
    dead, done = map(outcome_of, runs)
    assert "its process died 3 times" in dead.error
    assert (tmp_path / "deaths").read_text() == "xxx"
    assert done.scores is not None


def test_a_run_that_fails_keeps_why_until_it_is_tried_again(blocks_root: Path, tmp_path: Path) -> None:
    (run,) = planned(blocks_root, tmp_path, "mlp", settings=("train.log_every=1",))
    bad = replace(run, config=replace(run.config, train=replace(run.config.train, learning_rate=1e30)))
    attempt(bad, CPU)
    failure = Failure.read(run.folder / FAILURE)
    assert "the loss is not finite" in failure.error
    assert failure.log[0].startswith("Traceback")
    assert "NumericalError" in failure.log[-1]
    assert outcome_of(run).error == f"{failure.error} (on {failure.machine})"
    assert attempt(run, CPU).scores is not None
    assert not (run.folder / FAILURE).exists()


def test_a_run_at_which_another_process_is_has_not_failed(blocks_root: Path, tmp_path: Path) -> None:
    (run,) = planned(blocks_root, tmp_path, "mlp")
    run.folder.mkdir(parents=True)
    with locked(run.folder / LOCK):
        outcome = attempt(run, CPU)
    assert outcome.busy
    assert "is being run by another process" in outcome.error
    assert not (run.folder / FAILURE).exists()


@pytest.mark.parametrize("step", [1, 15])
def test_who_has_lost_the_lock_puts_nothing_in_place(blocks_root: Path, tmp_path: Path, step: int) -> None:
    """As after a time without the file server, which gave the lock to another."""
    (run,) = planned(blocks_root, tmp_path, "mlp", settings=("train.checkpoint_seconds=0", "train.log_every=5"))
    found: dict[str, bytes] = {}

    def progress(part: float) -> None:
        if not found and part * 21 >= step:
            (run.folder / LOCK).write_text("another")
            found.update(contents(run.folder))

    outcome = attempt(run, CPU, progress)
    assert outcome.busy
    assert "was taken over by another process" in outcome.error
    assert contents(run.folder) == found  # the other's lock, too


def test_an_owner_removes_what_a_killed_one_had_half_written(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.node7-12-abcd.partial").write_bytes(b"half")
    with owned(tmp_path / "lock", "busy") as owner:
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]
        owner.write(tmp_path / "file", b"whole")
        (tmp_path / "lock").write_text("another's")
        with pytest.raises(BusyError, match="taken over"):
            owner.write(tmp_path / "file", b"late")
    assert contents(tmp_path) == {"file": b"whole", "lock": b"another's"}


def test_runs_are_packed_the_longest_first(blocks_root: Path, tmp_path: Path) -> None:
    runs = planned(blocks_root, tmp_path, "mlp", seeds=10)
    minutes = {run.folder: 60.0 * (40 if run.seed == 7 else 5) for run in runs}
    tasks = packed(runs, minutes, workers=2, minutes=20)
    assert [[run.seed for run in task] for task in tasks] == [[7], [0, 1, 2, 3], [4, 5, 6, 8], [9]]
    assert [len(task) for task in packed(runs, minutes, workers=2, minutes=20, most=2)] == [2, 8]
    assert len(packed(runs, minutes, workers=2, minutes=0.1)) == 10
    assert [len(task) for task in packed(runs, {}, workers=1, minutes=20)] == [2, 2, 2, 2, 2]
    assert packed(runs, {runs[3].folder: 60.0}, workers=2, minutes=4) == [runs[:4], runs[4:8], runs[8:]]
    assert packed([], {}, workers=1, minutes=20) == []


GOOD = 'engine = "slurm"\nworkers = 4\n[slurm]\npartition = "low"\n'


def test_a_cluster_is_read(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(GOOD)
    cluster = read_cluster(path)
    assert (cluster.engine, cluster.workers, cluster.minutes_per_task, cluster.slurm) == ("slurm", 4, 20, {"partition": "low"})
    assert not cluster.has_gpus
    path.write_text(GOOD + "gpus_per_node = 1\n")
    assert read_cluster(path).has_gpus


@pytest.mark.parametrize(
    "before, after, words",
    [
        ("workers", "workerz", "workerz: unknown key; did you mean 'workers'"),
        ("= 4", "= 0", "workers: greater than or equal to 1 is expected, got 0"),
        ('"slurm"', '"slrum"', "engine: 'slurm' or 'dask' is expected, got 'slrum'; did you mean 'slurm'"),
        ('"slurm"', '"dask"', r"needs a table \[dask\]"),
        ("[slurm]", "[dask]", r"dask\.partition: unknown key; known: 'scheduler', 'cluster', 'arguments'"),
        ('[slurm]\npartition = "low"', "[dask]", "dask: either scheduler or cluster is expected"),
        ("[slurm]", "[slurm", "is not TOML"),
    ],
)
def test_a_wrong_cluster_is_told_in_a_line(tmp_path: Path, before: str, after: str, words: str) -> None:
    assert before in GOOD
    (tmp_path / "cluster.toml").write_text(GOOD.replace(before, after))
    with pytest.raises(InputError, match=words):
        read_cluster(tmp_path / "cluster.toml")


def test_no_cluster_file(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="a cluster in TOML is expected"):
        read_cluster(tmp_path / "cluster.toml")


def test_scores_are_written_once(blocks_root: Path, tmp_path: Path) -> None:
    """Two tasks with the same runs: one carries each out, and the other finds it done."""
    runs = planned(blocks_root, tmp_path, "mlp", seeds=2)
    carry_out(runs, CPU, 1)
    before = {run.folder: (run.folder / SCORES).stat() for run in runs}
    carry_out(runs, CPU, 1)
    assert {run.folder: (run.folder / SCORES).stat() for run in runs} == before


def test_a_package_for_dask_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    from harness.bench.dask import Dask

    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    (tmp_path / "c.toml").write_text('engine = "dask"\nworkers = 1\n[dask]\ncluster = "dask_jobqueue.PBSCluster"\n')
    with pytest.raises(DependencyError, match=r"dask_jobqueue\.PBSCluster needs a package: pip install dask-jobqueue"):
        Dask(read_cluster(tmp_path / "c.toml"), tmp_path, lambda tasks: None)
