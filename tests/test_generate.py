"""CelebGlow end to end: the same people, the same bytes, whatever happens on the way."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from diffusers.utils import logging
from PIL import Image

import splits
from celebglow.directions import Directions
from celebglow.generate import Population, generate
from celebglow.glow import Glow
from celebglow.info import SavedFlow
from celebglow.pipeline import CelebGlowPipeline
from cli import main
from harness.data.store import Store
from harness.data.verify import verify
from helpers.commands import ROOT, CommandLine, assert_one_clear_line
from helpers.files import contents
from helpers.flows import make, random_pipeline
from helpers.hostile import peak_of
from splits.errors import InputError


def test_the_grid_is_the_pipelines_pictures_in_row_major_order(tmp_path: Path, pipeline: CelebGlowPipeline) -> None:
    assert make(tmp_path, pipeline, levels=3, range=(-0.5, 1.5))
    store = Store(tmp_path, "celebglow")
    grid = splits.spec_from_dict(store.spec).grid
    assert grid.names == ("person", "smile", "blond", "age")
    assert len(store) == len(grid) == 3 * 3**3
    values = (-0.5, 0.5, 1.5)
    for index in (0, 17, 30, 80):
        person, *levels = grid.factors(index)
        chosen: dict[str, Any] = {n: values[v] for n, v in zip(grid.names[1:], levels, strict=True)}
        expected = pipeline(person=int(person), **chosen).images[0]
        # one image alone and a batch may round differently (vector widths); 1 in 255 at most
        assert np.abs(np.asarray(expected, dtype=int) - store.read(index, index + 1)[0]).max() <= 1


def test_a_persons_bytes_do_not_depend_on_the_run(tmp_path: Path, pipeline: CelebGlowPipeline) -> None:
    make(tmp_path / "twelve", pipeline, persons=12)
    for part in (2, 3, 1):
        make(tmp_path / "parts", pipeline, (part, 3), persons=12)
    make(tmp_path / "grown", pipeline, persons=6)
    make(tmp_path / "grown", pipeline, persons=12)
    generate(tmp_path / "alone", pipeline, Population(persons=12, levels=2), workers=1, progress=False)
    expected = contents(tmp_path / "twelve")
    assert len([name for name in expected if "images/c." in name]) == 12
    for other in ("parts", "grown", "alone"):
        assert contents(tmp_path / other) == expected, other
    assert not [name for name in expected if "partial" in name or "-of-" in name]


def test_every_parameter_that_changes_pixels_is_checked(tmp_path: Path, pipeline: CelebGlowPipeline) -> None:
    make(tmp_path, pipeline)
    before = contents(tmp_path)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"seed": 1}, "seed"),
        ({"temperature": 0.5}, "temperature"),
        ({"range": (-2.0, 1.0)}, "range"),
        ({"levels": 3}, "levels"),
        ({"attributes": ("smile",)}, "attributes"),
        ({"resolution": 8}, "resolution"),
        ({"precision": "bf16"}, "decode"),
        ({"persons": 2}, "more than"),
    ]
    for change, word in changes:
        with pytest.raises(ValueError, match=word):
            make(tmp_path, pipeline, **change)
    with pytest.raises(ValueError, match="flow_sha256"):
        make(tmp_path, random_pipeline(seed=5))
    assert contents(tmp_path) == before


def test_splits_are_those_of_the_rules(tmp_path: Path, pipeline: CelebGlowPipeline) -> None:
    spec = Population(persons=1000, attributes=("smile", "blond", "age")).spec()
    for kind in splits.KINDS:
        assert spec.split(kind).counts == splits.load("celebglow", kind).counts
        np.testing.assert_array_equal(spec.split(kind).test, splits.load("celebglow", kind).test)


def test_smaller_pictures_are_area_averages(tmp_path: Path, pipeline: CelebGlowPipeline) -> None:
    make(tmp_path / "full", pipeline)
    make(tmp_path / "half", pipeline, resolution=8)
    full, half = Store(tmp_path / "full", "celebglow").read(0, 8), Store(tmp_path / "half", "celebglow").read(0, 8)
    assert half.shape == (8, 8, 8, 3)
    assert np.abs(full.reshape(8, 8, 2, 8, 2, 3).mean(axis=(2, 4)) - half).max() <= 0.5


def test_one_attribute_of_a_gray_flow(tmp_path: Path) -> None:
    make(tmp_path, random_pipeline(channels=1, resolution=8), attributes=("age",), levels=4)
    store = Store(tmp_path, "celebglow")
    assert store.images.shape == (12, 8, 8, 1)
    assert verify(tmp_path, "celebglow") == []


def test_a_grid_of_more_pictures_than_any_disk_holds_takes_no_memory(tmp_path: Path, pipeline: CelebGlowPipeline) -> None:
    with pytest.raises(InputError, match="levels must be at most 10,000, not 1,000,000"):
        generate(tmp_path, pipeline, Population(persons=1, levels=10**6), progress=False)
    with pytest.raises(OSError, match="not enough space"):
        generate(tmp_path, pipeline, Population(persons=1, levels=10**4), progress=False)
    assert peak_of(generate, tmp_path, pipeline, Population(persons=1, levels=10**4)) < 10**8
    assert not contents(tmp_path)


def test_preview_and_card(tmp_path: Path, pipeline: CelebGlowPipeline) -> None:
    make(tmp_path, pipeline, persons=10, levels=4)
    with Image.open(tmp_path / "celebglow.png") as sheet:
        assert sheet.width > 3 * 4 * 16
        assert sheet.height > 8 * 16
    card = (tmp_path / "celebglow.md").read_text()
    assert "640 pictures of 10 people" in card
    assert "flow_sha256" in card


def test_people_are_themselves_everywhere(pipeline: CelebGlowPipeline) -> None:
    person = pipeline.person(7, seed=3, temperature=0.7)
    assert torch.equal(person, pipeline.person(7, seed=3, temperature=0.7))
    assert not torch.equal(person, pipeline.person(8, seed=3, temperature=0.7))
    assert not torch.equal(person, pipeline.person(7, seed=4, temperature=0.7))
    torch.testing.assert_close(person * 2, pipeline.person(7, seed=3, temperature=1.4))
    # the stream is numpy's frozen one: these numbers hold on every machine and version
    np.testing.assert_allclose(person[:3].numpy(), 0.7 * np.array([-0.97712245, 0.1434964, -1.52173764]), rtol=1e-6)


def test_centered_walks_mean_the_same_for_everybody(pipeline: CelebGlowPipeline) -> None:
    directions = pipeline.directions
    dual = torch.linalg.pinv(directions.table)
    people = torch.stack([pipeline.person(person) for person in range(5)])
    start = directions.base(people)
    torch.testing.assert_close((start - directions.origin) @ dual, torch.zeros(5, 3), atol=1e-4, rtol=0)
    values = torch.tensor([[0.5, -1.0, 0.25]])
    torch.testing.assert_close((directions.walk(start[2], values) - directions.origin) @ dual, values, atol=1e-4, rtol=0)


def test_attributes_are_chosen_by_name(pipeline: CelebGlowPipeline) -> None:
    chosen = pipeline.directions.select(("age", "smile"))
    assert torch.equal(chosen.table, pipeline.directions.table[[2, 0]])
    with pytest.raises(ValueError, match=r"unknown attribute 'smlie'.*smile"):
        pipeline(person=0, smlie=1.0)
    with pytest.raises(ValueError, match="once each"):
        pipeline.directions.select(("age", "age"))


def test_pipeline_gives_pil_or_numpy(pipeline: CelebGlowPipeline) -> None:
    images = pipeline(person=[1, 2], smile=0.5).images
    assert [image.size for image in images] == [(16, 16)] * 2
    arrays = pipeline(person=[1, 2], smile=0.5, output_type="np").images
    np.testing.assert_array_equal(np.asarray(images[1]), arrays[1])


def test_save_and_load(tmp_path: Path, pipeline: CelebGlowPipeline, flow_folder: Path) -> None:
    loaded = CelebGlowPipeline.from_pretrained(flow_folder)
    assert loaded.sha256() == pipeline.sha256()
    one, other = (np.asarray(each(person=1, age=1.0, output_type="np").images) for each in (loaded, pipeline))
    assert np.array_equal(one, other)


# The command


def test_the_command_makes_verifies_and_lists(tmp_path: Path, ood_data: CommandLine, flow_folder: Path) -> None:
    made = ood_data("generate", "celebglow", "--flow", flow_folder, "--out", "data/", "--persons", 4, "--levels", 2, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert "complete" in made.stdout
    assert made.stderr == ""  # no progress bar into a pipe
    checked = ood_data("data", "verify", "celebglow", "--json", cwd=tmp_path)
    assert (checked.returncode, checked.stdout) == (0, '{"dataset": "celebglow", "problems": []}\n')
    header, row = ood_data("data", "list", cwd=tmp_path).stdout.splitlines()
    assert header.split() == ["dataset", "images", "MB", "from", "state"]
    assert row.split() == ["celebglow", "32", "0", "celebglow", "complete"]
    (tmp_path / "data/celebglow.zarr/images/c.2.0.0.0").write_bytes(b"damaged")
    found = ood_data("data", "verify", "celebglow", cwd=tmp_path)
    assert found.returncode == 1
    assert "celebglow.zarr/images/c.2.0.0.0" in found.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--attributes", "smile,blnd"), ("unknown attribute 'blnd'", "blond")),
        (("--levels", "1"), ("levels must be at least 2",)),
        (("--persons", "0"), ("0 is not in the range",)),
        (("--range", "1", "-1"), ("range must go up",)),
        (("--resolution", "60"), ("resolution must divide",)),
        (("--part", "5/4"), ("no part 5 of 4",)),
        (("--flow", "nowhere"), ("no flow in nowhere", "bundled")),
        (("--flow", __file__), ("test_generate.py is a file", f"ood-data flow convert {__file__}", "--out")),
        (("--device", "quantum"), ("device 'quantum'",)),
    ],
)
def test_wrong_use_is_one_clear_line(tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    out = tmp_path / "data"
    result = CliRunner().invoke(main, ["generate", "celebglow", "--persons", "2", "--out", str(out), *arguments])
    assert_one_clear_line(subprocess.CompletedProcess([], result.exit_code, result.stdout, result.stderr), 2, *words)
    assert not (tmp_path / "data").exists()


def test_what_a_flow_is_is_read_from_its_files(tmp_path: Path) -> None:
    """The same as the loaded pipeline says, but at once; half precision and a flow without directions too."""
    for config in ({}, {"coupling": "affine", "border": True, "learn_top": False}):
        pipeline = random_pipeline(**config)
        pipeline.flow.half()
        pipeline.save_pretrained(tmp_path / "flow")
        assert SavedFlow.open(tmp_path / "flow").info() == CelebGlowPipeline.from_pretrained(tmp_path / "flow").info()
    glow = Glow.from_pretrained(tmp_path / "flow/flow", low_cpu_mem_usage=False).float()
    trained = CelebGlowPipeline(glow, Directions((), glow.num_latents))
    assert SavedFlow.open(tmp_path / "flow/flow", to_walk=False).info() == trained.info()
    with pytest.raises(InputError, match="has no attribute directions: first run ood-data flow directions"):
        SavedFlow.open(tmp_path / "flow/flow")
    weights = next((tmp_path / "flow/flow").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be read"):
        SavedFlow.open(tmp_path / "flow").info()
    (tmp_path / "flow/directions/config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        SavedFlow.open(tmp_path / "flow")


@pytest.mark.parametrize(
    "index, code",
    [
        ({"flow": ["evil", "Glow"]}, "evil.py"),
        ({"flow": ["os", "system"]}, None),
        ({"scheduler": ["evil", "Glow"]}, "evil.py"),
        ({"_class_name": ["evil", "Glow"]}, "tiny/evil.py"),
        ({}, "tiny/flow/celebglow.glow.py"),
        ({}, "tiny/None.py"),
    ],
)
def test_a_strangers_flow_runs_no_code(
    flow_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: dict[str, object], code: str | None
) -> None:
    folder = shutil.copytree(flow_folder, tmp_path / "tiny")
    file = folder / "model_index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | index))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    if code:
        Path(code).write_text("open('CANARY', 'w')\nfrom celebglow.glow import Glow\n")
    for opened in (CelebGlowPipeline.from_pretrained, SavedFlow.open):
        with pytest.raises(InputError, match=r"which is no class of celebglow's|is code, which ood-data does not run"):
            opened(folder)
    assert not Path("CANARY").exists()


def test_a_flow_that_is_not_ready_says_what_to_run(tmp_path: Path) -> None:
    (tmp_path / "graph_unoptimized.pb").write_bytes(b"")
    with pytest.raises(ValueError, match=r"flow convert .*graph_unoptimized\.pb --z-manipulate z_manipulate\.npy --out"):
        CelebGlowPipeline.from_pretrained(tmp_path / "graph_unoptimized.pb")
    random_pipeline().flow.save_pretrained(tmp_path / "mine/flow")
    with pytest.raises(ValueError, match=r"flow directions .*mine/flow IMAGES"):
        CelebGlowPipeline.from_pretrained(tmp_path / "mine")


@pytest.mark.parametrize("shown", [True, False])
def test_loading_leaves_progress_bars_as_they_were(flow_folder: Path, shown: bool) -> None:
    before = logging.is_progress_bar_enabled()
    try:
        logging.enable_progress_bar() if shown else logging.disable_progress_bar()
        CelebGlowPipeline.from_pretrained(flow_folder)
        assert logging.is_progress_bar_enabled() is shown
    finally:
        logging.enable_progress_bar() if before else logging.disable_progress_bar()


def test_a_corrupt_flow_is_one_clear_line(tmp_path: Path, ood_data: CommandLine, pipeline: CelebGlowPipeline) -> None:
    pipeline.save_pretrained(tmp_path / "flow")
    weights = next((tmp_path / "flow/flow").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    result = ood_data("generate", "celebglow", "--flow", tmp_path / "flow", "--out", tmp_path / "data")
    assert_one_clear_line(result, 2, "cannot be read")
    assert not (tmp_path / "data").exists()


def test_another_run_in_the_folder_is_one_clear_line(tmp_path: Path, ood_data: CommandLine, pipeline: CelebGlowPipeline) -> None:
    make(tmp_path / "data", pipeline)
    before = contents(tmp_path / "data")
    result = ood_data("generate", "celebglow", "--out", tmp_path / "data", "--persons", 2)
    assert_one_clear_line(result, 2, "made with other parameters", "--overwrite")
    assert contents(tmp_path / "data") == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_one_clear_line(tmp_path: Path, ood_data: CommandLine, flow_folder: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        result = ood_data("generate", "celebglow", "--flow", flow_folder, "--out", tmp_path / "data", "--persons", 2)
    finally:
        tmp_path.chmod(0o700)
    assert_one_clear_line(result, 1, "Permission denied")


def test_what_conflicts_is_said_before_torch_is_imported_or_a_flow_is_downloaded(tmp_path: Path) -> None:
    def command(*arguments: str) -> list[str]:
        return ["generate", "celebglow", "--out", str(tmp_path), "--persons", "1", *arguments]

    assert CliRunner().invoke(main, command("--levels", "2", "--attribute", "smile")).exit_code == 0
    program = (
        "import sys; from click.testing import CliRunner; from cli import main\n"
        "result = CliRunner().invoke(main, sys.argv[1:])\n"
        "print(result.exit_code, 'torch' in sys.modules, result.stderr)"
    )
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OOD_DATA_OPENAI_URL": "https://127.0.0.1:1/",
        "OOD_DATA_HOME": str(tmp_path),
    }
    for arguments, words in (
        (("--levels", "3"), "levels is 2 there, 3 here"),
        (("--levels", "2", "--flow", "openai"), "was made with the bundled flow: choose another --out"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program, *command("--attribute", "smile", *arguments)],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        assert done.stdout.startswith("2 False "), done.stdout
        assert words in done.stdout


def test_an_out_that_cannot_be_a_folder_is_one_clear_line(tmp_path: Path, ood_data: CommandLine, flow_folder: Path) -> None:
    (tmp_path / "data").write_text("a file")
    result = ood_data("generate", "celebglow", "--flow", flow_folder, "--out", tmp_path / "data", "--persons", 2)
    assert result.returncode == 2
    assert f"{tmp_path / 'data'} is a file: a folder is expected" in result.stderr
    assert (tmp_path / "data").read_text() == "a file"


def kill_and_resume(tmp_path: Path, flow_folder: Path, persons: int, kills: int, seed: int) -> None:
    """SIGKILL the real command at random moments until it has been killed `kills` times, then let it finish."""

    def command(out: str) -> list[str]:
        return [
            *(sys.executable, "-m", "cli", "generate", "celebglow", "--flow", str(flow_folder)),
            *("--out", str(tmp_path / out), "--persons", str(persons), "--levels", "4"),
        ]

    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command("undisturbed"), env=environment, check=True, capture_output=True)
    shards = tmp_path / "killed/celebglow.zarr/images"

    def count() -> int:
        return len(list(shards.glob("c.*.0"))) if shards.exists() else 0

    chance, killed = random.Random(seed), 0
    while killed < kills:
        before = count()
        process = subprocess.Popen(command("killed"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and count() <= before:  # into the writing, not into the imports
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        assert process.poll() is None, f"it finished before kill {killed + 1} of {kills}: more persons are needed"
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed += 1
    subprocess.run(command("killed"), env=environment, check=True, capture_output=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
    assert verify(tmp_path / "killed", "celebglow") == []


def test_killed_and_resumed_gives_the_same_bytes(tmp_path: Path, flow_folder: Path) -> None:
    kill_and_resume(tmp_path, flow_folder, persons=120, kills=3, seed=0)


@pytest.mark.slow
def test_killed_twenty_times_and_resumed_gives_the_same_bytes(tmp_path: Path, flow_folder: Path) -> None:
    kill_and_resume(tmp_path, flow_folder, persons=900, kills=24, seed=1)


@pytest.mark.slow
def test_a_wheel_generates_outside_the_checkout(tmp_path: Path) -> None:
    """Built, unpacked where nothing else of the project is, and run there: weights and specs are in it, and no other top-level name."""
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True, capture_output=True)
    wheel = next(tmp_path.glob("ood_data-*.whl"))
    with zipfile.ZipFile(wheel) as file:
        names = {name.partition("/")[0] for name in file.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"celebglow", "harness", "ood_data", "splits"}
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(site)}
    for command in (
        ("generate", "celebglow", "--out", "data/", "--persons", "2"),
        ("data", "verify", "celebglow"),
        ("split", "mpi3d", "--kind", "composition"),
    ):
        run = subprocess.run(
            [site / "bin/ood-data", *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
    where = [sys.executable, "-c", "import celebglow; print(celebglow.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert found.startswith(str(site))
