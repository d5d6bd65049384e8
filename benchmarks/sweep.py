"""What many runs cost beside their training: planning, our own time per run, idle cores, and the makespan on many workers.

    python benchmarks/sweep.py [--only plan,run,cores,workers]

- plan: `bench studies/paper.toml --dry-run`, time and memory, against `import torch` alone. The four stores are of their real size,
  and hold nothing.
- run: a run of one step and few samples, against the network's own share of it: built, a step, the forward passes, its state written.
- cores: 200 short runs, two at a time, against two cores that never wait. Of a core that others use too, the time in which our process
  could have run counts as busy: it is the kernel's (/proc/PID/schedstat).
- workers: the paper's study on 8, 64 and 512 workers, tasks as `harness.bench.cluster.packed` makes them, in that order; against the
  mean load of a worker, or the longest run, if that is more. Costs are what `harness.bench.estimate` says after it has seen a run of
  each model here. A second figure has each run take up to 20 % more or less than expected.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402
import torch  # noqa: E402

import harness  # noqa: E402
import splits  # noqa: E402
from harness.bench.cluster import packed  # noqa: E402
from harness.bench.estimate import seconds_of  # noqa: E402
from harness.bench.execute import execute  # noqa: E402
from harness.bench.outcome import attempt  # noqa: E402
from harness.bench.plan import plan  # noqa: E402
from harness.bench.study import plan_study, read_study  # noqa: E402
from harness.data.description import Description, hashes  # noqa: E402
from harness.data.manifest import Paths, finished, shard_path  # noqa: E402
from harness.data.writer import Writer  # noqa: E402
from harness.io.atomic import sha256  # noqa: E402
from harness.machine import keep_freed_memory  # noqa: E402
from harness.models import Representation, find  # noqa: E402
from harness.runs.presets import Settings  # noqa: E402
from harness.runs.run import Run  # noqa: E402
from splits import Factor, derive_spec  # noqa: E402

STUDY = ROOT / "studies/paper.toml"
GOAL_PLAN_SECONDS, GOAL_PLAN_BYTES = 5.0, 500e6
GOAL_OWN_SECONDS, GOAL_BUSY, GOAL_MAKESPAN = 0.05, 0.95, 1.10
MAX_ARRAY_SIZE = 1001  # SLURM's default
CPU = torch.device("cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="plan,run,cores,workers", help="which of the four, separated by commas")
    parser.add_argument("--runs", type=int, default=200, help="how many runs `cores` has")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load of the last minute {os.getloadavg()[0]:.1f}")
    parts = {"plan": planning, "run": own_time, "cores": lambda folder: busy_share(folder, options.runs), "workers": makespans}
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            parts[name](Path(folder))


def planning(folder: Path) -> None:
    write_hollow_stores(folder)
    base, base_used, base_bytes = measured("import torch")
    where = ["--data", str(folder), "--out", str(folder / "runs"), "--device", "cpu"]
    seconds, used, memory = measured("from cli import main; main(sys.argv[1:])", "bench", str(STUDY), "--dry-run", *where)
    start = time.process_time()
    runs = plan_study(read_study(STUDY), folder, folder / "runs").runs
    alone = time.process_time() - start
    print(
        f"planning {len(runs):,} runs: {seconds:.1f} s, {used:.1f} s of the processor, {memory / 1e6:.0f} MB; {seconds / base:.1f} x, "
        f"{used / base_used:.1f} x and {memory / base_bytes:.2f} x of `import torch` (goal {GOAL_PLAN_SECONDS:.0f} s, "
        f"{GOAL_PLAN_BYTES / 1e6:.0f} MB); the plan alone takes {alone:.2f} s of the processor"
    )


def measured(program: str, *arguments: str) -> tuple[float, float, int]:
    """Seconds, seconds of the processor, and the most bytes of memory of a Python program."""
    # It says itself: what the system tells its parent has the parent's own memory in it, of before it became another program.
    peak = "open('/proc/self/status').read().split('VmHWM:')[1].split()[0]"
    command = [sys.executable, "-c", f"import atexit, sys; atexit.register(lambda: print({peak}, file=sys.stderr)); {program}"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, check=True)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used, 1024 * int(done.stderr.split()[-1])


def own_time(folder: Path, count: int = 20) -> None:
    write_noise(folder)
    keep_freed_memory()
    settings = Settings("quick", ("train.steps=1", "train.precision=fp32", "score.samples=64"))
    runs = plan("mlp", folder, folder / "runs", kinds=["random"], seeds=count + 1, settings=settings).runs
    attempt(runs[0], CPU)  # what is loaded once in a process
    whole = spent(lambda: [attempt(run, CPU) for run in runs[1:]], count)
    assert all(run.is_done for run in runs)
    bare = spent(lambda: [bare_run(folder) for _ in range(count)], count)
    print(
        f"a run of one step: {1000 * whole[1]:.0f} ms of the processor, {whole[1] / bare[1]:.1f} x of the network's own "
        f"{1000 * bare[1]:.0f} ms; ours: {1000 * (whole[1] - bare[1]):.0f} ms (goal {1000 * GOAL_OWN_SECONDS:.0f} ms). On the clock "
        f"{1000 * whole[0]:.0f} ms, {1000 * bare[0]:.0f} ms of them the network's"
    )


def spent(work: Callable[[], object], count: int) -> tuple[float, float]:
    """Seconds, and seconds of the processor, of each of `count` pieces of work."""
    start, used = time.monotonic(), time.process_time()
    work()
    return (time.monotonic() - start) / count, (time.process_time() - used) / count


def bare_run(folder: Path) -> None:
    """What a run cannot do without: the network built, a step, forward passes of what is scored, and the training's state written."""
    torch.set_num_threads(1)
    data = harness.open("noise", folder)
    images = torch.from_numpy(np.asarray(data.images)[:256]).permute(0, 3, 1, 2).float() / 255
    targets = torch.rand(64, len(data.spec.grid.sizes))
    model = find("mlp").build(3, targets.shape[1])
    assert not isinstance(model, Representation)
    optimizer = torch.optim.Adam(model.parameters())
    (model(images[:64]) - targets).square().sum(1).mean().backward()
    optimizer.step()
    with torch.no_grad():
        for _ in range(-(-(64 + 64 + len(data)) // len(images))):  # test, train, and the cells whose answers are kept
            model(images)
    torch.save([model.state_dict(), optimizer.state_dict()], folder / "bare.pt")


def busy_share(folder: Path, count: int) -> None:
    write_noise(folder)
    settings = Settings("quick", ("train.steps=300", "train.precision=fp32", "score.samples=256"))
    runs = plan("mlp", folder, folder / "runs", kinds=["random"], seeds=count, settings=settings).runs
    times: dict[str, int] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/stat"):
                try:
                    if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                        ran, waited, _ = (path.parent / "schedstat").read_text().split()
                        times[path.parent.name] = int(ran) + int(waited)
                except (OSError, ValueError):
                    continue

    watching = threading.Thread(target=watch)
    watching.start()
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    outcomes = execute(runs, jobs=2, progress=False)
    wall = time.monotonic() - start
    ended.set()
    watching.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert all(outcome.scores is not None for outcome in outcomes)
    ran = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(
        f"{count} short runs on two cores: {wall:.0f} s, busy or waiting for a core {sum(times.values()) / 1e9 / (2 * wall):.1%} of the "
        f"time (goal {GOAL_BUSY:.0%}); {ran / (2 * wall):.1%} on one; load of the last minute {os.getloadavg()[0]:.1f}"
    )


def makespans(folder: Path) -> None:
    write_hollow_stores(folder)
    write_noise(folder / "noise", levels=2)
    runs = plan_study(read_study(STUDY), folder, folder / "runs").runs
    short = {}
    for run in runs:  # a run of each model, as the study has it, but for its length
        config = replace(
            run.config,
            train=replace(run.config.train, steps=4, log_every=4, keep_state=False),
            readout=replace(run.config.readout, steps=4),
            score=replace(run.config.score, samples=32),
            model=run.config.model | ({"weights": None} if "weights" in run.config.model else {}),
        )
        short.setdefault(
            run.model, replace(run, data=folder / "noise", out=folder / "measured", dataset="noise", kind="random", config=config)
        )
    failed = [outcome.error for outcome in execute(short.values(), jobs=1, progress=False) if outcome.scores is None]
    assert not failed, failed
    seconds = {run.folder: each for run, each in seconds_of(runs, folder / "measured", CPU)}
    total, longest = sum(each or 0.0 for each in seconds.values()), max(each or 0.0 for each in seconds.values())
    assert None not in seconds.values()
    print(f"{len(runs):,} runs, {total / 3600:,.0f} core hours of this machine, the longest {longest / 3600:.1f}")
    noise = random.Random(0)
    actual = {key: (each or 0.0) * noise.uniform(0.8, 1.2) for key, each in seconds.items()}
    for workers in (8, 64, 512):
        for most in (None, MAX_ARRAY_SIZE):
            tasks = packed(runs, seconds, workers, 20, most)
            ratios = [
                makespan(tasks, costs, workers) / ideal(costs, workers)
                for costs in ({k: v or 0.0 for k, v in seconds.items()}, actual)
            ]
            limit = "" if most is None else f" (at most {most:,})"
            print(
                f"{workers} workers, {len(tasks):,} tasks{limit}: makespan {ratios[0]:.3f} x of the ideal, "
                f"{ratios[1]:.3f} x with costs that were not foreseen (goal {GOAL_MAKESPAN})"
            )


def ideal(seconds: dict[Path, float], workers: int) -> float:
    return max(sum(seconds.values()) / workers, *seconds.values())


def makespan(tasks: Sequence[Sequence[Run]], seconds: dict[Path, float], workers: int) -> float:
    """When the last task ends, if each begins, in their order, as soon as a worker is free."""
    free = [0.0] * workers
    for task in tasks:
        heapq.heapreplace(free, free[0] + sum(seconds[run.folder] for run in task))
    return max(free)


def write_hollow_stores(root: Path) -> None:
    """Stores of the paper's four datasets, of which everything is there but images: their shards are holes of the right length."""
    for name, channels, rows in (("dsprites", 1, 4096), ("shapes3d", 3, 1250), ("mpi3d", 3, 1296), ("celebglow", 3, 216)):
        spec = splits.load_spec(name)
        description = Description(name, (len(spec.grid), 64, 64, channels), rows, False, spec.to_dict())
        paths = Paths(root, name)
        (paths.group / "images").mkdir(parents=True)
        for path, data in description.metadata().items():
            (paths.group / path).write_bytes(data)
        entries = []
        for shard in range(description.shards):
            of = description.rows_of(shard)
            size = len(of) * 64 * 64 * channels + 4
            with (paths.group / shard_path(shard)).open("wb") as file:
                file.truncate(size)
            entries.append({"path": shard_path(shard), "bytes": size, "sha256": "0" * 64, "first": of.start, "last": of.stop - 1})
        for path in (paths.card, paths.preview):
            path.write_bytes(b"")
        files = {path.name: sha256(path) for path in (paths.card, paths.preview)} | hashes(description.metadata())
        paths.manifest.write_bytes(finished(entries, files))


def write_noise(root: Path, levels: int = 6) -> None:
    """A store of 12 × levels³ images of noise."""
    factors = (Factor("a", 12, "categorical"), Factor("b", levels), Factor("c", levels), Factor("d", levels))
    spec = derive_spec("noise", factors, 0.3, never_held_out=("a",))
    rows = levels**3
    with Writer(root, Description("noise", (len(spec.grid), 64, 64, 3), rows, False, spec.to_dict())) as writer:
        for shard in writer.missing:
            writer.publish(shard, np.random.default_rng(shard).integers(0, 256, (rows, 64, 64, 3), dtype=np.uint8))
        writer.finish(lambda _: "", lambda _: b"")


if __name__ == "__main__":
    main()
