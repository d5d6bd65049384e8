"""The command line as a whole: mistakes are answered at once and alike, help is whole, errors become words."""

from __future__ import annotations

import ast
import errno
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch

import ood_data
import splits
from cli import main
from harness.data.names import stores_in
from harness.formats.catalog import CATALOG
from harness.io.progress import duration, move, progress_bar
from harness.models import NAMES
from helpers.commands import ROOT, assert_one_clear_line, invoke
from ood_data.commands import shadows
from ood_data.commands.options import Seeds
from ood_data.commands.policy import Command, InOptions, as_options, every_command
from splits import errors

LIBRARY = ("celebglow", "harness", "splits")


EVERY = list(every_command(main))
BY_NAME = pytest.mark.parametrize("path, command", EVERY, ids=[" ".join(path) or "ood-data" for path, _ in EVERY])


# What is wrong is said before anything is imported that takes long

MISTAKES = {
    "a misspelt model": (("bench", "--model", "cnnn"), 2, "unknown model 'cnnn'; did you mean 'cnn'"),
    "a misspelt model beside another": (("bench", "--model", "mlp,cnnn"), 2, "unknown model 'cnnn'; did you mean 'cnn'"),
    "no model": (("bench",), 2, "--model all; ood-data bench --list shows the names"),
    "a misspelt kind": (
        ("bench", "--model", "cnn", "--kind", "randum"),
        2,
        "unknown kind of split 'randum'; did you mean 'random'",
    ),
    "a misspelt dataset": (("bench", "--model", "cnn", "--dataset", "mpi3"), 2, "no dataset 'mpi3' in data; did you mean 'mpi3d'"),
    "no seeds": (("bench", "--model", "cnn", "--seeds", "0"), 2, "'0' is neither a number of seeds"),
    "more seeds than runs": (
        ("bench", "--model", "cnn", "--seeds", "1000000000"),
        2,
        "at most 100,000 runs are expected of one bench",
    ),
    "a seed of too many digits": (("bench", "--model", "cnn", "--seeds", f"0,{2**63}"), 2, "seeds are at most 9,223,372"),
    "steps below 0": (("bench", "--model", "cnn", "--set", "train.steps=-5"), 2, "train.steps: a number of at least 0"),
    "a misspelt setting": (("bench", "--model", "cnn", "--set", "train.step=3"), 2, "did you mean 'train.steps'"),
    "a setting without a value": (
        ("bench", "--model", "cnn", "--set", "train.steps"),
        2,
        "a setting such as train.steps=500 is expected",
    ),
    "a setting shown of no type": (
        ("bench", "--settings", "cnn", "--set", "score.samples=many"),
        2,
        "score.samples: int is expected",
    ),
    "no datasets": (("bench", "--model", "cnn"), 1, "ood-data generate celebglow --out data"),
    "a misspelt device": (("bench", "--model", "cnn", "--device", "gpu"), 2, "unknown device 'gpu'; auto, cpu, cuda, cuda:1"),
    "one level": (("generate", "celebglow", "--levels", "1"), 2, "levels must be at least 2, not 1"),
    "a range that falls": (("generate", "celebglow", "--range", "1", "-1"), 2, "range must go up"),
    "a part that is none": (("generate", "celebglow", "--part", "3/2"), 2, "there is no part 3 of 2"),
    "a cold temperature": (("generate", "celebglow", "--temperature", "-1"), 2, "temperature must be a number of at least 0"),
    "a misspelt attribute": (("generate", "celebglow", "--attribute", "smil"), 2, "unknown attribute 'smil'; did you mean 'smile'"),
    "an attribute twice": (("generate", "celebglow", "--attribute", "age,age"), 2, "attributes must be named once each"),
    "a resolution that does not divide": (
        ("generate", "celebglow", "--resolution", "60"),
        2,
        "resolution must divide the flow's 64",
    ),
    "no flow": (("generate", "celebglow", "--flow", "nowhere"), 2, "there is no flow in nowhere"),
    "no flow to look at": (("flow", "info", "nowhere"), 2, "there is no flow in nowhere"),
    "too many orientations": (("generate", "dsprites", "--orientations", "41"), 2, "41 is not in the range"),
    "no pictures": (("flow", "train", "nowhere", "--out", "out"), 2, "nowhere does not exist: a folder of pictures"),
    "no steps": (("flow", "train", "nowhere", "--out", "out", "--steps", "0"), 2, "0 is not in the range x>=1"),
    "a resolution that no flow of four levels has": (
        ("flow", "train", str(ROOT / "docs"), "--out", "out", "--resolution", "50"),
        2,
        "resolution 50 must be divisible by 2 ** 4",
    ),
    "one level of four": (
        ("flow", "train", str(ROOT / "docs"), "--out", "out", "--flow-steps", "0"),
        2,
        "4 widths are given for 1 level",
    ),
    "more widths than levels": (
        ("flow", "train", str(ROOT / "docs"), "--out", "out", "--flow-steps", "3,6", "--widths", "1,2,3"),
        2,
        "3 widths are given for 2 levels",
    ),
    "a balance without labels": (
        ("flow", "train", str(ROOT / "docs"), "--out", "out", "--balance", "Male"),
        2,
        "no column 'Male'; there is none at all, without --labels",
    ),
    "a strength of nothing": (
        ("flow", "directions", "flow", "x", "--out", "o", "--attribute", "a", "--strength", "b=1"),
        2,
        "--strength names 'b', which --attribute does not",
    ),
    "a strength that is no number": (
        ("flow", "directions", "flow", "x", "--out", "o", "--attribute", "a", "--strength", "a=much"),
        2,
        "a=much: a number is expected",
    ),
    "an attribute with the name of an argument": (
        ("flow", "directions", "flow", "x", "--out", "o", "--attribute", "seed"),
        2,
        "an attribute cannot be called 'seed'",
    ),
    "a store that is none": (("data", "verify", "celebglw"), 1, "there is no celebglw in data: make one with"),
    "a variant of another dataset": (("data", "fetch", "dsprites", "--variant", "toy"), 2, "dsprites has no variant 'toy'"),
    "official files of nothing": (("data", "fetch", "mpi3b"), 2, "did you mean 'mpi3d'"),
    "no kind to export": (("data", "export", "celebglow", "--kind", "randum", "--out", "x"), 2, "unknown kind of split 'randum'"),
    "a misspelt dataset to split": (("split", "mpi3"), 2, "unknown dataset 'mpi3'; did you mean 'mpi3d'"),
    "a model for a command": (("bench", "pcl"), 2, "did you mean `ood-data bench --model pcl`?"),
    "a module that is not there": (
        ("bench", "--model", "nowhere:build", "--data", str(ROOT / "docs")),
        2,
        "No module named 'nowhere'",
    ),
    "a file for a folder of stores": (
        ("data", "list", "--data", str(ROOT / "Makefile")),
        2,
        "Makefile is a file: a folder is expected",
    ),
    "a file for a report": (("report", "nowhere", "--out", str(ROOT / "Makefile")), 2, "Makefile' is a file"),
    "a folder to train in that is a flow's": (
        ("flow", "train", str(ROOT / "docs"), "--out", str(ROOT / "celebglow/weights")),
        2,
        "weights holds a flow, and no checkpoint of its training",
    ),
    "a folder for directions that is a flow's": (
        ("flow", "directions", "flow", "x", "--out", str(ROOT / "celebglow/weights"), "--attribute", "smile"),
        2,
        "weights is there already: remove it, or choose another folder",
    ),
    "no runs": (
        ("report", "nowhere"),
        2,
        "no finished run in nowhere: give the folder of your runs, or make some with `ood-data bench",
    ),
}


