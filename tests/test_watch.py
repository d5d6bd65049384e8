"""What watchers of a run are told: its log and its scores, as TensorBoard's own reader finds them; and that they change nothing."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from harness.bench.plan import plan
from harness.runs import watch
from harness.runs.presets import Settings
from harness.runs.records import RunSetup
from harness.runs.run import Run
from helpers.commands import assert_one_clear_line, invoke

CPU = torch.device("cpu")
TINY = ("train.steps=6", "train.batch=16", "train.log_every=2", "readout.steps=6", "readout.batch=16", "train.precision=fp32")


def run_of(root: Path, out: Path, model: str, *watchers: str, settings: tuple[str, ...] = ()) -> Run:
    planned = plan(model, root, out, kinds="extrapolation", settings=Settings("quick", (*TINY, *settings), CPU))
    (run,) = planned.watched(watchers).runs
    return run


def told(run: Run) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every scalar, as TensorBoard reads them."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"scalars": 0}).Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def scalars(run: Run) -> dict[str, list[tuple[int, float]]]:
    """What a run should have told."""
    found: dict[str, list[tuple[int, float]]] = {}
    steps, last = run.config.train.steps, 0
    for text in (run.folder / "log.jsonl").read_text().splitlines():
        line = json.loads(text)
        last = line["step"] + (steps if line["phase"] == "readout" else 0)
        for name in line.keys() - {"phase", "step"}:
            found.setdefault(f"{line['phase']}/{name}", []).append((last, line[name]))
    scores = json.loads((run.folder / "scores.json").read_text())
    for side, of in (("test", scores), ("train", scores["train"])):
        for measure in ("r2", "r2_sklearn", "mse"):
            for name, value in {**of[measure]["factors"], "mean": of[measure]["mean"]}.items():
                if value is not None:
                    found[f"{side}/{measure}/{name}"] = [(last, value)]
    return found


def assert_same(found: dict[str, list[tuple[int, float]]], wanted: dict[str, list[tuple[int, float]]]) -> None:
    assert found.keys() == wanted.keys()
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points]
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6)  # float32


def without_times(run: Run) -> tuple[bytes, Any, Any]:
    """Weights, scores and log of a run, but for how long it took."""
    scores, lines = json.loads((run.folder / "scores.json").read_text()), (run.folder / "log.jsonl").read_text()
    del scores["seconds"], scores["images_per_second"], scores["finished"]
    return (run.folder / "model.safetensors").read_bytes(), scores, re.sub(r'"seconds": [\d.e-]+', "", lines)


@pytest.mark.parametrize("model", ["mlp", "beta-vae"])
def test_tensorboard_reads_the_log_and_the_scores_and_the_run_is_the_same(blocks_root: Path, tmp_path: Path, model: str) -> None:
    pytest.importorskip("tensorboard")
    watched, alone = run_of(blocks_root, tmp_path / "a", model, "tensorboard"), run_of(blocks_root, tmp_path / "b", model)
    watched.execute(CPU)
    alone.execute(CPU)
    assert watched.fingerprint == alone.fingerprint
    assert without_times(watched) == without_times(alone)
    assert (watched.folder / "config.json").read_bytes() == (alone.folder / "config.json").read_bytes()
    assert {path.name for path in watched.folder.iterdir()} - {path.name for path in alone.folder.iterdir()} == {"tensorboard"}
    found = told(watched)
    assert_same(found, scalars(watched))
    assert [step for step, _ in found["train/loss"]] == [2, 4, 6]
    assert "test/r2/x-position" in found
    if model == "beta-vae":
        assert [step for step, _ in found["readout/loss"]] == [8, 10, 12]
        assert found["test/r2/mean"][0][0] == 12


@pytest.mark.parametrize("part", [0.25, 0.8])
def test_interrupted_anywhere_it_is_told_once(blocks_root: Path, tmp_path: Path, part: float) -> None:
    pytest.importorskip("tensorboard")
    run = run_of(blocks_root, tmp_path, "beta-vae", "tensorboard", settings=("train.checkpoint_seconds=0",))
    done: list[float] = []

    def stop(where: float) -> None:
        if where >= part and not done:
            done.append(where)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.execute(CPU, stop)
    run.execute(CPU)
    assert len(list((run.folder / "tensorboard").iterdir())) == 1
    assert_same(told(run), scalars(run))


OWN = """
import contextlib, json

