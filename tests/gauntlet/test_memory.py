"""The most memory that large jobs take: datasets of the published size, grids of 10⁸ cells, reports on 500 runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from attack import FULL, Ended, made
from jobs import Inputs, inputs

from harness.runs.records import SCORES

__all__ = ["inputs"]

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not FULL, reason="takes long: `make gauntlet`")]
FACTOR = '[[factor]]\nname = "{}"\nsize = 100\nkind = "ordinal"\n'
# The most kilobytes that scoring every test image takes; ru_maxrss has those of the process before it became this one.
SCORE = """
import sys, torch, ood_data
data = ood_data.open_dataset("dsprites", sys.argv[1])
ood_data.score(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4096, 5)).eval(), data, "random")
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
PYTHON = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
BIG = f"""name = "big"
{"".join(map(FACTOR.format, "abcd"))}
[split.extrapolation]
test_if = "any"
held_out = {{ a = "90:", b = "90:" }}
[split.random]
test_count_of = "extrapolation"
"""


def small(ended: Ended, most: int = 1000) -> None:
    assert ended.mb < most, ended


def test_dsprites(tmp_path: Path) -> None:
    small(made("generate", "dsprites", "--out", tmp_path))
    small(made("data", "verify", "dsprites", "--data", tmp_path))
    settings = ("train.steps=5", "score.samples=100000000")
    bench = [
        "bench",
        "--model",
        "mlp",
        "--kind",
        "random",
        "--device",
        "cpu",
        "--jobs",
        1,
        *(f"--set={setting}" for setting in settings),
    ]
    # 0.9 GB of it are the images to train on, which are kept where they take at most half of the memory that is left.
    small(made(*bench, "--data", tmp_path, "--out", tmp_path / "runs"), 2000)
    scored = subprocess.run([sys.executable, "-c", SCORE, tmp_path], capture_output=True, text=True, check=True, env=PYTHON)
    assert int(scored.stdout) < 1500 * 1024, scored.stdout
    small(made("data", "export", "dsprites", "--kind", "random", "--data", tmp_path, "--out", tmp_path / "export"))


@pytest.mark.parametrize("kind", ["extrapolation", "random"])
def test_a_grid_of_many_cells(kind: str, tmp_path: Path) -> None:
    (tmp_path / "big.toml").write_text(BIG)
    small(made("split", "--spec", tmp_path / "big.toml", "--kind", kind, "--explain"))


def test_a_report_on_many_runs(inputs: Inputs, tmp_path: Path) -> None:
    source = next(inputs.runs.rglob(SCORES))
    scores, config = json.loads(source.read_text()), source.with_name("config.json").read_text()
    for number in range(500):
        folder = tmp_path / f"runs/{scores['dataset']}/{scores['kind']}/m{number % 100}/{number // 100}-0a0b0c{number % 100:02d}"
        folder.mkdir(parents=True)
        (folder / SCORES).write_text(json.dumps(scores | {"model": f"m{number % 100}", "seed": number // 100}))
        (folder / "config.json").write_text(config)
    small(made("report", tmp_path / "runs", "--out", tmp_path / "report"))