def test_mistakes_are_answered_before_torch_is_imported(tmp_path: Path) -> None:
    """All in one process, in which nothing may have imported what takes seconds."""
    program = (
        "import json, sys; from click.testing import CliRunner; from cli import main\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    result = CliRunner().invoke(main, arguments)\n"
        "    heavy = [name for name in ('torch', 'diffusers', 'zarr', 'matplotlib', 'h5py') if name in sys.modules]\n"
        "    print(json.dumps([result.exit_code, result.stderr, heavy]))\n"
    )
    arguments = json.dumps([arguments for arguments, _, _ in MISTAKES.values()])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, arguments], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    )
    for (what, (_, code, words)), line in zip(MISTAKES.items(), done.stdout.splitlines(), strict=True):
        found, stderr, heavy = json.loads(line)
        lines = [line for line in stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
        assert (found, words in stderr, len(lines), heavy) == (code, True, 1, []), f"{what}: {stderr} {heavy}"
    assert not list(tmp_path.iterdir())


def test_help_imports_nothing_that_takes_long() -> None:
    heavy = ("torch", "diffusers", "zarr", "pydantic", "matplotlib", "tqdm", "numpy", "ssl", "http.client", "ctypes", "subprocess")
    program = (
        "import sys; from cli import main; main(['--help'], standalone_mode=False)\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout[:6], done.stderr) == ("Usage:", "[]\n")


def test_all_names_of_splits_are_there_though_it_imports_nothing_at_first() -> None:
    assert {*splits.__all__} <= {*dir(splits)}
    assert all(getattr(splits, name) is not None for name in splits.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        splits.nothing  # noqa: B018


def test_a_plan_takes_no_torch_nor_does_what_is_done(blocks_root: Path, tmp_path: Path) -> None:
    def without_torch(*arguments: object) -> str:
        program = "import sys; sys.modules['torch'] = None; from cli import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", program, "bench", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = ("--data", blocks_root, "--out", tmp_path, "--device", "cpu")
    assert "pcl" in without_torch("--list")
    assert "model.latents" in without_torch("--settings", "pcl")
    assert "new" in without_torch("--model", "all", "--preset", "full", "--dry-run", *where)
    once = ("--model", "mlp", "--kind", "random", "--set", "train.steps=1", *where)
    assert invoke("bench", *once).returncode == 0
    assert "mlp" in without_torch(*once)
    assert "1 done" in without_torch("--dry-run", *once)
    loaded = "import sys; sys.modules['torch'] = None; import harness.bench.submissions, harness.bench.parts, harness.bench.cluster"
    subprocess.run([sys.executable, "-c", loaded], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_what_a_gpu_elsewhere_can_do_is_not_guessed(blocks_root: Path, tmp_path: Path) -> None:
    cluster = tmp_path / "cluster.toml"
    cluster.write_text('engine = "slurm"\nworkers = 2\n[slurm]\ngpus_per_node = 1\n')
    where = ("bench", "--model", "mlp", "--data", blocks_root, "--out", tmp_path, "--cluster", cluster, "--dry-run")
    assert_one_clear_line(invoke(*where), 2, "this machine has no GPU to ask for bf16: set train.precision=bf16", "--set")
    assert invoke(*where, "--set", "train.precision=bf16").returncode == 0


def test_without_the_device_file_of_a_gpu_torch_is_not_asked_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness import machine
    from ood_data.commands.places import device_here

    assert machine.may_have_gpu() or not torch.cuda.is_available()
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("ood_data.commands.places.may_have_gpu", lambda: True)
    assert device_here("auto") == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: pytest.fail("asked"))
    monkeypatch.setattr("ood_data.commands.places.may_have_gpu", lambda: False)
    assert device_here("auto") == "cpu"


# Help


@BY_NAME
def test_help_has_an_example_and_a_word_for_every_option(path: tuple[str, ...], command: click.Command) -> None:
    told = invoke(*path, "--help")
    assert told.returncode == 0
    assert re.search(r"Examples?:\n +ood-data ", told.stdout)
    for option in command.params:
        assert not isinstance(option, click.Option) or option.help, option.name


@BY_NAME
def test_summaries_are_whole_sentences(path: tuple[str, ...], command: click.Command) -> None:
    summary = command.get_short_help_str()
    assert summary.endswith(".")
    assert not summary.endswith("..")
    if path:
        assert " ".join(summary.split()[-3:]) in " ".join(invoke(*path[:-1], "--help").stdout.split())


def test_every_dataset_and_kind_is_listed() -> None:
    told = invoke("split", "--help").stdout
    for name in (*splits.DATASETS, *splits.KINDS):
        assert name in told


def test_the_command_that_gets_a_dataset_exists() -> None:
    for info in CATALOG.values():
        program, *words = info.command.split()
        assert program == "ood-data"
        assert invoke(*words, "--help").returncode == 0
        group, name = words[:2]
        assert ((group, name) in dict(EVERY)) or info.name in words


# Unknown commands


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("list",), "did you mean `ood-data data list`?"),
        (("verify", "celebglow"), "did you mean `ood-data data verify`?"),
        (("convert", "x.pb"), "did you mean `ood-data data convert` or `ood-data flow convert`?"),
        (("benhc",), "did you mean `ood-data bench`?"),
        (("dat", "list"), "did you mean `ood-data data`?"),
        (("generate", "dsprite"), "did you mean `ood-data generate dsprites`?"),
        (("flow", "fetch"), "did you mean `ood-data data fetch`?"),
        (("qqqq",), "known: bench, data, flow, generate, report, results, split"),
    ],
)
def test_unknown_commands_say_what_was_meant(arguments: tuple[str, ...], words: str) -> None:
    told = invoke(*arguments)
    assert told.returncode == 2
    assert words in told.stderr