@contextlib.contextmanager
def watch(setup, folder):
    with open("told.jsonl", "a") as file:
        yield lambda values, step: print(json.dumps([setup.model, step, values]), file=file)

@contextlib.contextmanager
def late(setup, folder):
    def tell(values, step):
        if step > 2:
            raise ValueError("full")
    yield tell

def never(setup, folder):
    raise RuntimeError("no server")

@contextlib.contextmanager
def closing(setup, folder):
    failure = None
    try:
        yield lambda values, step: None
    except BaseException as error:  # and swallows it
        failure = type(error).__name__
    with open("closed.jsonl", "a") as file:
        print(json.dumps([failure, (folder / "scores.json").exists()]), file=file)

also_closing = closing

def hanging(setup, folder):
    return Hanging()

class Hanging:
    def __enter__(self):
        return lambda values, step: None
    def __exit__(self, *failure):
        raise KeyboardInterrupt

@contextlib.contextmanager
def swallowing(setup, folder):
    try:
        yield lambda values, step: None
    finally:
        raise RuntimeError("can't close")
"""


@contextlib.contextmanager
def watched_by(tell: watch.Tell, folder: Path) -> Iterator[watch.Watched]:
    """A run in that folder whose numbers a function is told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "watcher_of", lambda name: lambda setup, folder: contextlib.nullcontext(tell))
        with watch.Watched(["mine"], cast(RunSetup, None), folder, folder / "log.jsonl") as watched:
            yield watched


def test_a_function_of_ones_own(blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_log_a.py").write_text(OWN)
    arguments = ["--kind", "random", "--data", blocks_root, "--jobs", 1, *(part for each in TINY for part in ("--set", each))]
    result = invoke("bench", "--model", "mlp", "--log", "my_log_a:watch", *arguments)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in Path("told.jsonl").read_text().splitlines()]
    assert [(model, step) for model, step, _ in lines] == [("mlp", 2), ("mlp", 4), ("mlp", 6), ("mlp", 6)]
    assert lines[0][2].keys() == {"train/loss", "train/seconds"}
    assert "test/r2/x-position" in lines[-1][2]


def test_finished_runs_say_that_they_tell_nothing(blocks_root: Path, tmp_path: Path) -> None:
    settings = [part for each in TINY for part in ("--set", each)]
    bench = ("bench", "--model", "mlp", "--kind", "random", "--data", blocks_root, "--out", tmp_path, *settings)
    assert "--log" not in invoke(*bench).stderr
    told = invoke(*bench, "--log", "tensorboard")
    assert told.returncode == 0
    assert "skipped, and not told to --log: 1 finished run (another --out makes them anew)" in told.stderr
    assert not list(tmp_path.rglob("events.*"))


