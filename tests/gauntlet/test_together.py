"""Several processes on one store, or one folder of runs: one result, and nobody is shown a half of it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from attack import Command, Ended, chance, differences, made, many, run, tree
from jobs import BENCH, GENERATE, Arguments, Inputs, inputs

from harness.runs.records import SCORES

__all__ = ["chance", "inputs"]

pytestmark = pytest.mark.slow


def all_of(*commands: Arguments, pauses: random.Random | None = None) -> list[Ended]:
    """Run them at once, or begun one after the other within a second."""
    running = []
    for arguments in commands:
        running.append(Command(arguments))
        time.sleep(pauses.uniform(0, 1) if pauses else 0)
    return [command.end() for command in running]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("whole")
    made(*GENERATE, "--out", folder)
    return tree(folder)


def test_writers_of_the_same(chance: random.Random, whole: dict[str, str], tmp_path: Path) -> None:
    for number in range(many(1, 10)):
        out = tmp_path / str(number)
        for ended in all_of(*[[*GENERATE, "--out", out]] * 3, pauses=chance):
            ended.assert_fine(0, 1)
        assert not differences(tree(out), whole)


def test_writers_of_parts_while_others_look(chance: random.Random, whole: dict[str, str], tmp_path: Path) -> None:
    for number in range(many(1, 10)):
        out, parts = tmp_path / str(number), chance.randint(2, 8)
        out.mkdir()
        running = [Command([*GENERATE, "--part", f"{part}/{parts}", "--out", out]) for part in range(1, parts + 1)]
        while any(command.process.is_alive() for command in running):
            run("data", chance.choice(["verify", "list"]), "--data", out).assert_fine(0, 1)
        for command in running:
            command.end().assert_fine(0)
        assert not differences(tree(out), whole)


def test_writers_of_different_stores(chance: random.Random, tmp_path: Path) -> None:
    """Two seeds, two lengths, or one that is overwritten: one of them, whole."""
    for number in range(many(2, 12)):
        out = tmp_path / str(number)
        more = chance.choice([["--seed", 1], ["--persons", 6], ["--seed", 1, "--overwrite"]])
        for ended in all_of([*GENERATE, "--out", out], [*GENERATE, *more, "--out", out], pauses=chance):
            ended.assert_fine(0, 1, 2)
        run("data", "verify", "celebglow", "--data", out).assert_fine(0)


def test_benches_and_reports(inputs: Inputs, tmp_path: Path) -> None:
    """Each run is made once, as if they had not met; reports into one folder are one report."""
    one, out = tmp_path / "one", tmp_path / "out"
    bench = [*BENCH, "--seeds", 2, "--kind", "random", "--data", inputs.stores, "--out"]
    made(*bench, one)
    for ended in all_of([*bench, out], [*bench, out]):
        ended.assert_fine(0, 1)
    made(*bench, out)
    assert not differences(tree(out), tree(one))
    made("report", out, "--out", tmp_path / "report")
    for ended in all_of(*[["report", out, "--out", tmp_path / "reports"]] * 3):
        ended.assert_fine(0)
    assert not differences(tree(tmp_path / "reports"), tree(tmp_path / "report"))


def workers_of(process: int) -> list[int]:
    """Its children that train, by Linux' list of processes."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(status[1]) == process and status[0] != "Z" and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except (OSError, IndexError, ValueError):
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="workers are found in /proc")
def test_workers_that_are_killed(chance: random.Random, inputs: Inputs, tmp_path: Path) -> None:
    """The bench says so and goes on, or the same bench does; and a bench that is killed leaves no worker behind."""
    options = ["--seeds", 2, "--jobs", 2, "--set", "train.steps=300", "--kind", "random", "--data", inputs.stores, "--out"]
    made(*BENCH, *options, tmp_path / "one")
    for number in range(many(1, 5)):
        out = tmp_path / str(number)
        bench = Command([*BENCH, *options, out])
        deadline = time.monotonic() + 300
        while not (workers := workers_of(bench.process.pid or 0)) or not [*out.rglob("config.json")]:
            assert time.monotonic() < deadline, "no worker began"
            time.sleep(0.05)
        time.sleep(chance.uniform(0, 2))
        os.kill(chance.choice(workers), signal.SIGKILL)
        bench.end().assert_fine(0, 1)
        killed = Command([*BENCH, *options, out, "--set", "train.steps=400"])
        while not (workers := workers_of(killed.process.pid or 0)) and killed.process.is_alive():
            time.sleep(0.05)
        os.kill(killed.process.pid or 0, signal.SIGKILL)
        killed.end()
        for _ in range(200):
            if not any(Path(f"/proc/{worker}").exists() for worker in workers):
                break
            time.sleep(0.1)
        else:
            pytest.fail(f"{workers} go on alone")
        made(*BENCH, *options, out)
        assert len([*out.rglob(SCORES)]) >= 2
        shutil.rmtree(out)
