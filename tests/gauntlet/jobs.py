"""What can be interrupted: twelve commands, each small, with what it starts from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import torch
from attack import Ended, made, run

import splits
from helpers import official, ports

Arguments = list[object]
GENERATE: Arguments = ["generate", "celebglow", "--persons", 8, "--levels", 3]
SMALL_FLOW: Arguments = ["--resolution", 16, "--flow-steps", "2,2", "--widths", "8,8", "--threads", 1]
SETTINGS = ("train.steps=60", "train.batch=16", "score.samples=100", "train.checkpoint_seconds=0")
BENCH: Arguments = [
    "bench",
    "--model",
    "mlp",
    "--device",
    "cpu",
    "--jobs",
    1,
    *(word for setting in SETTINGS for word in ("--set", setting)),
]


class Inputs:
    """What jobs start from, each made when it is first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def stores(self) -> Path:
        """A folder with a small celebglow."""
        made("generate", "celebglow", "--persons", 6, "--levels", 3, "--out", self.root / "stores")
        return self.root / "stores"

    @cached_property
    def fewer(self) -> Path:
        """Half of what GENERATE makes."""
        made("generate", "celebglow", "--persons", 4, "--levels", 3, "--out", self.root / "fewer")
        return self.root / "fewer"

    @cached_property
    def second_part(self) -> Path:
        made(*GENERATE, "--part", "2/2", "--out", self.root / "second")
        return self.root / "second"

    @cached_property
    def npz(self) -> Path:
        """An official file of 60 large images, toy.toml beside it."""
        official.small_spec(self.root)
        return official.mpi3d_npz(self.root / "toy.npz", official.pictures(60, side=640))

    @cached_property
    def pictures(self) -> Path:
        made(
            "data", "export", "celebglow", "--kind", "random", "--format", "png", "--data", self.stores, "--out", self.root / "png"
        )
        return self.root / "png"

    @cached_property
    def flow(self) -> Path:
        made(*self.training, "--steps", 10, "--out", self.root / "flow")
        return self.root / "flow/flow"

    @property
    def training(self) -> Arguments:
        return ["flow", "train", self.pictures, "--attributes", self.pictures / "labels.csv", *SMALL_FLOW]

    @cached_property
    def runs(self) -> Path:
        made(*BENCH, "--kind", "random", "--kind", "extrapolation", "--data", self.stores, "--out", self.root / "runs")
        return self.root / "runs"

    @cached_property
    def checkpoint(self) -> Path:
        """Somebody else's Glow, of PyTorch."""
        torch.manual_seed(0)
        torch.save(ports.rosinality(2, 2, 8, True, True), self.root / "glow.pt")
        return self.root / "glow.pt"


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("inputs"))


@dataclass(frozen=True)
class Job:
    """A command that writes into a folder.

    Attributes:
        arguments: of the folder and the inputs.
        before: what lies in the folder when it starts.
        differs: files that need not be the same at the end, by the end of their names.
    """

    arguments: Callable[[Path, Inputs], Arguments]
    before: Callable[[Inputs], Path] | None = None
    differs: tuple[str, ...] = ()

    def begin(self, out: Path, inputs: Inputs) -> None:
        """Make the folder as it was before the first time."""
        shutil.rmtree(out, ignore_errors=True)
        if self.before is None:
            out.mkdir()
        else:
            shutil.copytree(self.before(inputs), out)

    def run(self, out: Path, inputs: Inputs, **options: object) -> Ended:
        return run(*self.arguments(out, inputs), **options)


JOBS = {
    "generate": Job(lambda out, _: [*GENERATE, "--out", out]),
    "extend": Job(lambda out, _: [*GENERATE, "--out", out], lambda inputs: inputs.fewer),
    "part": Job(lambda out, _: [*GENERATE, "--part", "1/2", "--out", out], lambda inputs: inputs.second_part),
    "dsprites": Job(lambda out, _: ["generate", "dsprites", "--orientations", 3, "--out", out]),
    "convert": Job(lambda out, i: ["data", "convert", i.npz, "--spec", i.root / "toy.toml", "--out", out]),
    "export": Job(lambda out, i: ["data", "export", "celebglow", "--kind", "random", "--data", i.stores, "--out", out / "x"]),
    "export png": Job(
        lambda out, i: [
            "data",
            "export",
            "celebglow",
            "--kind",
            "random",
            "--format",
            "png",
            "--data",
            i.stores,
            "--out",
            out / "x",
        ]
    ),
    "bench": Job(lambda out, i: [*BENCH, "--kind", "random", "--data", i.stores, "--out", out]),
    "report": Job(lambda out, i: ["report", i.runs, "--out", out / "r"]),
    "flow train": Job(
        lambda out, i: [*i.training, "--steps", 30, "--save-every", 0, "--out", out / "f"], differs=("log.jsonl", "checkpoint.pt")
    ),
    "flow directions": Job(
        lambda out, i: [
            "flow",
            "directions",
            i.flow,
            i.pictures,
            "--labels",
            i.pictures / "labels.csv",
            "--attribute",
            "smile",
            "--shrink",
            0,
            "--out",
            out / "w",
        ]
    ),
    "flow convert": Job(lambda out, i: ["flow", "convert", i.checkpoint, "--resolution", 16, "--out", out / "f"]),
}


def spec_of(inputs: Inputs) -> splits.SplitSpec:
    """Of the official file."""
    assert inputs.npz.exists()
    return splits.load_spec(inputs.root / "toy.toml")
