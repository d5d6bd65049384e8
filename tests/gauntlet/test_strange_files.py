"""Files of strangers, damaged at random and given to the commands that read them: one clear line, in bounded time and memory,
nothing executed, nothing written but where the user said."""

from __future__ import annotations

import os
import pickle
import random
import re
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from attack import Command, chance, many
from jobs import BENCH, Arguments, Inputs, inputs, spec_of

from celebglow.info import BUNDLED
from harness.runs.records import SCORES
from helpers import official
from helpers.flows import random_glow
from helpers.graphs import GlowGraph

__all__ = ["chance", "inputs"]

pytestmark = pytest.mark.slow
SECONDS, MEGABYTES = 300, 1500
NUMBERS = [b"\0" * 8, b"\xff" * 8, b"\xff" * 4, b"\x7f" + b"\xff" * 7, b"\0\0\0\0\0\0\0\x80", b"\x80" * 10]
WORDS = (
    *("-1", "0", "1e999", "nan", "null", "true", "[]", "{}", "9" * 19, "1" + "0" * 30, "[[[[[[]]]]]]", '{"a":{}}'),
    *('""', '"../../../evil"', '"/evil"', '"<script>"', '"=1+1"', '"\\u0000"', '"\\u202e"', '"os:system"', '"$\\\\frac{$"', '"|"'),
)