def test_a_watcher_that_fails_is_left_and_the_run_is_the_same(
    blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_log_b.py").write_text(OWN)
    names = [f"my_log_b:{name}" for name in ("late", "never", "swallowing", "watch")]
    watched, alone = run_of(blocks_root, tmp_path / "a", "mlp", *names), run_of(blocks_root, tmp_path / "b", "mlp")
    watched.execute(CPU)
    alone.execute(CPU)
    assert without_times(watched) == without_times(alone)
    assert len(Path("told.jsonl").read_text().splitlines()) == 4
    for words in ("late is left: ValueError: full", "never is left: RuntimeError: no server", "RuntimeError: can't close"):
        assert sum(words in message for message in caplog.messages) == 1


def test_an_interruption_is_not_a_watchers_to_hold(blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_log_c.py").write_text(OWN)
    run = run_of(blocks_root, tmp_path / "a", "mlp", "my_log_c:swallowing")

    def stop(part: float) -> None:
        if part > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.execute(CPU, stop)


def test_a_run_has_its_scores_before_its_watchers_are_told_and_closed(
    blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_log_d.py").write_text(OWN)
    run = run_of(blocks_root, tmp_path / "a", "mlp", "my_log_d:closing", "my_log_d:hanging")
    with pytest.raises(KeyboardInterrupt):  # by a user who has waited long enough
        run.execute(CPU)
    assert run.is_done
    assert {path.name for path in run.folder.iterdir()}.isdisjoint({"checkpoint.pt", ".lock"})
    assert json.loads(Path("closed.jsonl").read_text()) == ["KeyboardInterrupt", True]


def test_watchers_are_told_that_a_run_failed(blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_log_e.py").write_text(OWN)
    names = ("my_log_e:closing", "my_log_e:also_closing")  # one swallows what it is told, and the other hears of it too
    run = run_of(blocks_root, tmp_path / "a", "mlp", *names)

    def diverge(part: float) -> None:
        if part > 0.4:
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        run.execute(CPU, diverge)
    closed = [json.loads(line) for line in Path("closed.jsonl").read_text().splitlines()]
    assert closed == [["FloatingPointError", False]] * 2
    run_of(blocks_root, tmp_path / "b", "mlp", "my_log_e:closing").execute(CPU)
    assert json.loads(Path("closed.jsonl").read_text().splitlines()[-1]) == [None, True]


@pytest.mark.parametrize("torn", [b'{"phase": "train", "st', b"\xff\x00", b"[1, 2]", b'{"step": 2}', b"7"])
def test_a_line_that_cant_be_read_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture, torn: bytes) -> None:
    told: list[tuple[dict[str, float], int]] = []
    with watched_by(lambda values, step: told.append((dict(values), step)), tmp_path) as watched:
        (tmp_path / "log.jsonl").write_bytes(b'{"phase": "train", "step": 2, "loss": 1.0}\n' + torn + b"\n")
        watched.line({"phase": "train", "step": 4, "loss": 0.5})
        watched.line({"phase": "train", "step": 6, "loss": 0.2})
    assert told == [({"train/loss": 1.0}, 2), ({"train/loss": 0.2}, 6)]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'log.jsonl'}: line 2 can't be read, and is not told to a log"
    ]


def test_a_log_that_cant_be_read_at_all_costs_the_watchers_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []
    with watched_by(lambda values, step: told.append(step), tmp_path) as watched:
        (tmp_path / "log.jsonl").mkdir()
        watched.line({"phase": "train", "step": 2, "loss": 1.0})
        watched.line({"phase": "train", "step": 4, "loss": 1.0})
    assert told == []
    assert sum("is left: IsADirectoryError" in record.getMessage() for record in caplog.records) == 1


def test_watchers_are_no_part_of_what_a_run_is(blocks_root: Path, tmp_path: Path) -> None:
    run = run_of(blocks_root, tmp_path, "mlp")
    assert replace(run, watchers=("tensorboard",)).folder == run.folder


def test_logs_that_are_none(blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ("bench", "--model", "mlp", "--data", blocks_root, "--out", tmp_path / "runs", "--log")
    monkeypatch.chdir(tmp_path)
    assert_one_clear_line(invoke(*bench, "tensorbord"), 2, "unknown log 'tensorbord'; did you mean 'tensorboard'?")
    assert_one_clear_line(invoke(*bench, "nowhere:watch"), 2, "can't import 'nowhere' for the log")
    monkeypatch.setattr(watch, "find_spec", lambda name: None)
    assert_one_clear_line(invoke(*bench, "tensorboard"), 1, "pip install 'ood-data[tensorboard]'")
    assert not (tmp_path / "runs").exists()
