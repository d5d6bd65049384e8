"""Pictures of walks: their pixels are the store's, in the order that was asked for."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageSequence

import harness
from cli import main
from harness.data.dataset import Dataset
from harness.data.show import animation, picture, save, walk
from harness.formats import card
from harness.io.pictures import picture_of
from helpers.commands import CommandLine, assert_one_clear_line, invoke
from splits import Factor, FactorGrid

NAME = "blocks"


@pytest.fixture
def data(blocks_root: Path) -> Dataset:
    return harness.open(NAME, blocks_root)


def test_two_factors_are_rows_and_columns(data: Dataset) -> None:
    drawn = np.asarray(picture(data, ["brightness", "x-position"], {"shape": "frame", "y-position": 0}))
    assert drawn.shape == (4 * 64, 5 * 64)
    for row in range(4):
        for column in range(5):
            (number,) = data.sel(shape=1, brightness=row, x_position=column, y_position=0)
            tile = drawn[64 * row : 64 * row + 64, 64 * column : 64 * column + 64]
            assert np.array_equal(tile, data[int(number)][0].squeeze(2))


def test_what_is_not_named_has_its_middle_value(data: Dataset) -> None:
    assert data.spec.grid.factors(walk(data, [], {})).tolist() == [size // 2 for size in data.spec.grid.sizes]
    assert np.asarray(picture(data)).shape == (64, 64)


def test_an_animation_goes_there_and_back(data: Dataset, tmp_path: Path) -> None:
    save(data, tmp_path / "new/walk.gif", ["x-position"])
    (tmp_path / "again.gif").write_bytes(animation(data, "x-position"))
    assert (tmp_path / "again.gif").read_bytes() == (tmp_path / "new/walk.gif").read_bytes()
    with Image.open(tmp_path / "new/walk.gif") as gif:
        frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(gif)]
        assert gif.info["loop"] == 0
    numbers = walk(data, ["x-position"], {})
    expected = [data[int(numbers[index])][0].squeeze(2) for index in (0, 1, 2, 3, 4, 3, 2, 1)]
    assert all(np.array_equal(frame, image) for frame, image in zip(frames, expected, strict=True))


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--walk", "x-positon", "--out", "x.png"], "did you mean 'x-position'"),
        (["--walk", "shape", "--at", "shape=0", "--out", "x.png"], "shape is named twice"),
        (["--walk", "shape", "--at", "brightness=4", "--out", "x.png"], "brightness has the values 0 to 3"),
        (["--at", "shape", "--out", "x.png"], "FACTOR=VALUE is expected, such as shape=0"),
        (["--walk", "shape,brightness", "--out", "x.gif"], "a .png is expected, or, for one factor, a .gif"),
        (["--walk", "shape,brightness,x-position", "--out", "x.png"], "at most two factors"),
    ],
)
def test_wrong_use(blocks_root: Path, arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_clear_line(invoke("data", "show", NAME, "--data", blocks_root, *arguments), 2, words)
    assert not list(tmp_path.iterdir())


def test_the_command(blocks_root: Path, data: Dataset, tmp_path: Path) -> None:
    done = invoke(
        "data", "show", NAME, "--data", blocks_root, "--walk", "x-position", "--at", "shape=frame", "--out", tmp_path / "x.png"
    )
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'x.png'} is drawn\n")
    with Image.open(tmp_path / "x.png") as drawn:
        assert np.array_equal(np.asarray(drawn), np.asarray(picture(data, ["x-position"], {"shape": "frame"})))


@pytest.mark.parametrize(
    "words, incomplete, offered",
    [
        ("ood-data bench --model", "cnn,coord", {"cnn,coordconv", "cnn,coordinate-based"}),
        ("ood-data bench --data {root} --dataset", "", {"blocks"}),
        ("ood-data split", "mpi3d_", {"mpi3d_toy", "mpi3d_realistic", "mpi3d_complex"}),
        ("ood-data split mpi3d --kind", "in", {"interpolation"}),
        ("ood-data data show --data {root}", "b", {"blocks"}),
    ],
)
def test_a_shell_completes_names(blocks_root: Path, words: str, incomplete: str, offered: set[str]) -> None:
    """As bash asks for them: with the words typed so far in the environment."""
    typed = f"{words.format(root=blocks_root)} {incomplete}"
    environment = {"_OOD_DATA_COMPLETE": "bash_complete", "COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    told = CliRunner().invoke(main, [], env=environment, prog_name="ood-data")
    assert {line.removeprefix("plain,") for line in told.stdout.splitlines()} == offered


def test_a_missing_shard_is_one_clear_line(ood_data: CommandLine, blocks_root: Path, tmp_path: Path) -> None:
    """And nothing of what an interrupted reading of several shards at once would leave on stderr."""
    shutil.copytree(blocks_root, tmp_path / "data")
    data = harness.open(NAME, tmp_path / "data")
    data.store.shard(int(walk(data, ["shape", "x-position"], {}).min()) // data.store.rows).unlink()
    done = ood_data("data", "show", NAME, "--walk", "shape,x-position", "--data", tmp_path / "data", "--out", tmp_path / "x.png")
    assert_one_clear_line(done, 1, "is missing", f"ood-data data verify {NAME} --data {tmp_path / 'data'}")
    assert not (tmp_path / "x.png").exists()


def test_a_sheet_walks_each_way_once_with_borders_and_values(data: Dataset) -> None:
    for sizes, expected in (((2, 3), {"a": 3, "b": 2}), ((1, 4), {"a": 3, "b": 1}), ((5, 5, 5), {"a": 3})):
        grid = FactorGrid(tuple(Factor(name, size) for name, size in zip("abc", sizes, strict=False)))
        for name, count in expected.items():
            rows = card.walks(grid, name)
            assert len({tuple(row) for row in rows.tolist()}) == len(rows) == count

    sheet = np.asarray(Image.open(io.BytesIO(card.preview(data.store))).convert("RGB"))
    first = card.MARGIN // 2 + card.HEADER + card.LEVELS
    for step, index in enumerate(card.walks(data.spec.grid, "shape")[0]):
        left = card.MARGIN + step * (64 + card.GAP)
        picture = np.asarray(picture_of(data[int(index)][0]).convert("RGB"))
        assert (sheet[first : first + 64, left : left + 64] == picture).all()
        assert (sheet[first : first + 64, left + 64 : left + 64 + card.GAP] == 255).all()
        assert (sheet[first - card.LEVELS : first, left : left + 64] < 200).any()  # the value's name
