"""`ood-data bench`, as users run it: kills, several processes, models of one's own, what is missing."""

from __future__ import annotations

import ast
import errno
import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from harness.bench.execute import execute
from harness.bench.names import MOST_RUNS
from harness.bench.plan import Gap, Plan, plan
from harness.bench.summary import summarize_outcomes, summarize_plan
from harness.data.store import Store
from harness.models import find
from harness.runs.presets import Settings
from harness.runs.run import Run
from helpers.commands import ROOT, CommandLine, assert_one_clear_line
from ood_data.commands import main
from splits import DATASETS
from splits.errors import InputError, NumericalError

CPU = torch.device("cpu")
TINY = ["train.steps=20", "train.batch=16", "readout.steps=20", "train.precision=fp32"]
SETTINGS = [argument for setting in TINY for argument in ("--set", setting)]


def planned(root: Path, out: Path, *models: str, **options: object) -> Plan:
    settings = Settings(overrides=tuple(options.pop("overrides", TINY)))  # type: ignore[arg-type]
    return plan(models, root, out, settings=settings, **{"kinds": ["extrapolation"]} | options)  # type: ignore[arg-type]


def gaps(plan: Plan, state: str) -> dict[str, str]:
    return {str(gap): gap.reason for gap in plan.gaps if gap.state == state}


def weights(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("model.safetensors"))}


def test_the_plan_is_the_product(blocks_root: Path, tmp_path: Path) -> None:
    plan = planned(blocks_root, tmp_path, "cnn", "pcl", kinds=[], seeds=2)
    assert [(run.model, run.kind, run.seed) for run in plan.runs] == [
        (model, kind, seed)
        for seed in (0, 1)
        for kind in ("random", "composition", "interpolation", "extrapolation")
        for model in ("cnn", "pcl")
    ]
    assert len({run.folder for run in plan.runs}) == 16
    assert gaps(plan, "absent")["shapes3d"] == f"ood-data data fetch shapes3d --out {blocks_root}"
    assert gaps(plan, "absent")["mpi3d_toy"] == f"ood-data data fetch mpi3d --variant toy --out {blocks_root}"
    assert plan.refused == ()
    assert len(planned(blocks_root, tmp_path, "all", overrides=[]).runs) == 17
    assert len(planned(blocks_root, tmp_path, "cnn", "cnn", kinds=["random"] * 2, datasets=["blocks"] * 2).runs) == 1


