"""`bench --cluster` on the real engines: whatever is killed, every run ends once, with the weights that one machine gives."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.bench.execute import BUSY_SECONDS, TRIES
from helpers import slurm
from helpers.commands import ROOT, CommandLine
from helpers.files import contents

pytestmark = pytest.mark.cluster

SETTINGS = [
    argument
    for setting in ("train.steps=1000", "train.batch=16", "train.checkpoint_seconds=0.2", "score.samples=50", "train.log_every=500")
    for argument in ("--set", setting)
]
STOP_SECONDS = 2 * TRIES * BUSY_SECONDS  # longer than anyone waits for a run that another process is at
TASK, CHILD = "submitit.core._submit", "spawn_main"  # in the commands of a task, and of a process that carries out a run
GENERATE = ["generate", "celebglow", "--persons", 16, "--levels", 3]
BENCH = ["bench", "--model", "mlp", "--kind", "random,extrapolation", *SETTINGS]


def weights(out: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(out).items() if name.endswith("model.safetensors")}


def scores(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("scores.json"))


def checkpoints(out: Path) -> list[Path]:
    return list(out.rglob("checkpoint.pt"))


def eventually(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def workers(word: str, task: str = "") -> list[int]:
    """The Python processes whose command has that word, of a task of SLURM's or of anyone."""
    job, _, number = task.partition("_")
    wanted = {f"SLURM_ARRAY_JOB_ID={job}", f"SLURM_ARRAY_TASK_ID={number}"} if task else set()
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command, environment = (
                (path / name).read_bytes().decode(errors="replace").split("\0") for name in ("cmdline", "environ")
            )
            if Path(command[0]).name.startswith("python") and any(word in each for each in command) and wanted <= set(environment):
                found.append(int(path.name))
    return found