class Evil:
    """A pickle that makes a file, if it is executed."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.canary),)


@dataclass(frozen=True)
class Reader:
    """A command and what it reads.

    Attributes:
        make: files in a folder, of which those that are damaged are returned.
        arguments: of the folder; it may write to ``out`` in it.
        text: whether words of it are exchanged, too.
    """

    make: Callable[[Path, Inputs], list[Path]]
    arguments: Callable[[Path], Arguments]
    text: bool = False


def small(folder: Path) -> tuple[np.ndarray, Path]:
    return official.pictures(60), official.small_spec(folder)


def npz(folder: Path, _: Inputs) -> list[Path]:
    return [official.mpi3d_npz(folder / "x.npz", small(folder)[0])]


def dsprites(folder: Path, inputs: Inputs) -> list[Path]:
    small(folder)
    return [official.dsprites_npz(folder / "x.npz", spec_of(inputs), official.pictures(60, 1, True)[..., 0])]


def npy(folder: Path, _: Inputs) -> list[Path]:
    np.save(folder / "x.npy", small(folder)[0])
    return [folder / "x.npy"]


def hdf5(folder: Path, inputs: Inputs) -> list[Path]:
    small(folder)
    return [official.dsprites_hdf5(folder / "x.h5", spec_of(inputs), official.pictures(60, 1, True)[..., 0])]


def spec(folder: Path, _: Inputs) -> list[Path]:
    return [official.small_spec(folder)]


def table(folder: Path, inputs: Inputs) -> list[Path]:
    shutil.copytree(inputs.pictures, folder / "png")
    pictures = sorted((folder / "png").rglob("*.png"))
    return [folder / "png/labels.csv", folder / "png/labels.csv", pictures[0]]


def graph(folder: Path, _: Inputs) -> list[Path]:
    return [GlowGraph(random_glow(border=True, quantize=True)).save(folder / "x.pb")]


def checkpoint(folder: Path, inputs: Inputs) -> list[Path]:
    return [Path(shutil.copy(inputs.checkpoint, folder / "x.pt"))]


def flow(folder: Path, _: Inputs) -> list[Path]:
    shutil.copytree(BUNDLED, folder / "flow")
    return sorted([*(folder / "flow").rglob("*.json"), *(folder / "flow").rglob("*.safetensors")])


def runs(folder: Path, inputs: Inputs) -> list[Path]:
    shutil.copytree(inputs.runs, folder / "runs")
    return sorted([*(folder / "runs").rglob(SCORES), *(folder / "runs").rglob("config.json")])


def store(folder: Path, inputs: Inputs) -> list[Path]:
    shutil.copytree(inputs.stores, folder / "stores")
    return [
        folder / f"stores/celebglow.{name}"
        for name in ("manifest.jsonl", "zarr/zarr.json", "zarr/images/zarr.json", "zarr/images/c.0.0.0.0")
    ]


def convert(name: str) -> Callable[[Path], Arguments]:
    return lambda folder: ["data", "convert", folder / name, "--spec", folder / "toy.toml", "--out", folder / "out"]


READERS = {
    "npz": Reader(npz, convert("x.npz")),
    "dsprites": Reader(dsprites, convert("x.npz")),
    "npy": Reader(npy, convert("x.npy")),
    "hdf5": Reader(hdf5, convert("x.h5")),
    "spec": Reader(spec, lambda folder: ["split", "--spec", folder / "toy.toml", "--explain", "--plot", folder / "out.png"], True),
    "pictures": Reader(
        table,
        lambda folder: [
            "flow",
            "train",
            folder / "png",
            "--attributes",
            folder / "png/labels.csv",
            "--resolution",
            16,
            "--flow-steps",
            2,
            "--widths",
            8,
            "--steps",
            1,
            "--batch",
            2,
            "--out",
            folder / "out",
        ],
        True,
    ),
    "graph": Reader(graph, lambda folder: ["flow", "convert", folder / "x.pb", "--out", folder / "out"]),
    "checkpoint": Reader(
        checkpoint, lambda folder: ["flow", "convert", folder / "x.pt", "--resolution", 16, "--out", folder / "out"]
    ),
    "flow": Reader(flow, lambda folder: ["flow", "info", folder / "flow"], True),
    "runs": Reader(runs, lambda folder: ["report", folder / "runs", "--out", folder / "out"], True),
    "verify": Reader(store, lambda folder: ["data", "verify", "--data", folder / "stores"], True),
    "list": Reader(store, lambda folder: ["data", "list", "--data", folder / "stores"], True),
    "export": Reader(
        store,
        lambda folder: ["data", "export", "celebglow", "--kind", "random", "--data", folder / "stores", "--out", folder / "out"],
        True,
    ),
    "bench": Reader(
        store,
        lambda folder: [*BENCH, "--set", "train.steps=1", "--kind", "random", "--data", folder / "stores", "--out", folder / "out"],
        True,
    ),
}


def damage(path: Path, text: bool, chance: random.Random) -> str:
    """Change a file at random; says how."""
    data = bytearray(path.read_bytes())
    told = []
    for _ in range(chance.choice([1, 1, 1, 3, 10])):
        at = chance.randrange(len(data) + 1)
        if chance.random() < 0.5:  # where the headers are
            at = min(at, chance.randrange(200)) if chance.random() < 0.5 else max(0, len(data) - chance.randrange(1, 200))
        how = chance.choice(["flip", "cut out", "insert", "number", "double", "end"] + ["word", "word", "word"] * text)
        told.append(f"{how} at {at}")
        match how:
            case "flip":
                data[at : at + 1] = bytes([chance.randrange(256)])
            case "cut out":
                del data[at : at + chance.randrange(1, 60)]
            case "insert":
                data[at:at] = chance.randbytes(chance.randrange(1, 20))
            case "number":
                number = chance.choice(NUMBERS)
                data[at : at + len(number)] = number
            case "double":
                data[at:at] = data[at : at + chance.randrange(1, 1000)]
            case "end":
                if chance.random() < 0.2:
                    del data[at:]
            case "word":
                words = [match.span() for match in re.finditer(rb'"[^"]*"|[\w.+-]+', bytes(data))][:5000]
                if words:
                    first, last = chance.choice(words)
                    data[first:last] = chance.choice(WORDS).encode()
    path.write_bytes(data)
    return f"{path.name}: {', '.join(told)}"


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def strike(reader: Reader, folder: Path, what: str) -> None:
    """Give it to the command, and look at what that did."""
    around = names_in(folder.parent)
    before = {name for name in around if not name.startswith(folder.name)}
    command = Command(reader.arguments(folder), cwd=folder, limits={resource.RLIMIT_AS: 12 * 2**30, resource.RLIMIT_CPU: SECONDS})
    ended = command.end(4 * SECONDS)
    ended.assert_fine(0, 1, 2)
    assert ended.mb < MEGABYTES, (what, ended)
    after = names_in(folder.parent)
    strangers = {name for name in after - around if not name.startswith((f"{folder.name}/out", f"{folder.name}/stores/."))}
    assert not strangers, (what, strangers)
    assert {name for name in after if not name.startswith(folder.name)} == before, what


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name: str, chance: random.Random, inputs: Inputs, tmp_path: Path) -> None:
    reader = READERS[name]
    for number in range(many(4, 60)):
        folder = tmp_path / "in/side"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        told = damage(chance.choice(reader.make(folder, inputs)), reader.text, chance)
        print(number, told)
        strike(reader, folder, told)


def test_no_pickle_is_executed(inputs: Inputs, tmp_path: Path) -> None:
    """Wherever a format could hold one."""
    folder = tmp_path / "in/side"
    folder.mkdir(parents=True)
    evil = Evil(folder / "CANARY")
    objects = np.array([evil] * 60, dtype=object)
    small(folder)
    shutil.copytree(BUNDLED, folder / "flow")
    next((folder / "flow").rglob("*.safetensors")).unlink()
    pickled = pickle.dumps(evil)
    (folder / "flow/flow/diffusion_pytorch_model.bin").write_bytes(pickled)
    np.savez(folder / "x.npz", images=objects)
    np.save(folder / "x.npy", objects)
    (folder / "raw.pt").write_bytes(pickled)
    torch.save({"a": evil}, folder / "x.pt")
    torch.save({"a": evil}, folder / "old.pt", _use_new_zipfile_serialization=False)
    shutil.copytree(inputs.runs, folder / "runs")
    for scores in (folder / "runs").rglob(SCORES):
        scores.with_name("checkpoint.pt").write_bytes(pickled)
        scores.unlink()
    attacks: list[Arguments] = [
        *(convert(name)(folder) for name in ("x.npz", "x.npy")),
        *(["flow", "convert", folder / name, "--out", folder / "out"] for name in ("raw.pt", "x.pt", "old.pt")),
        ["flow", "info", folder / "flow"],
        [*BENCH, "--kind", "random", "--data", inputs.stores, "--out", folder / "runs"],
    ]
    for attack in attacks:
        ended = Command(attack, cwd=folder).end()
        ended.assert_fine(1, 2)
        assert not evil.canary.exists(), attack