def test_an_option_is_for_the_models_that_have_it(blocks_root: Path, tmp_path: Path) -> None:
    plan = planned(blocks_root, tmp_path, "cnn", "slowvae", "beta-vae", overrides=["model.beta=7", "model.rate=2"])
    assert [run.config.model.get("beta") for run in plan.runs] == [None, 7, 7]
    with pytest.raises(ValueError, match=r"no option model\.width"):
        planned(blocks_root, tmp_path, "cnn", "pcl", overrides=["model.width=7"])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kinds": ["extrapolate"]}, "did you mean 'extrapolation'"),
        ({"seeds": 0}, "at least one seed"),
        (
            {"seeds": 10**5, "kinds": ["random", "composition"]},
            r"seeds: 100,000, and so 200,000 runs; at most 100,000 are expected",
        ),
        ({"seeds": 10**30}, "at most 100,000 runs are expected"),
        ({"seeds": [0, -1]}, r"none below 0, got \[0, -1\]"),
        ({"datasets": ["block"]}, "no dataset 'block' in .*; did you mean 'blocks'"),
    ],
)
def test_wrong_plans_are_refused(blocks_root: Path, tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        planned(blocks_root, tmp_path, "cnn", **options)


def test_a_plan_opens_each_dataset_once(blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    open_store = Store.__init__

    def spied(self: Store, root: Path, name: str) -> None:
        opened.append(name)
        open_store(self, root, name)

    monkeypatch.setattr(Store, "__init__", spied)
    plan = planned(blocks_root, tmp_path, "mlp", "cnn", kinds=[], seeds=3)
    summary = summarize_plan(plan)
    assert (len(summary.data["runs"]), opened) == (24, ["blocks"] * 2)  # once to see that it is whole, once for its splits
    opened.clear()
    plan.runs[0].execute(CPU)
    assert opened == ["blocks"]


def test_the_largest_plan_is_quick(blocks_root: Path, tmp_path: Path) -> None:
    start = time.process_time()
    summary = summarize_plan(planned(blocks_root, tmp_path, "mlp", seeds=MOST_RUNS // 10))
    assert summary.lines[-1 - len(DATASETS)] == f"{MOST_RUNS // 10:,} runs: {MOST_RUNS // 10:,} new"
    assert time.process_time() - start < 5


def test_several_processes_give_what_one_gives(blocks_root: Path, tmp_path: Path) -> None:
    options = {"kinds": ["random", "composition"]}
    one = execute(planned(blocks_root, tmp_path / "one", "cnn", **options).runs, CPU, jobs=1, progress=False)
    two = execute(planned(blocks_root, tmp_path / "two", "cnn", **options).runs, CPU, jobs=2, progress=False)
    assert [outcome.error for outcome in one + two] == [""] * 4
    assert weights(tmp_path / "one") == weights(tmp_path / "two")


def test_where_processes_cannot_work_together_one_run_goes_at_a_time(
    blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def lock(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")  # as where /dev/shm is: it names no file

    monkeypatch.setattr(type(multiprocessing.get_context("spawn")), "Lock", lock)
    monkeypatch.setattr("harness.bench.processes.ProcessPoolExecutor", None)
    with caplog.at_level(logging.WARNING):
        outcomes = execute(planned(blocks_root, tmp_path, "mlp", kinds=["random", "composition"]).runs, CPU, jobs=2, progress=False)
    assert [outcome.error for outcome in outcomes] == ["", ""]
    assert "one run at a time" in caplog.text
    assert "Read-only file system (is /dev/shm writable?)" in caplog.text


def test_a_failure_stops_no_other_run(blocks_root: Path, tmp_path: Path) -> None:
    def runs(*settings: str) -> tuple[Run, ...]:
        return planned(blocks_root, tmp_path, "mlp", overrides=[*TINY, *settings]).runs

    outcomes = execute([*runs("train.learning_rate=1e30"), *runs()], CPU, jobs=1, progress=False)
    assert "not finite" in outcomes[0].error
    assert outcomes[1].scores is not None


def test_a_process_that_dies_costs_its_own_run_only(ood_data: CommandLine, blocks_root: Path, my_folder: Path) -> None:
    module = my_folder / "my_module.py"
    module.write_text(
        module.read_text() + "\n\ndef deadly(in_channels, num_outputs):\n    import os\n    os.kill(os.getpid(), 9)\n"
    )
    models = ["--model", "my_module:deadly", "--model", "my_module:build"]
    done = ood_data("bench", *models, "--data", blocks_root, "--kind", "random", *SETTINGS, "--jobs", 2, "--json", cwd=my_folder)
    told = json.loads(done.stdout)
    assert [run["model"] for run in told["runs"]] == ["my_module:build"]
    assert [failed["run"] for failed in told["failed"]] == ["blocks, random, my_module:deadly, seed 0"]
    assert "its process died" in told["failed"][0]["error"]
    assert "going on with 1 at a time" in done.stderr


def test_an_error_in_ones_own_code_is_told_by_line(ood_data: CommandLine, blocks_root: Path, my_folder: Path) -> None:
    module = my_folder / "my_module.py"
    module.write_text(module.read_text() + "\n\ndef wrong(in_channels, num_outputs):\n    return nn.Linear(64, oops)\n")
    done = ood_data("bench", "--model", "my_module:wrong", "--data", blocks_root, "--kind", "random", *SETTINGS, cwd=my_folder)
    assert done.returncode == 1
    assert f"NameError: name 'oops' is not defined ({module}:11)" in done.stdout


def test_an_error_that_torch_raises_in_ones_own_model_is_no_defect_of_ours(
    ood_data: CommandLine, blocks_root: Path, my_folder: Path
) -> None:
    """A layer of the wrong size fails in torch's code, and not in a line of one's own."""
    module = my_folder / "my_module.py"
    module.write_text(
        module.read_text() + "\n\ndef small(channels, outputs):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs))\n"
    )
    done = ood_data("bench", "--model", "my_module:small", "--data", blocks_root, "--kind", "random", *SETTINGS, cwd=my_folder)
    assert done.returncode == 1
    assert "your my_module:small fails on images (B, 1, 64, 64): RuntimeError: mat1 and mat2 shapes" in done.stdout
    assert "defect" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "error, told, defect",
    [
        (ValueError("could not broadcast"), "a defect, please report it: ValueError: could not broadcast", True),
        (ZeroDivisionError("division by zero"), "a defect, please report it: ZeroDivisionError: division by zero", True),
        (KeyError("x"), "a defect, please report it: KeyError: 'x'", True),
        (InputError("a wrong value"), "a wrong value", False),
        (NumericalError("the loss is not finite"), "the loss is not finite", False),
        (
            OSError(errno.ENOSPC, "No space left on device", "f"),
            "No space left on device: f; the disk is full: make room, and run",
            False,
        ),
        (MemoryError(), "there is not enough memory", False),
    ],
)
def test_only_what_a_user_can_cause_is_said_as_their_mistake(
    blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str, defect: bool
) -> None:
    (run,) = planned(blocks_root, tmp_path, "mlp").runs

    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(Run, "execute", failing)
    (outcome,) = execute([run], CPU, progress=False)
    assert outcome.error.startswith(told)
    assert outcome.defect == defect
    if defect:
        done = CliRunner().invoke(
            main, ["bench", "--model", "mlp", "--kind", "random", "--data", str(blocks_root), "--out", str(tmp_path)]
        )
        assert done.exit_code == 1
        assert "ood-data --debug bench … shows where a defect is" in done.stdout


def test_a_model_of_ones_own_that_cant_be_called_is_refused(my_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(my_folder)
    builders = ("build(channels)", "sized(in_channels, num_outputs, width)", "other(in_channels=3, outputs=7)")
    (my_folder / "other_module.py").write_text("".join(f"def {builder}: ...\n" for builder in builders))
    with pytest.raises(ValueError, match="multiple values for argument 'outputs'"):
        find("other_module:other")
    with pytest.raises(ValueError, match=r"other_module:build must work as build\(in_channels, num_outputs\)"):
        find("other_module:build")
    with pytest.raises(ValueError, match="missing a required argument: 'width'"):
        find("other_module:sized")
    (my_folder / "typed_module.py").write_text(
        "from torch import nn\n\n\n"
        "def typed(in_channels, num_outputs, act=nn.ReLU): ...\n"
        "def keyed(in_channels, num_outputs, widths={'a': {1: 2}}): ...\n"
        "def plain(in_channels, num_outputs, act='ReLU', width=None, table={'a': [1, None, 0.5]}, deep=(True, (2,))): ...\n"
    )
    with pytest.raises(ValueError, match=r"typed_module:typed: option act: its default is of type type, .* such as 'relu'"):
        find("typed_module:typed")
    with pytest.raises(ValueError, match=r"typed_module:keyed: option widths: its default is of type dict"):
        find("typed_module:keyed")  # JSON would make other keys of them
    assert find("typed_module:plain").options["width"] is None
    with pytest.raises(ValueError, match=r"a module is expected: in the folder sub, other_module:build"):
        find("./sub/other_module.py:build")


def test_an_interrupt_is_told_in_a_line_and_keeps_the_checkpoint(blocks_root: Path, tmp_path: Path) -> None:
    settings = ["--set", "train.steps=1000000", "--set", "train.checkpoint_seconds=0.1"]
    command = [sys.executable, "-m", "cli", "bench", "--model", "mlp", "--kind", "random", "--data", str(blocks_root), *settings]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.rglob("checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert told.splitlines()[-1] == "ood-data: interrupted; the same command continues where it was"
    assert list(tmp_path.rglob("checkpoint.pt"))


def test_options_have_the_type_of_their_defaults(blocks_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.batch_norm: bool is expected, .*got 'False'"):
        planned(blocks_root, tmp_path, "pcl", overrides=["model.batch_norm=False"])
    folders = [
        planned(blocks_root, tmp_path, "beta-vae", overrides=[*TINY, *more]).runs[0].folder
        for more in ((), ("model.beta=4",), ("model.beta=4.0",), ("model.beta=5",))
    ]
    assert folders[0] == folders[1] == folders[2] != folders[3]


def test_a_kind_that_was_asked_for_and_cant_be_is_not_done(blocks_root: Path, tmp_path: Path) -> None:
    plan = planned(blocks_root, tmp_path, "cnn")
    gap = Gap("impossible", "blocks", "composition", "why not", asked=True)
    summary = summarize_outcomes(replace(plan, runs=(), gaps=(gap,)), [])
    assert not summary.ok
    assert summary.lines == ("not done: blocks can't have composition: why not",)
    assert summary.data["impossible"] == [["blocks", "composition", "why not"]]
    assert summarize_outcomes(replace(plan, runs=(), gaps=(replace(gap, asked=False),)), []).ok


def test_a_model_may_exit_and_import_what_lies_beside_it(blocks_root: Path, my_folder: Path) -> None:
    (my_folder / "beside.py").write_text("WIDTH = 8\n")
    (my_folder / "late_module.py").write_text(
        "def stop(in_channels, num_outputs): raise SystemExit('stop')\n\n\n"
        "def late(in_channels, num_outputs):\n    import beside\n    from my_module import build\n"
        "    return build(in_channels, num_outputs, beside.WIDTH)\n"
    )
    # As the installed command runs: without the current folder on the path.
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); from cli import main; main()", "bench"]
    models = ["--model", "late_module:stop", "--model", "late_module:late", "--kind", "random", "--jobs", "1", "--json"]
    done = subprocess.run(
        [*command, *models, "--data", str(blocks_root), *SETTINGS], cwd=my_folder, capture_output=True, text=True, check=False
    )
    told = json.loads(done.stdout)
    assert [run["model"] for run in told["runs"]] == ["late_module:late"]
    assert "SystemExit: stop" in told["failed"][0]["error"]


def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(blocks_root: Path, tmp_path: Path) -> None:
    settings = [*TINY, "train.checkpoint_seconds=0", "train.steps=60", "readout.steps=200"]
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    command = [sys.executable, "-m", "cli", "bench", "--model", "pcl", "--kind", "random", "--kind", "extrapolation", "--jobs", "2"]

    def start(out: Path) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        whole = [*command, "--data", str(blocks_root), "--out", str(out), *arguments]
        return subprocess.Popen(whole, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait(300) == 0
    kills = 0
    for wait in (0.2, 0.7):
        process = start(tmp_path / "killed")
        deadline = time.monotonic() + 120
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("checkpoint.pt")}
        while process.poll() is None and time.monotonic() < deadline:
            found = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").rglob("checkpoint.pt")}
            if any(time_ns != before.get(path) for path, time_ns in found.items()):
                time.sleep(wait)
                break
            time.sleep(0.05)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills
    last = start(tmp_path / "killed")
    assert last.wait(300) == 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    left = {path.name for path in (tmp_path / "killed").rglob("*") if path.is_file()}
    assert left == {"config.json", "log.jsonl", "maps.safetensors", "model.safetensors", "scores.json", "trained.pt"}


@pytest.fixture
def my_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "my_module.py").write_text(
        "from torch import nn\n\n\n"
        "def build(in_channels, num_outputs, hidden=8):\n"
        '    """A small network of mine."""\n'
        "    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(64 * in_channels, hidden), nn.ReLU(),\n"
        "                         nn.Linear(hidden, num_outputs))\n"
    )
    return folder


def test_a_model_of_ones_own(ood_data: CommandLine, blocks_root: Path, my_folder: Path) -> None:
    """The README's example, with several processes, then after an edit."""
    arguments = ["bench", "--model", "my_module:build", "--data", blocks_root, "--set", "model.hidden=16", *SETTINGS]
    done = ood_data(*arguments, "--kind", "random", "--kind", "extrapolation", "--jobs", 2, cwd=my_folder)
    assert done.returncode == 0, done.stderr
    assert "my_module:build" in done.stdout
    assert "(clip)" in done.stdout
    assert "quick: few steps, and a sample of the images scored" in done.stdout
    assert len(list((my_folder / "runs/blocks").glob("*/my_module.build/0-*/scores.json"))) == 2

    again = ood_data(*arguments, "--kind", "random", "--dry-run", "--json", cwd=my_folder)
    assert [run["state"] for run in json.loads(again.stdout)["runs"]] == ["done"]
    module = my_folder / "my_module.py"
    module.write_text(module.read_text().replace("ReLU", "Tanh"))
    edited = ood_data(*arguments, "--kind", "random", "--dry-run", "--json", cwd=my_folder)
    assert [run["state"] for run in json.loads(edited.stdout)["runs"]] == ["new"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_model_prints_stays_off_stdout(ood_data: CommandLine, blocks_root: Path, my_folder: Path, jobs: int) -> None:
    module = my_folder / "my_module.py"
    module.write_text("print('imported')\n" + module.read_text().replace("    return", "    print('built')\n    return"))
    kinds = ["--kind", "random", "--kind", "extrapolation"]
    done = ood_data(
        "bench", "--model", "my_module:build", "--data", blocks_root, *kinds, *SETTINGS, "--json", "--jobs", jobs, cwd=my_folder
    )
    assert len(json.loads(done.stdout)["runs"]) == 2
    assert "built" in done.stderr


def test_every_run_counts_the_same_in_the_bar(blocks_root: Path, tmp_path: Path) -> None:
    (run,) = planned(blocks_root, tmp_path, "pcl", overrides=[*TINY, "score.batch=10"]).runs
    seen: list[float] = []
    run.execute(CPU, seen.append)
    # 20 steps of training, 20 of the readout, 21 batches of 10, of test and of train, and 20 of the cells whose answers are kept
    assert seen == pytest.approx([*(step / 81 for step in range(1, 41)), *(step / 81 for step in range(40, 81))])


def test_what_is_missing_is_named_and_the_rest_is_done(ood_data: CommandLine, blocks_root: Path, tmp_path: Path) -> None:
    models = ["--model", "mlp", "--model", "resnet50-in21k", "--set", f"model.weights={tmp_path / 'absent'}"]
    datasets = ["--dataset", "blocks", "--dataset", "dsprites"]
    where = ["--data", blocks_root, "--out", tmp_path / "runs", "--kind", "random"]
    done = ood_data("bench", *models, *datasets, *where, *SETTINGS, "--json")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert [run["model"] for run in told["runs"]] == ["mlp"]
    assert [failed["run"] for failed in told["failed"]] == ["blocks, random, resnet50-in21k, seed 0"]
    assert "fetch https://huggingface.co" in told["failed"][0]["error"]
    assert told["absent"] == {"dsprites": f"ood-data generate dsprites --out {blocks_root}"}


def test_an_unfinished_store_is_told_from_none(blocks_root: Path, tmp_path: Path) -> None:
    shutil.copytree(blocks_root, tmp_path / "data")
    (tmp_path / "data/blocks.manifest.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"blocks in .* is not whole: repeat the command that makes it"):
        planned(tmp_path / "data", tmp_path / "runs", "mlp")
    plan = planned(tmp_path / "data", tmp_path / "runs", "mlp", datasets=["blocks", "dsprites"])
    assert "repeat the command that makes it" in gaps(plan, "unfinished")["blocks"]
    assert list(gaps(plan, "absent")) == ["dsprites"]
    assert [gap.dataset for gap in plan.refused] == ["dsprites", "blocks"]
    (tmp_path / "data/blocks.zarr/images/zarr.json").write_text("{")
    with pytest.raises(FileNotFoundError, match=r"blocks in .* is not whole: .*repeat the command that makes it, and it continues"):
        planned(tmp_path / "data", tmp_path / "runs", "mlp")


def test_wrong_use_is_told_in_a_line(ood_data: CommandLine, blocks_root: Path, tmp_path: Path) -> None:
    where = ("--data", blocks_root, "--out", tmp_path)
    assert_one_clear_line(ood_data("bench", *where), 2, "--model", "--list")
    assert_one_clear_line(ood_data("bench", "--model", "cnnn", *where), 2, "did you mean 'cnn'")
    assert_one_clear_line(ood_data("bench", "--model", "cnn", "--data", tmp_path), 1, "ood-data generate celebglow")


def test_list_says_what_each_is(ood_data: CommandLine) -> None:
    told = json.loads(ood_data("bench", "--list", "--json").stdout)["models"]
    assert len(told) == 17
    assert next(model for model in told if model["name"] == "cnn")["parameters"] == 380_615
    assert find("coordconv").reconstruction in " ".join(ood_data("bench", "--list").stdout.split())


@pytest.mark.parametrize(
    "package, foreign", [("harness", "celebglow"), ("splits", "harness"), ("splits", "celebglow"), ("splits", "torch")]
)
def test_imports_point_one_way(package: str, foreign: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert foreign not in [name.partition(".")[0] for name in names], path