# Errors become words in one place


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException, *options: str) -> subprocess.CompletedProcess[str]:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(splits, "load_spec", fail)
    return invoke(*options, "split", "mpi3d")


@pytest.mark.parametrize(
    "error, code",
    [
        (errors.InputError("say no"), 2),
        (errors.SpecError("my.toml", ["a", "b"]), 2),
        (errors.OutOfRangeError("say no"), 1),
        (errors.MissingError("say no"), 1),
        (errors.AbsentError("say no"), 2),
        (errors.PlaceError("say no"), 1),
        (errors.DamagedError("say no"), 1),
        (errors.BusyError("say no"), 1),
        (errors.NumericalError("say no"), 1),
        (errors.DependencyError("say no"), 1),
        (errors.OodDataError("say no"), 1),
        (OSError("say no"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_an_error_that_users_can_put_right_is_its_message(monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    told = fail_with(monkeypatch, error)
    assert (told.returncode, told.stdout) == (code, "")
    assert told.stderr == f"ood-data: {error}\n"


def test_every_class_of_error_is_tried() -> None:
    classes = {each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.OodDataError)}
    marks = test_an_error_that_users_can_put_right_is_its_message.pytestmark  # type: ignore[attr-defined]
    assert classes <= {type(error) for error, _ in marks[0].args[1]}


@pytest.mark.parametrize("error", [KeyError("factor"), ValueError("bad shape"), RuntimeError("mat1 and mat2"), TypeError("x")])
def test_any_other_error_is_a_defect(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    told = fail_with(monkeypatch, error)
    assert told.returncode == 1
    assert told.stderr.startswith(f"ood-data: a defect in ood-data, please report it: {type(error).__name__}: {error}")
    assert "--debug" in told.stderr
    assert "Traceback" not in told.stderr
    assert len(told.stderr.splitlines()) == 1
    assert "Traceback" in fail_with(monkeypatch, error, "--debug").stderr


@pytest.mark.parametrize(
    "number, advice",
    [
        (errno.EEXIST, "File exists: data; it is in the way"),
        (errno.ENOENT, "No such file or directory: data; check the path"),
        (errno.EACCES, "Permission denied: data; check its permissions, or name another place"),
        (errno.EROFS, "Read-only file system: data; nothing can be written there: name another place"),
        (errno.ENOSPC, "No space left on device: data; the disk is full: make room"),
    ],
)
def test_what_the_system_refuses_comes_with_what_to_do(monkeypatch: pytest.MonkeyPatch, number: int, advice: str) -> None:
    told = fail_with(monkeypatch, OSError(number, os.strerror(number), "data"))
    assert told.returncode == 1
    assert told.stderr.startswith(f"ood-data: {advice}")


@pytest.mark.parametrize(
    "arguments, target, words",
    [
        (("split", "mpi3d"), "splits.load_spec", "interrupted; the same command starts from the beginning"),
        (
            ("data", "convert", "x", "--dataset", "mpi3d"),
            "splits.load_spec",
            "interrupted; the same command continues where it was",
        ),
        (
            ("data", "convert", "x", "--dataset", "mpi3d", "--overwrite"),
            "splits.load_spec",
            "interrupted; the same command, without --overwrite, continues where it was",
        ),
    ],
)
def test_an_interruption_says_what_comes_of_it(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], target: str, words: str
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(target, interrupt)
    told = invoke(*arguments)
    assert (told.returncode, told.stderr) == (130, f"ood-data: {words}\n")


# The library names parameters, the commands say which option each is


def test_parameters_become_the_options_of_the_running_command() -> None:
    with click.Context(main) as root:
        assert as_options("`overwrite` makes it anew") == "--overwrite makes it anew"
        root.meta["command"] = dict(EVERY)["data", "convert"]
        assert as_options("give `dataset` x, or the `spec_file` of yours") == "give --dataset x, or the --spec of yours"
        root.meta["command"] = dict(EVERY)["flow", "directions"]
        assert as_options("give `decorrelated=False`") == "give --as-fitted"
        assert as_options("a column `person`, `ood-data data verify x` and `all`") == (
            "a column `person`, `ood-data data verify x` and `all`"
        )


def test_what_the_library_logs_is_told_in_options() -> None:
    with click.Context(main) as root:
        root.meta["command"] = dict(EVERY)["bench",]
        record = logging.LogRecord("harness", logging.INFO, "", 0, "1/2 %s: give `overrides` train.steps=3", ("cnn",), None)
        assert InOptions(root).format(record) == "1/2 cnn: give --set train.steps=3"


def test_messages_of_the_library_name_no_options() -> None:
    """But as part of a whole command that is to be run."""
    found = []
    for path in sorted(path for package in LIBRARY for path in (ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        nodes = list(ast.walk(tree))
        inner = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # docstrings
        inner |= {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        for node in nodes:
            if id(node) in inner or not isinstance(node, ast.Constant | ast.JoinedStr):
                continue
            text = ast.unparse(node)
            if re.search(r"(?<![\w(-])--[a-z]", text) and not re.search(
                r"ood-data|command|color-scheme|^' --set '$|z_manipulate\.npy", text
            ):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {text}")
    assert found == []


# Packages of ours behind others of the same name


@pytest.mark.parametrize("name", shadows.PACKAGES)
def test_a_package_that_hides_one_of_ours_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit('it was imported')\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "ood_data", "split", "mpi3d"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        f"ood-data: ood-data's own package {name!r} is in {ROOT}, but it is imported from {tmp_path / name}"
    )
    assert len(done.stderr.splitlines()) == 1


def test_a_package_that_was_installed_over_ours_is_named() -> None:
    assert "'harness'" in shadows.replaced(ModuleNotFoundError("No module named 'harness.io'", name="harness.io"))
    assert shadows.replaced(ModuleNotFoundError("No module named 'timm'", name="timm")) == ""
    assert shadows.shadow() == ""


# One word for one thing


@pytest.mark.parametrize(
    "text, seeds", [("3", 3), ("1", 1), ("10000000000", 10**10), ("0,4,7", (0, 4, 7)), ("7,", (7,)), ("4,4", (4,))]
)
def test_seeds_are_a_number_or_a_list(text: str, seeds: int | tuple[int, ...]) -> None:
    assert Seeds().convert(text, None, None) == seeds


@pytest.mark.parametrize("text", ["0", "-1", "x", "", ",", "1,-2", "1.5"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="neither a number of seeds"):
        Seeds().convert(text, None, None)


def test_kinds_may_be_several() -> None:
    both = json.loads(invoke("split", "mpi3d", "--kind", "random,composition", "--json").stdout)
    assert [told["kind"] for told in both["splits"]] == ["random", "composition"]
    assert json.loads(invoke("split", "mpi3d", "--kind", "random", "--kind", "composition", "--json").stdout) == both
    every = json.loads(invoke("split", "mpi3d", "--kind", "all", "--json").stdout)
    assert every == json.loads(invoke("split", "mpi3d", "--json").stdout)
    assert len(every["splits"]) == 4


def test_former_options_work_and_are_not_shown() -> None:
    for path, former in ((("generate", "celebglow"), "--attributes"), (("flow", "train"), "--attributes")):
        command = dict(EVERY)[path]
        assert any(former in option.opts for option in command.params)
        assert former not in invoke(*path, "--help").stdout
    told = invoke("generate", "celebglow", "--attributes", "smil")
    assert "unknown attribute 'smil'" in told.stderr


# Stores


@pytest.mark.parametrize("arguments", [("list", "--data"), ("verify", "blocks", "--data"), ("convert", "x", "--out")])
def test_a_store_is_not_the_folder_that_holds_it(blocks_root: Path, arguments: tuple[str, ...]) -> None:
    told = invoke("data", *arguments, blocks_root / "blocks.zarr")
    assert told.returncode == 2
    assert f"{blocks_root / 'blocks.zarr'} is a store: give the folder that holds it, {blocks_root}" in told.stderr


def test_verify_takes_a_name_several_or_none(blocks_root: Path) -> None:
    where = ("--data", blocks_root)
    for names in ((), ("blocks",), ("blocks", "blocks")):
        told = invoke("data", "verify", *names, *where)
        assert (told.returncode, told.stdout) == (0, "blocks is whole: every file is what its manifest says\n")
    assert json.loads(invoke("data", "verify", "blocks", *where, "--json").stdout) == {"dataset": "blocks", "problems": []}
    every = json.loads(invoke("data", "verify", *where, "--json").stdout)
    assert every == {"stores": [{"dataset": "blocks", "problems": []}]}
    told = invoke("data", "verify", "bloks", *where)
    assert (told.returncode, told.stderr) == (2, f"ood-data: there is no bloks in {blocks_root}; did you mean 'blocks'?\n")
    with pytest.raises(FileNotFoundError, match=r"there is no bloks in .*; did you mean 'blocks'"):
        ood_data.open_dataset("bloks", blocks_root)


def test_a_folder_that_is_not_there_is_not_an_empty_one(tmp_path: Path) -> None:
    told = invoke("data", "list", "--data", tmp_path / "nowhere")
    assert (told.returncode, told.stdout) == (1, "")
    assert f"there is no folder {tmp_path / 'nowhere'}" in told.stderr
    assert invoke("data", "list", "--data", tmp_path, "--json").stdout == '{"stores": []}\n'


def test_a_misspelt_flow_is_told(tmp_path: Path) -> None:
    told = invoke("flow", "info", "bundeld")
    assert (told.returncode, told.stderr) == (2, "ood-data: there is no flow bundeld; did you mean 'bundled'?\n")


def test_zarr_groups_of_somebody_else_are_no_stores(blocks_root: Path, tmp_path: Path) -> None:
    shutil.copytree(blocks_root, tmp_path, dirs_exist_ok=True)
    (tmp_path / "theirs.zarr").mkdir()
    (tmp_path / "theirs.zarr/zarr.json").write_text('{"attributes": {}, "zarr_format": 3, "node_type": "group"}')
    assert stores_in(tmp_path) == ["blocks"]
    told = invoke("data", "verify", "--data", tmp_path)
    assert (told.returncode, told.stdout) == (0, "blocks is whole: every file is what its manifest says\n")
    (tmp_path / "blocks.zarr/zarr.json").unlink()  # a store of ours all the same
    assert stores_in(tmp_path) == ["blocks"]
    assert invoke("data", "verify", "--data", tmp_path).returncode == 1


def test_a_store_with_a_name_like_a_manifests_makes_no_neighbour_ours(blocks_root: Path, tmp_path: Path) -> None:
    """Nor does a name with the characters of globs take another's manifest."""
    for name in ("theirs.manifest.old", "b*", "[bt]heirs"):
        shutil.copytree(blocks_root / "blocks.zarr", tmp_path / f"{name}.zarr")
        shutil.copy(blocks_root / "blocks.manifest.jsonl", tmp_path / f"{name}.manifest.jsonl")
    shutil.copytree(blocks_root, tmp_path, dirs_exist_ok=True)
    for name in ("theirs", "t*", "blocks*"):
        (tmp_path / f"{name}.zarr").mkdir()
        (tmp_path / f"{name}.zarr/zarr.json").write_text('{"attributes": {}, "zarr_format": 3, "node_type": "group"}')
    assert stores_in(tmp_path) == ["[bt]heirs", "b*", "blocks", "theirs.manifest.old"]


def test_several_kinds_are_exported_at_once(blocks_root: Path, tmp_path: Path) -> None:
    told = invoke("data", "export", "blocks", "--kind", "all", "--data", blocks_root, "--out", tmp_path / "new/out", "--json")
    assert told.returncode == 0, told.stderr
    files = json.loads(told.stdout)["files"]
    assert len(files) == 16
    assert all(Path(file).is_file() for file in files)
    told = invoke("data", "export", "blocks", "--kind", "all", "--format", "png", "--data", blocks_root, "--out", tmp_path / "png")
    assert told.returncode == 2
    assert "for one kind of split" in told.stderr
    assert not (tmp_path / "png").exists()


# The bench

TINY = ("--set", "train.steps=20", "--set", "score.samples=20", "--set", "score.batch=10", "--jobs", "1", "--device", "cpu")


def test_the_list_of_models_fits_a_terminal() -> None:
    lines = invoke("bench", "--list").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for name in NAMES:
        assert any(line.split()[:1] == [name] for line in lines)


def test_settings_are_every_key_that_can_be_set(blocks_root: Path) -> None:
    lines = invoke("bench", "--settings", "pcl", "--set", "train.steps=7").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    told = json.loads(invoke("bench", "--settings", "pcl", "--set", "train.steps=7", "--json").stdout)
    values = {entry["key"]: entry["value"] for entry in told["settings"]}
    assert values["train.steps"] == 7
    assert values["model.latents"] == 10
    assert all(entry["type"] and entry["what"] for entry in told["settings"])
    same = [part for entry in told["settings"] for part in ("--set", f"{entry['key']}={json.dumps(entry['value'])}")]
    assert json.loads(invoke("bench", "--settings", "pcl", *same, "--json").stdout) == told
    assert "did you mean 'train.steps'" in invoke("bench", "--settings", "pcl", "--set", "train.stepz=7").stderr
    full = json.loads(invoke("bench", "--settings", "cnn", "--preset", "paper", "--json").stdout)
    assert {entry["key"]: entry["value"] for entry in full["settings"]}["train.steps"] == 200_000
    assert not [entry for entry in full["settings"] if entry["key"].startswith("readout.")]


def test_a_dry_run_tells_the_time_once_a_run_has_ended(blocks_root: Path, tmp_path: Path) -> None:
    where = ("--kind", "random", "--data", blocks_root, "--out", tmp_path, *TINY)
    told = invoke("bench", "--model", "mlp", *where, "--dry-run")
    assert told.returncode == 0, told.stderr
    assert f"time: unknown, because no run like these has finished in {tmp_path}" in told.stdout
    assert "dsprites is not there; to get it: ood-data generate dsprites" in told.stdout
    done = invoke("bench", "--model", "mlp", *where)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("not there: ") == 1
    assert "is not there" not in done.stderr
    told = invoke("bench", "--model", "mlp,cnn", "--seeds", "0,4", *where, "--dry-run")
    assert "4 runs: 1 done, 3 new" in told.stdout
    assert re.search(r"^time: about \d+ s, estimated from finished runs in .*; unknown for cnn$", told.stdout, re.MULTILINE)
    assert "time: " not in invoke("bench", "--model", "mlp", *where, "--dry-run").stdout
    scores = next(tmp_path.rglob("scores.json"))
    scores.write_bytes(scores.read_bytes()[:100])
    told = invoke("bench", "--model", "mlp", *where, "--dry-run")
    assert told.returncode == 1
    assert "1 run: 1 damaged\n" in told.stdout
    assert re.search(r"^not done: blocks, random, mlp, seed 0: .*scores\.json is not JSON", told.stdout, re.MULTILINE)


ABSENT = (
    ("data", "convert", "nowhere", "--dataset", "dsprites"),
    ("data", "convert", "nowhere", "--spec", "nowhere.toml"),
    ("data", "push", "nowhere", "me/x", "--dry-run"),
    ("split", "nowhere.toml"),
    ("split", "nowhere.zarr"),
    ("split", "--spec", "nowhere.toml"),
    ("bench", "nowhere.toml"),
    ("bench", "--model", "cnn", "--cluster", "nowhere.toml"),
    ("bench", "replay", "nowhere.json"),
    ("bench", "rescore", "nowhere"),
    ("report", "nowhere"),
    ("results", "submit", "nowhere"),
    ("results", "check", "nowhere"),
    ("results", "export", "nowhere", "--out", "exchange"),
    ("flow", "train", "nowhere", "--out", "flow"),
    ("flow", "convert", "nowhere.pt", "--out", "flow"),
    ("flow", "info", "nowhere"),
)


@pytest.mark.parametrize("arguments", ABSENT, ids=" ".join)
def test_a_file_or_folder_that_is_not_there_is_wrong_use(
    arguments: tuple[str, ...], blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(blocks_root)
    assert_one_clear_line(invoke(*arguments), 2, "nowhere")


@pytest.mark.parametrize("place", ["/dev/null/x", "file/x"])
def test_a_place_that_cannot_be_written_is_told_before_any_work(blocks_root: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / place
    for command in (
        ("bench", "--model", "cnn", "--data", blocks_root),
        ("generate", "celebglow"),
        ("generate", "dsprites"),
        ("data", "export", "blocks", "--kind", "random", "--data", blocks_root),
        ("data", "fetch", "shapes3d"),
        ("data", "fetch", "mpi3d", "--variant", "realistic", "--cells", "2"),
    ):
        told = invoke(*command, "--out", out)
        assert_one_clear_line(told, 1, f"nothing can be written to {out}: Not a directory; name another place")
        assert told.stdout == ""


def test_a_bench_of_what_is_not_there_says_once_how_to_get_it(blocks_root: Path, tmp_path: Path) -> None:
    told = invoke("bench", "--model", "cnn", "--dataset", "mpi3d", "--data", blocks_root, "--out", tmp_path)
    assert told.returncode == 1
    assert told.stderr == ""
    assert told.stdout == f"not done: mpi3d is not there; to get it: ood-data data fetch mpi3d --out {blocks_root}\n"


def test_what_models_lack_is_told_by_a_dry_run(blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.models import find
    from harness.models.weights import lacking

    pytest.importorskip("timm")
    where = ("--model", "mlp,resnet50-in21k", "--kind", "random", "--data", blocks_root, "--out", tmp_path, "--dry-run")
    told = invoke("bench", *where, "--set", f"model.weights={tmp_path / 'absent'}")
    assert told.returncode == 0, told.stderr
    assert f"1 run of resnet50-in21k may fail: weights of resnetv2_50x1_bit.goog_in21k: {tmp_path}" in told.stdout
    (tmp_path / "there").touch()
    assert lacking(find("resnet50-in21k"), str(tmp_path / "there")) == ""
    assert lacking(find("resnet50"), None) == lacking(find("cnn")) == ""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told_of = "timm is not installed: pip install 'ood-data[models]', or -e '.[models]' in its checkout"
    assert (lacking(find("resnet50"), None), lacking(find("cnn"))) == (told_of, "")


def test_the_hub_knows_pretrained_models_by_timms_names() -> None:
    timm = pytest.importorskip("timm")
    from harness.models.weights import PRETRAINED

    assert all(timm.models.get_pretrained_cfg(name).hf_hub_id == f"timm/{name}" for name in PRETRAINED.values())


# Long work says how far it is


def test_without_a_terminal_a_line_is_printed_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress_bar("celebglow", "img", 1000, 100) as bar:
        for now[0] in (110.0, 129.0, 130.0, 140.0, 160.0, 161.0):
            bar.update(100)
            bar.set_postfix_str("well")
    assert capsys.readouterr().err.splitlines() == [
        "celebglow: 400 of 1,000 img, 40 %, about 60 s left, well",
        "celebglow: 600 of 1,000 img, 60 %, about 48 s left, well",
    ]
    with progress_bar("file", "B") as bar:
        now[0] = 300.0
        move(bar, 1_500_000, 3_000_000)
    assert capsys.readouterr().err == "file: 1.5 MB of 3 MB, 50 %, about 2 min left\n"
    with progress_bar("file", "B", shown=False) as bar:
        now[0] = 900.0
        bar.update(5)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("seconds, words", [(40, "40 s"), (720, "12 min"), (12_240, "3.4 h"), (216_000, "2.5 days")])
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_every_command_is_of_the_kind_that_says_what_an_interruption_does() -> None:
    assert all(isinstance(command, Command | click.Group) for _, command in EVERY)