def send(number: signal.Signals, processes: list[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


@pytest.fixture(scope="module")
def serial(ood_data: CommandLine, blocks_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 runs, one after the other, on this machine."""
    out = tmp_path_factory.mktemp("serial")
    done = ood_data(*BENCH, "--seeds", 12, "--data", blocks_root, "--out", out, "--jobs", 1)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def a_slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a SLURM's that runs."""
    pytest.importorskip("submitit")
    if not slurm.is_there():
        pytest.skip("SLURM's daemons are not here, or not for us to start")
    folder = tmp_path_factory.mktemp("slurm")
    with slurm.slurm(folder):
        yield folder


@pytest.fixture
def slurm_file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text('engine = "slurm"\nworkers = 4\nminutes_per_task = 1\n[slurm]\npartition = "low"\ntimeout_min = 30\n')
    return path


def test_slurm_whatever_happens_to_tasks(
    ood_data: CommandLine, blocks_root: Path, serial: Path, a_slurm: Path, slurm_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    command = [*BENCH, "--seeds", 12, "--data", blocks_root, "--out", out, "--cluster", slurm_file]
    done = ood_data(*command, "--json")
    assert done.returncode == 0, done.stderr
    tasks = json.loads(done.stdout)["tasks"]
    assert sum(len(runs) for runs in tasks.values()) == 24
    assert len(tasks) == 4  # MaxArraySize

    again = json.loads(ood_data(*command, "--json").stdout)
    assert again["tasks"] == {}  # all are queued

    eventually(lambda: checkpoints(out))
    high = subprocess.Popen(["srun", "--quiet", "--partition=high", "--nodes=2", "--ntasks=2", "--cpus-per-task=2", "sleep", "3"])
    assert high.wait(120) == 0  # all that ran in `low` was preempted
    slurm.begin_requeued()
    eventually(lambda: len([task for task in slurm.running() if workers(CHILD, task)]) == 4)

    limited, cancelled, stopped, killed = slurm.running()
    with frozen(workers("", limited)):
        slurm.said("scontrol", "update", f"JobId={limited}", "TimeLimit=1")
        slurm.said("scancel", cancelled)
        _stop_and_kill(a_slurm, stopped, killed)
        eventually(lambda: limited not in slurm.running())
    # Pending if it woke for longer than the thread above slept, on a busy machine: then it heard of its limit, and had itself requeued.
    eventually(lambda: re.search(r"JobState=(TIMEOUT|PENDING)", slurm.said("scontrol", "show", "job", limited)))
    slurm.begin_requeued()

    told = json.loads(ood_data("bench", "status", "--out", out, "--json").stdout)
    assert sum(told["counts"].values()) == 24
    assert not told["failed"]
    done = ood_data(*command, "--wait", "--json")
    assert done.returncode == 0, done.stdout
    assert len({run["seed"] for run in json.loads(done.stdout)["runs"]}) == 12
    assert len(scores(out)) == len(json.loads(done.stdout)["runs"]) == 24
    assert weights(out) == weights(serial)
    assert ood_data("bench", "status", "--out", out).stdout == "24 runs: 24 done\n"
    assert not list(out.glob("*/*/*/*/*.partial"))


def _stop_and_kill(folder: Path, stopped: str, killed: str) -> None:
    """Stop one of two tasks of node n2 for long, kill the other, first a process of its run's and then all of it, and kill the node."""
    halted, since = workers("", stopped), time.monotonic()
    send(signal.SIGSTOP, halted)
    before = workers(CHILD, killed)
    send(signal.SIGKILL, before)
    eventually(lambda: set(workers(CHILD, killed)) - set(before))  # another process goes on with the task
    send(signal.SIGKILL, workers(TASK, killed))
    slurm.kill_node(folder, "n2")
    slurm.start_node("n2")
    eventually(lambda: time.monotonic() - since > STOP_SECONDS)
    send(signal.SIGCONT, halted)


@contextlib.contextmanager
def frozen(processes: list[int]) -> Iterator[None]:
    """Within, processes do nothing, not even when SLURM wakes them to hear of their time limit, which comes then without a warning."""
    ended = threading.Event()

    def freeze() -> None:
        while not ended.wait(0.01):
            send(signal.SIGSTOP, processes)

    thread = threading.Thread(target=freeze)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def sixteen(ood_data: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A CelebGlow of sixteen people, as one machine makes it."""
    root = tmp_path_factory.mktemp("sixteen")
    done = ood_data(*GENERATE, "--out", root)
    assert done.returncode == 0, done.stderr
    return contents(root)


def generated(ood_data: CommandLine, root: Path, cluster: Path, handed: int) -> dict[str, bytes]:
    """A CelebGlow that a cluster makes, and nothing of how it was made."""
    command = [*GENERATE, "--out", root, "--cluster", cluster]
    done = ood_data(*command)
    assert done.returncode == 0, done.stderr
    assert f": {handed} of {handed} parts" in done.stdout
    assert f": 0 of {handed} parts" in ood_data(*command).stdout  # all are queued
    told = json.loads(ood_data("generate", "status", "--out", root, "--json").stdout)
    assert len(told["parts"]) == handed
    done = ood_data(*command, "--wait", "--json")
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["complete"]
    assert ood_data("generate", "status", "--out", root).stdout.endswith(f"{handed} done\n")
    assert ood_data("data", "verify", "celebglow", "--data", root).returncode == 0
    shutil.rmtree(root / ".cluster")
    return contents(root)


def test_slurm_generates_what_one_machine_generates(
    ood_data: CommandLine, sixteen: dict[str, bytes], a_slurm: Path, slurm_file: Path, tmp_path: Path
) -> None:
    assert generated(ood_data, tmp_path / "data", slurm_file, 4) == sixteen


def test_slurm_cancel_and_what_is_left(
    ood_data: CommandLine, blocks_root: Path, a_slurm: Path, slurm_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    command = ["bench", "--model", "mlp", "--kind", "random", "--set", "train.steps=10000000", "--data", blocks_root, "--out", out]
    assert ood_data(*command, "--cluster", slurm_file).returncode == 0
    assert json.loads(ood_data("bench", "cancel", "--out", out, "--json").stdout) == {"cancelled": 1}
    eventually(lambda: not slurm.said("squeue", "--noheader"))
    told = ood_data("bench", "status", "--out", out)
    assert told.returncode == 1
    assert "1 run: 1 left" in told.stdout


def test_slurm_wrong_parameters_are_told_in_a_line(
    ood_data: CommandLine, blocks_root: Path, a_slurm: Path, slurm_file: Path, tmp_path: Path
) -> None:
    command = ["bench", "--model", "mlp", "--data", blocks_root, "--out", tmp_path, "--cluster", slurm_file]
    text = slurm_file.read_text()
    slurm_file.write_text(text.replace("partition", "partitoin"))
    told = ood_data(*command, "--kind", "random", "--json")
    assert told.returncode == 2
    assert told.stderr.endswith("ood-data: [slurm] has an unknown parameter 'partitoin'; did you mean 'partition'?\n")
    slurm_file.write_text(text.replace('"low"', '"none"'))
    told = ood_data(*command, "--kind", "random", "--json")
    assert told.returncode == 1
    assert "invalid partition specified: none" in told.stderr
    assert "Traceback" not in told.stderr


def test_two_nodes_that_mount_one_folder_have_one_owner(blocks_root: Path, serial: Path, tmp_path: Path) -> None:
    """Two mount namespaces, each with the folder at a place of its own: what NFS would be asked, where there is no NFS."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("mount namespaces are not for us to make")
    (tmp_path / "shared").mkdir()

    def bench(node: str) -> subprocess.Popen[str]:
        there = tmp_path / node
        there.mkdir(exist_ok=True)
        command = [*BENCH[:3], "--kind", "random", *SETTINGS, "--data", blocks_root, "--out", there / "runs", "--jobs", 1]
        script = 'mount --bind "$0" "$1" && shift && exec "$@"'
        arguments = ["sh", "-c", script, tmp_path / "shared", there, sys.executable, "-m", "cli", *command]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        return subprocess.Popen(["unshare", "--mount", *map(str, arguments)], env=environment, stdout=pipe, stderr=pipe, text=True)

    one = bench("one")
    eventually(lambda: checkpoints(tmp_path / "shared"))
    send(signal.SIGSTOP, [one.pid])
    two = bench("two")
    assert "is being run by another process" in two.communicate()[0]
    assert two.returncode == 1
    send(signal.SIGKILL, [one.pid])
    one.communicate()
    two = bench("two")
    assert two.communicate()
    assert two.returncode == 0
    made = weights(tmp_path / "shared" / "runs")
    assert len(made) == 1
    assert made.items() <= weights(serial).items()


@pytest.fixture
def dask_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cluster file for a scheduler with two workers, of one thread each."""
    pytest.importorskip("distributed")
    monkeypatch.setenv("OOD_DATA_HOME", str(tmp_path / "home"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    file = tmp_path / "scheduler.json"
    scheduler = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    worker = ["worker", "--nthreads", "1", "--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    with (tmp_path / "dask.log").open("w") as log:
        processes = [
            subprocess.Popen([sys.executable, "-m", "dask", *arguments], env=environment, cwd=tmp_path, stderr=log)
            for arguments in (scheduler, worker, worker)
        ]
    try:
        eventually(lambda: (tmp_path / "dask.log").read_text().count("Registered to") == 2, 90)
        address = json.loads(file.read_text())["address"]
        path = tmp_path / "dask.toml"
        path.write_text(f'engine = "dask"\nworkers = 2\nminutes_per_task = 1\n[dask]\nscheduler = "{address}"\n')
        yield path
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(60)


def test_dask_a_worker_is_killed_and_another_goes_on(
    ood_data: CommandLine, blocks_root: Path, serial: Path, dask_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    command = [*BENCH, "--seeds", 4, "--data", blocks_root, "--out", out, "--cluster", dask_file]
    done = ood_data(*command, "--json")
    assert done.returncode == 0, done.stderr
    assert sum(len(runs) for runs in json.loads(done.stdout)["tasks"].values()) == 8
    assert json.loads(ood_data(*command, "--json").stdout)["tasks"] == {}
    eventually(lambda: checkpoints(out))
    children = workers(CHILD)
    parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in children}
    holders = [parents[pid] for pid in children if parents[pid] in children]  # a worker, whose child carries a run out
    assert holders
    os.kill(holders[0], signal.SIGKILL)
    done = ood_data(*command, "--wait", "--json")
    assert done.returncode == 0, done.stdout
    assert len(scores(out)) == 8
    assert weights(out).items() <= weights(serial).items()


def test_dask_generates_what_one_machine_generates(
    ood_data: CommandLine, sixteen: dict[str, bytes], dask_file: Path, tmp_path: Path
) -> None:
    dask_file.write_text(dask_file.read_text().replace("workers = 2", "workers = 4"))
    assert generated(ood_data, tmp_path / "data", dask_file, 4) == sixteen


def test_dask_jobqueue_has_slurm_start_its_workers(
    ood_data: CommandLine, blocks_root: Path, serial: Path, a_slurm: Path, tmp_path: Path
) -> None:
    pytest.importorskip("dask_jobqueue")
    out, file = tmp_path / "runs", tmp_path / "jobqueue.toml"
    file.write_text(
        'engine = "dask"\nworkers = 2\n[dask]\ncluster = "dask_jobqueue.SLURMCluster"\n[dask.arguments]\n'
        f'queue = "low"\ncores = 1\nmemory = "4GB"\nwalltime = "00:30:00"\ninterface = "lo"\nlog_directory = "{tmp_path}"\n'
        f'python = "{sys.executable}"\njob_directives_skip = ["--mem"]\njob_script_prologue = ["export PYTHONPATH={ROOT}"]\n'
    )
    command = [*BENCH, "--seeds", 2, "--data", blocks_root, "--out", out, "--cluster", file]
    told = ood_data(*command)
    assert told.returncode == 2
    assert "lives as long as the command" in told.stderr
    done = ood_data(*command, "--wait", "--json")
    assert done.returncode == 0, done.stderr
    assert len(scores(out)) == 4
    assert weights(out).items() <= weights(serial).items()
    eventually(lambda: not slurm.said("squeue", "--noheader"))  # its workers end with the command


def test_dask_cancels_what_is_queued(ood_data: CommandLine, blocks_root: Path, dask_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    command = ["bench", "--model", "mlp", "--kind", "random", "--seeds", 4, "--data", blocks_root, "--out", out]
    assert ood_data(*command, "--set", "train.steps=10000000", "--cluster", dask_file).returncode == 0
    assert json.loads(ood_data("bench", "cancel", "--out", out, "--json").stdout) == {"cancelled": 4}
    eventually(lambda: json.loads(ood_data("bench", "status", "--out", out, "--json").stdout)["counts"]["queued"] == 0)


def test_no_scheduler_is_told_in_a_line(ood_data: CommandLine, blocks_root: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    file = tmp_path / "dask.toml"
    file.write_text('engine = "dask"\nworkers = 2\n[dask]\nscheduler = "tcp://127.0.0.1:1"\n')
    command = ["bench", "--model", "mlp", "--kind", "random", "--data", blocks_root, "--out", tmp_path / "runs", "--cluster", file]
    told = ood_data(*command)
    assert told.returncode == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in told.stderr
    assert "Traceback" not in told.stderr
