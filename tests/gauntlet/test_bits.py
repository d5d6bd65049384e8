"""Every flipped bit of a store is named by `verify`, and no reader takes a shard with one for pictures."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from attack import chance, made, many, run, tree
from jobs import GENERATE, Inputs, inputs

import harness
from harness.data.description import Description
from harness.data.verify import verify
from harness.data.writer import Writer
from helpers.small import NAME, blocks, blocks_spec
from splits.errors import OodDataError

__all__ = ["chance", "inputs"]

pytestmark = pytest.mark.slow

READERS: dict[str, Callable[[Path], object]] = {
    "read": lambda root: harness.open(NAME, root).store.read(0, 200),
    "zarr": lambda root: harness.open(NAME, root).images[:],
    "memory": lambda root: list(harness.open(NAME, root).batches(range(200), 64, place="memory")),
    "mapped": lambda root: list(harness.open(NAME, root).batches(range(200), 64, place="mapped")),
    "torch": lambda root: harness.open(NAME, root).torch_dataset(range(200))[199],
}


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    bit = chance.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("compress", [False, True])
def test_flipped_bits(compress: bool, chance: random.Random, tmp_path: Path) -> None:
    spec = blocks_spec()
    images = blocks(spec.grid)
    with Writer(tmp_path, Description(NAME, images.shape, 50, compress, spec.to_dict(), {"generator": "a test"})) as writer:
        for shard in writer.missing:
            writer.publish(shard, images[50 * shard : 50 * (shard + 1)])
        writer.finish(lambda _: "# blocks\n", lambda _: b"png")
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    for number in range(many(60, 600)):
        path = chance.choices(files, [file.stat().st_size for file in files] if number % 2 else None)[0]
        whole = path.read_bytes()
        flip(path, chance)
        inside = path.relative_to(tmp_path).as_posix()
        assert inside in {problem.path for problem in verify(tmp_path, NAME)}
        if "/images/c." in inside:
            for name, read in READERS.items():
                print(f"{name}: {inside}")
                with pytest.raises(OodDataError, match=path.name):
                    read(tmp_path)
        path.write_bytes(whole)
    assert verify(tmp_path, NAME) == []
    for read in READERS.values():
        read(tmp_path)
    np.testing.assert_array_equal(harness.open(NAME, tmp_path).images[:], images)


def linked(path: Path, _: random.Random) -> None:
    """The same bytes, by a link. A manifest proves as much by one, and `verify` is right to say nothing: it is deleted instead."""
    if path.name.endswith(".jsonl"):
        path.unlink()
        return
    other = path.parent.parent / "elsewhere"
    path.rename(other)
    path.symlink_to(other)


def a_folder(path: Path, _: random.Random) -> None:
    path.unlink()
    if path.name.startswith("c."):
        path.mkdir()


def a_stranger(path: Path, _: random.Random) -> None:
    if ".zarr" in str(path):
        path.with_name(f"{path.name}.stranger").write_text("x")
    else:
        path.unlink()


HARMS: dict[str, Callable[[Path, random.Random], object]] = {
    "flip": flip,
    "delete": lambda path, _: path.unlink(),
    "empty": lambda path, _: path.write_bytes(b""),
    "cut": lambda path, chance: path.write_bytes(path.read_bytes()[: chance.randrange(path.stat().st_size)]),
    "grow": lambda path, _: path.write_bytes(path.read_bytes() + b"\n"),
    "link": linked,
    "folder": a_folder,
    "stranger": a_stranger,
}


def test_what_verify_advises_restores_a_store(chance: random.Random, inputs: Inputs, tmp_path: Path) -> None:
    """Up to three losses at once: delete what it says, run the command again; the second time nothing is left to say."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    made(*GENERATE, "--out", whole)
    expected = tree(whole)
    for _ in range(many(4, 40)):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(whole, out)
        files = sorted(path for path in out.rglob("*") if path.is_file())
        harms = [(chance.choice(sorted(HARMS)), path) for path in chance.sample(files, chance.randint(1, 3))]
        print([f"{harm} {path.relative_to(out)}" for harm, path in harms])
        for harm, path in harms:
            HARMS[harm](path, chance)
        told = run("data", "verify", "celebglow", "--data", out)
        told.assert_fine(1)
        for line in told.said.splitlines():
            path = out / line.partition(":")[0]
            if "/images/c." in str(path) or "delete it" in line:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
        again = run(*GENERATE, "--out", out)
        again.assert_fine(0)
        found = {name: what for name, what in tree(out).items() if not name.endswith("elsewhere")}
        assert found == expected, (harms, told.said)
