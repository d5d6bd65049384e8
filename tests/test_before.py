"""What a version before wrote still opens, resumes and reports the same: see golden/before/README.md."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import harness
from harness.bench.plan import Plan, plan
from harness.data.verify import verify
from harness.models import MODELS, find
from harness.report.collect import collect
from harness.report.html import report
from harness.runs.config import fingerprint
from harness.runs.presets import Settings, resolve
from harness.runs.records import RunScores, RunSetup
from helpers.small import blocks, blocks_spec

BEFORE = Path(__file__).parent / "golden/before"
CPU = torch.device("cpu")
SETTINGS = ("train.steps=6", "train.batch=16", "train.log_every=2", "train.precision=fp32", "train.checkpoint_seconds=0")


@pytest.fixture(autouse=True)
def among_the_users_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BEFORE)
    monkeypatch.setattr("sys.dont_write_bytecode", True)


def planned(out: Path, model: str, kind: str, *more: str) -> Plan:
    return plan([model], BEFORE, out, kinds=[kind], settings=Settings(overrides=(*SETTINGS, *more)))


def test_the_store() -> None:
    data = harness.open("blocks", BEFORE)
    assert np.array_equal(np.asarray(data.images), blocks(blocks_spec().grid))
    assert verify(BEFORE, "blocks") == []


@pytest.mark.parametrize("preset", ["quick", "paper"])
@pytest.mark.parametrize("name", [*MODELS, "my_network:build"])
def test_the_fingerprint(name: str, preset: str) -> None:
    hashes = json.loads((BEFORE / "expected/hashes.json").read_text())
    images = {"images": 5, "spec": {"name": "x"}, "source": {"generator": "a test"}}
    others = ("train.steps=7", "train.normalize=train", "train.betas=[0.5, 0.9]", "readout.steps=3", "score.samples=10")
    for overrides in ((), others):
        config = resolve(find(name), preset, ["train.precision=fp32", *overrides], CPU)
        assert fingerprint(config, find(name), images) == hashes[" ".join([name, preset, *overrides])]


def test_the_report(tmp_path: Path) -> None:
    """All its numbers; what tells a row from another is worded otherwise today."""
    rows = collect(BEFORE / "runs")
    report(rows, tmp_path)
    for name in ("scores.csv", "factors.csv"):
        found, expected = (
            list(csv.DictReader((folder / name).read_text().splitlines())) for folder in (tmp_path, BEFORE / "expected")
        )
        assert [line | {"differs": ""} for line in found] == [line | {"differs": ""} for line in expected]


@pytest.mark.parametrize("model, more, trust", [("mlp", ["model.widths=[1]"], False), ("my_network:build", [], True)])
def test_a_finished_run(model: str, more: list[str], trust: bool) -> None:
    (run,) = planned(BEFORE / "runs", model, "extrapolation", *more).runs
    assert run.state == "done"
    scores = run.execute(CPU)
    assert (scores.format, scores.fingerprint) == (RunScores.FORMAT, run.fingerprint)
    data = harness.open("blocks", BEFORE)
    again = harness.score(harness.load(run.folder, trust_code=trust), data, data.split("extrapolation"))
    assert again["r2"]["factors"] == pytest.approx(scores.r2.factors, rel=1e-3)  # another processor rounds in another way


def test_an_interrupted_run(tmp_path: Path) -> None:
    shutil.copytree(BEFORE / "interrupted", tmp_path / "runs")
    (run,) = planned(tmp_path / "runs", "my_network:build", "random").runs
    assert run.state == "resumable"
    first, _ = (run.folder / "log.jsonl").read_text().splitlines()
    run.execute(CPU)
    log = (run.folder / "log.jsonl").read_text().splitlines()
    assert log[0] == first  # what the checkpoint knows isn't trained again
    assert [json.loads(line)["step"] for line in log] == [2, 4, 6]
    expected = safetensors.torch.load_file(BEFORE / "expected/interrupted.safetensors")
    found = safetensors.torch.load_file(run.folder / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-5)


def test_a_config_that_has_no_image_shape(tmp_path: Path) -> None:
    folder = shutil.copytree(next((BEFORE / "runs/blocks/extrapolation/mlp").iterdir()), tmp_path / "run")
    document = json.loads((folder / "config.json").read_text())
    del document["image_shape"]
    (folder / "config.json").write_text(json.dumps(document))
    assert RunSetup.read(folder / "config.json").image_shape is None
    with pytest.raises(ValueError, match="by an older version, which did not record image_shape"):
        harness.load(folder)
