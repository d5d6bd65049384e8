"""Official files into stores and out again: the same images, and one clear sentence about every file that is wrong."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from numpy.lib import format as npy
from PIL import Image

import splits
from harness.data import writer
from harness.data.verify import verify
from harness.data.writer import Writer
from harness.formats import convert as convert_module
from harness.formats import dsprites, readers
from harness.formats.catalog import CATALOG, File
from harness.formats.convert import convert
from harness.formats.export import export
from harness.io import atomic
from helpers import official
from helpers.commands import ROOT, CommandLine, assert_one_clear_line
from helpers.files import contents, no_file_above
from helpers.official import pictures, small_spec
from splits.arrays import BadFile

Make = Callable[[Path, splits.SplitSpec], tuple[Path, np.ndarray]]


def _dsprites(maker: Callable[[Path, splits.SplitSpec, np.ndarray], Path], suffix: str) -> Make:
    def make(folder: Path, spec: splits.SplitSpec) -> tuple[Path, np.ndarray]:
        images = pictures(channels=1, binary=True)
        return maker(folder / f"dsprites{suffix}", spec, images[..., 0]), images * 255

    return make


def _shapes3d(folder: Path, spec: splits.SplitSpec) -> tuple[Path, np.ndarray]:
    return official.shapes3d_h5(folder / "3dshapes.h5", spec, pictures()), pictures()


def _mpi3d(**how: object) -> Make:
    def make(folder: Path, spec: splits.SplitSpec) -> tuple[Path, np.ndarray]:
        return official.mpi3d_npz(folder / "real.npz", pictures(), **how), pictures()  # type: ignore[arg-type]

    return make


def _published(shuffled: bool) -> Make:
    def make(folder: Path, spec: splits.SplitSpec) -> tuple[Path, np.ndarray]:
        return official.published(folder, spec, "composition", pictures(), "toy", shuffled), pictures()

    return make


def _npy(shape: tuple[int, ...]) -> Make:
    def make(folder: Path, spec: splits.SplitSpec) -> tuple[Path, np.ndarray]:
        np.save(folder / "celeba_glow_all_images_64.npy", pictures().reshape(*shape, 8, 8, 3))
        return folder / "celeba_glow_all_images_64.npy", pictures()

    return make


LAYOUTS: dict[str, Make] = {
    "dsprites npz": _dsprites(official.dsprites_npz, ".npz"),
    "dsprites hdf5": _dsprites(official.dsprites_hdf5, ".hdf5"),
    "3dshapes": _shapes3d,
    "mpi3d flat": _mpi3d(),
    "mpi3d by factor": _mpi3d(sizes=(3, 4, 5)),
    "mpi3d deflated": _mpi3d(compressed=True),
    "published": _published(shuffled=False),
    "published shuffled": _published(shuffled=True),
    "celebglow npy": _npy((60,)),
    "celebglow npy by factor": _npy((3, 4, 5)),
}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.store.SHARD_BYTES", 7 * 8 * 8 * 3)
    monkeypatch.setattr(readers, "WINDOW", 20 * 8 * 8 * 3)  # several passes for rows in no order


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_becomes_the_same_store(tmp_path: Path, layout: str) -> None:
    spec_file = small_spec(tmp_path)
    path, images = LAYOUTS[layout](tmp_path, splits.load_spec(spec_file))
    made = convert(path, None, tmp_path / "data", spec_file)
    np.testing.assert_array_equal(made.read(0, 60), images)
    assert verify(tmp_path / "data", "toy") == []
    assert splits.spec_from_dict(made.spec) == splits.load_spec(spec_file)
    assert made.source["file"] == path.name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_interrupted_it_continues_to_the_same_bytes(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec_file = small_spec(tmp_path)
    path, _ = LAYOUTS[layout](tmp_path, splits.load_spec(spec_file))
    convert(path, None, tmp_path / "one", spec_file)
    publish, published = Writer.publish, 0

    def interrupted(self: Writer, shard: int, images: np.ndarray) -> None:
        nonlocal published
        published += 1
        if published == 3:
            raise KeyboardInterrupt
        publish(self, shard, images)

    monkeypatch.setattr(Writer, "publish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(path, None, tmp_path / "two", spec_file)
    convert(path, None, tmp_path / "two", spec_file)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


@pytest.mark.parametrize("kind", ["extrapolation", "composition", "random"])
@pytest.mark.parametrize("layout", ["dsprites npz", "3dshapes", "mpi3d flat"])
def test_round_trip_through_the_published_layout(tmp_path: Path, layout: str, kind: str) -> None:
    spec_file = small_spec(tmp_path)
    spec = splits.load_spec(spec_file)
    path, images = LAYOUTS[layout](tmp_path, spec)
    convert(path, None, tmp_path / "data", spec_file)
    files = export(tmp_path / "data", "toy", kind, "benchmark", tmp_path / "published")
    for side, index in (("train", spec.split(kind).train), ("test", spec.split(kind).test)):
        written, labels = (np.load(tmp_path / f"published/toy_{kind}_{side}_{what}.npz")["arr_0"] for what in ("images", "labels"))
        assert written.dtype == np.uint8
        np.testing.assert_array_equal(written, images[index].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(labels, spec.grid.factors(index))
    assert splits.published.compare(spec.split(kind), tmp_path / "published").ok
    back = convert(files[0], None, tmp_path / "back", spec_file)
    np.testing.assert_array_equal(back.read(0, 60), images)


def test_values_of_pictures_may_have_names(tmp_path: Path) -> None:
    spec_file = small_spec(tmp_path)
    spec_file.write_text(spec_file.read_text().replace("size = 3\n", 'size = 3\nvalues = ["red", "green", "blue"]\n', 1))
    grid = splits.load_spec(spec_file).grid
    (tmp_path / "png").mkdir()
    rows = []
    for cell, (color, size, x) in enumerate(grid.factors(np.arange(60)).tolist()):
        Image.fromarray(pictures()[cell]).save(tmp_path / f"png/{cell}.png")
        rows.append(f"{cell}.png,{('red', '1', ' blue ')[color]},{size},{x}")
    table = tmp_path / "png/labels.csv"
    table.write_text("\n".join(["file,color,size,x", *rows]))
    np.testing.assert_array_equal(convert(tmp_path / "png", None, tmp_path / "data", spec_file).read(0, 60), pictures())
    table.write_text(table.read_text().replace(",red,", ",reed,"))
    with pytest.raises(
        BadFile, match=r"color is 'reed'; an index from 0 to 2, or the name of a value, is expected; did you mean 'red'"
    ):
        convert(tmp_path / "png", None, tmp_path / "data", spec_file)


def test_round_trip_through_pictures(tmp_path: Path) -> None:
    spec_file = small_spec(tmp_path)
    path, images = LAYOUTS["mpi3d flat"](tmp_path, splits.load_spec(spec_file))
    convert(path, None, tmp_path / "data", spec_file)
    (table,) = export(tmp_path / "data", "toy", "extrapolation", "png", tmp_path / "png")
    lines = table.read_text().splitlines()
    assert lines[:2] == ["file,side,color,size,x", "train/00.png,train,0,0,0"]
    assert lines[5] == "test/04.png,test,0,0,4"
    back = convert(tmp_path / "png", None, tmp_path / "back", spec_file)
    np.testing.assert_array_equal(back.read(0, 60), images)


def test_exports_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    spec_file = small_spec(tmp_path)
    path, _ = LAYOUTS["3dshapes"](tmp_path, splits.load_spec(spec_file))
    convert(path, None, tmp_path / "data", spec_file)
    for folder in ("one", "two"):
        export(tmp_path / "data", "toy", "random", "benchmark", tmp_path / folder)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_codecs_are_chosen_by_what_they_save(tmp_path: Path) -> None:
    spec_file = small_spec(tmp_path)
    noise = official.mpi3d_npz(tmp_path / "noise.npz", pictures())
    flat = official.mpi3d_npz(tmp_path / "flat.npz", np.zeros((60, 8, 8, 3), np.uint8))
    assert not convert(noise, None, tmp_path / "noise", spec_file).compressed
    assert convert(flat, None, tmp_path / "flat", spec_file).compressed


# Bad input


def _truncated(folder: Path, spec: splits.SplitSpec) -> Path:
    path, _ = LAYOUTS["mpi3d flat"](folder, spec)
    path.write_bytes(path.read_bytes()[:-300])
    return path


def _flipped(layout: str) -> Callable[[Path, splits.SplitSpec], Path]:
    def make(folder: Path, spec: splits.SplitSpec) -> Path:
        path, _ = LAYOUTS[layout](folder, spec)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        return path

    return make


def _short_hdf5(folder: Path, spec: splits.SplitSpec) -> Path:
    path, _ = LAYOUTS["3dshapes"](folder, spec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def _short_npy(folder: Path, spec: splits.SplitSpec) -> Path:
    path, _ = LAYOUTS["celebglow npy"](folder, spec)
    path.write_bytes(path.read_bytes()[:-1])
    return path


def _web_page(folder: Path, spec: splits.SplitSpec) -> Path:
    (folder / "real.npz").write_text("<!DOCTYPE html><title>Sorry</title>")
    return folder / "real.npz"


def _mislabelled(folder: Path, spec: splits.SplitSpec) -> Path:
    grid = splits.FactorGrid((spec.grid["size"], spec.grid["color"], spec.grid["x"]))
    return official.shapes3d_h5(folder / "3dshapes.h5", splits.SplitSpec("toy", grid, {}), pictures())


def _another_dataset(folder: Path, spec: splits.SplitSpec) -> Path:
    return official.mpi3d_npz(folder / "real.npz", pictures(48))


def _wrong_dtype(folder: Path, spec: splits.SplitSpec) -> Path:
    return official.mpi3d_npz(folder / "real.npz", pictures().astype(np.float32))


def _not_binary(folder: Path, spec: splits.SplitSpec) -> Path:
    return official.dsprites_npz(folder / "dsprites.npz", spec, pictures(channels=1)[..., 0])


def _half_published(folder: Path, spec: splits.SplitSpec) -> Path:
    path, _ = LAYOUTS["published"](folder, spec)
    (folder / "toy_composition_test_images.npz").unlink()
    return path


def _published_twice(folder: Path, spec: splits.SplitSpec) -> Path:
    path, _ = LAYOUTS["published"](folder, spec)
    for what in ("images", "labels"):
        shutil.copy(folder / f"toy_composition_train_{what}.npz", folder / f"toy_composition_test_{what}.npz")
    return path


def _other_keys(folder: Path, spec: splits.SplitSpec) -> Path:
    np.savez(folder / "x.npz", weights=np.zeros(3))
    return folder / "x.npz"


def _without_a_picture(folder: Path, spec: splits.SplitSpec) -> Path:
    (folder / "png").mkdir()
    (folder / "png/labels.csv").write_text("file,color,size,x\n0.png,0,0,0\n")
    return folder / "png"


def _with_a_bad_index(folder: Path, spec: splits.SplitSpec) -> Path:
    (folder / "png").mkdir()
    (folder / "png/labels.csv").write_text("file,color,size,x\n0.png,0,9,0\n")
    return folder / "png"


def _with_text(text: bytes) -> Callable[[Path, splits.SplitSpec], Path]:
    def make(folder: Path, spec: splits.SplitSpec) -> Path:
        (folder / "png").mkdir()
        (folder / "png/labels.csv").write_bytes(text)
        return folder / "png"

    return make


def _of_16_bits(folder: Path, spec: splits.SplitSpec) -> Path:
    (folder / "png").mkdir()
    rows = [f"{cell}.png,{','.join(map(str, spec.grid.factors(cell)))}" for cell in range(60)]
    (folder / "png/labels.csv").write_text("\n".join(["file,color,size,x", *rows]))
    for cell in range(60):
        Image.fromarray(np.full((8, 8), 300 * cell, np.uint16)).save(folder / f"png/{cell}.png")
    return folder / "png"


def _groups(folder: Path, spec: splits.SplitSpec) -> Path:
    with h5py.File(folder / "other.h5", "w") as file:
        file.create_group("images")
        file["labels"] = np.zeros((60, 3))
    return folder / "other.h5"


def _flat_classes(folder: Path, spec: splits.SplitSpec) -> Path:
    with h5py.File(folder / "other.hdf5", "w") as file:
        file["imgs"] = pictures(channels=1, binary=True)
        file["latents/classes"] = np.zeros(60, np.int64)
    return folder / "other.hdf5"


def _without_pixels(folder: Path, spec: splits.SplitSpec) -> Path:
    return official.mpi3d_npz(folder / "real.npz", np.zeros((60, 0, 0, 3), np.uint8))


def _bytes_replaced(find: bytes, offset: int, by: bytes) -> Callable[[Path, splits.SplitSpec], Path]:
    def make(folder: Path, spec: splits.SplitSpec) -> Path:
        path, _ = LAYOUTS["mpi3d flat"](folder, spec)
        data = bytearray(path.read_bytes())
        at = data.rindex(find) + offset
        data[at : at + len(by)] = by
        path.write_bytes(data)
        return path

    return make


BAD = {
    "truncated npz": (_truncated, "truncated or damaged"),
    "flipped in npz": (_flipped("mpi3d flat"), "truncated or damaged"),
    "flipped in deflated npz": (_flipped("mpi3d deflated"), "truncated or damaged"),
    "flipped in hdf5": (_flipped("3dshapes"), "truncated or damaged"),
    "flipped in published": (_flipped("published"), "truncated or damaged"),
    "truncated hdf5": (_short_hdf5, "truncated or damaged"),
    "truncated npy": (_short_npy, "truncated or damaged"),
    "web page": (_web_page, "neither npz, hdf5 nor npy"),
    "mislabelled": (_mislabelled, "does not run through the 3 values of color"),
    "another dataset": (_another_dataset, "not the 60 of this dataset"),
    "wrong dtype": (_wrong_dtype, "uint8 is expected"),
    "not binary": (_not_binary, "values above 1"),
    "half published": (_half_published, "there is no .*test_images.npz"),
    "published twice": (_published_twice, "different samples of 60"),
    "other keys": (_other_keys, "holds weights"),
    "without a picture": (_without_a_picture, "no picture for 59 cells of the grid, first color 0, size 0, x 1"),
    "bad index": (_with_a_bad_index, "in row 1, size is '9'; an index from 0 to 3 is expected"),
    "a name for an index": (_with_text(b"file,color,size,x\n0.png,red,0,0\n"), "in row 1, color is 'red'; an index from 0 to 2"),
    "a huge index": (_with_text(b"file,color,size,x\n0.png,0,0,1" + b"0" * 30), "in row 1, x is '10{30}'"),
    "a short row": (_with_text(b"file,color,size,x\n0.png,0"), "in row 1, size is ''"),
    "a row without a file": (_with_text(b"color,size,x,file\n0,0,0\n"), "row 1 names no file"),
    "semicolons": (_with_text(b"file;color;size;x\n0.png;0;0;0\n"), "has no column 'file', 'color', 'size', 'x'"),
    "not utf-8": (_with_text("file,color,size,x\né.png,0,0,0\n".encode("latin-1")), "not a table in UTF-8"),
    "no csv at all": (_with_text(b"file,color,size,x\r\0\n" + b"x" * 200_000), "not a table in UTF-8"),
    "16 bits": (_of_16_bits, "pixels of the kind I;16; 8 bits, gray or in colour, are expected"),
    "groups for arrays": (_groups, "holds images, labels; imgs and latents .* are expected"),
    "flat classes": (_flat_classes, r"latents classes \(60,\) of int64, not numbers \(60, 4\)"),
    "without pixels": (_without_pixels, r"images \(60, 0, 0, 3\) of uint8"),
    "a header cut": (_bytes_replaced(b"}", 0, b" "), "truncated or damaged"),
    "a zip of the future": (_bytes_replaced(b"PK\1\2", 6, b"\xff"), "truncated or damaged: zip file version"),
    "a zip directory elsewhere": (_bytes_replaced(b"PK\5\6", 12, b"\xff\xff\xff"), "truncated or damaged"),
    "more rows than bytes": (_bytes_replaced(b"(60,", 0, b"(99,"), "expected; get it anew"),
}


def test_a_folder_of_several_published_datasets(tmp_path: Path) -> None:
    """The files of the dataset that is asked for are found among others'."""
    for name in ("another", "toy"):
        spec_file = small_spec(tmp_path, name)
        official.published(tmp_path, splits.load_spec(spec_file), "composition", pictures(), name)
    np.testing.assert_array_equal(convert(tmp_path, None, tmp_path / "data", spec_file).read(0, 60), pictures())


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_sentence_and_leave_nothing(tmp_path: Path, case: str) -> None:
    make, words = BAD[case]
    spec_file = small_spec(tmp_path)
    path = make(tmp_path, splits.load_spec(spec_file))
    with pytest.raises((BadFile, FileNotFoundError), match=words) as caught:
        convert(path, None, tmp_path / "data", spec_file)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data").exists() or not contents(tmp_path / "data")


def test_a_known_checksum_of_another_dataset_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec_file = small_spec(tmp_path)
    path, _ = LAYOUTS["mpi3d flat"](tmp_path, splits.load_spec(spec_file))
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    toy = replace(CATALOG["mpi3d_toy"], files=(File("mpi3d_toy.npz", (), (f"md5:{md5}",)),))
    monkeypatch.setattr(convert_module, "CATALOG", {"mpi3d_toy": toy})
    with pytest.raises(BadFile, match="mpi3d_toy's official file, not toy's: give `dataset` mpi3d_toy"):
        convert(path, None, tmp_path / "data", spec_file)


def test_another_file_into_a_store_is_refused(tmp_path: Path) -> None:
    spec_file = small_spec(tmp_path)
    path, _ = LAYOUTS["mpi3d flat"](tmp_path, splits.load_spec(spec_file))
    convert(path, None, tmp_path / "data", spec_file)
    before = contents(tmp_path / "data")
    other = official.mpi3d_npz(tmp_path / "other.npz", pictures()[::-1])
    with pytest.raises(ValueError, match="made with other parameters"):
        convert(other, None, tmp_path / "data", spec_file)
    assert contents(tmp_path / "data") == before
    convert(other, None, tmp_path / "data", spec_file, overwrite=True)
    assert verify(tmp_path / "data", "toy") == []


def test_a_full_disk_leaves_a_store_that_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec_file = small_spec(tmp_path)
    path, images = LAYOUTS["3dshapes"](tmp_path, splits.load_spec(spec_file))
    write, calls = atomic.write_atomically, 0

    def full(target: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:  # after the metadata and a shard or more
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        write(target, data)

    monkeypatch.setattr(writer, "write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        convert(path, None, tmp_path / "data", spec_file)
    np.testing.assert_array_equal(convert(path, None, tmp_path / "data", spec_file).read(0, 60), images)


def test_no_space_from_the_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec_file = small_spec(tmp_path)
    path, _ = LAYOUTS["mpi3d flat"](tmp_path, splits.load_spec(spec_file))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="not enough space"):
        convert(path, None, tmp_path / "data", spec_file)
    assert not contents(tmp_path / "data")


@pytest.mark.parametrize("layout", ["benchmark", "png"])
def test_an_export_to_a_full_disk_leaves_nothing_to_load(tmp_path: Path, layout: str) -> None:
    spec_file = small_spec(tmp_path)
    path, _ = LAYOUTS["mpi3d flat"](tmp_path, splits.load_spec(spec_file))
    convert(path, None, tmp_path / "data", spec_file)
    with no_file_above(2000 if layout == "benchmark" else 100), pytest.raises(OSError, match="File too large") as caught:
        export(tmp_path / "data", "toy", "composition", layout, tmp_path / "out")
    assert str(tmp_path / "out") in str(caught.value.filename)
    assert {file.name for file in (tmp_path / "out").glob("*") if file.is_file()} <= {
        ".toy.export.json"
    }  # by which the next export knows it


def test_pictures_of_two_splits_are_not_mixed(tmp_path: Path) -> None:
    """In one folder, test images of the second split would lie among the train images of the first."""
    spec_file = small_spec(tmp_path)
    path, _ = LAYOUTS["mpi3d flat"](tmp_path, splits.load_spec(spec_file))
    convert(path, None, tmp_path / "data", spec_file)
    export(tmp_path / "data", "toy", "composition", "png", tmp_path / "png")
    before = contents(tmp_path / "png")
    with pytest.raises(ValueError, match="holds pictures already: choose another"):
        export(tmp_path / "data", "toy", "extrapolation", "png", tmp_path / "png")
    assert contents(tmp_path / "png") == before


# The command


def test_the_command_converts_and_exports(tmp_path: Path, ood_data: CommandLine) -> None:
    spec_file = small_spec(tmp_path)
    LAYOUTS["mpi3d flat"](tmp_path, splits.load_spec(spec_file))
    made = ood_data("data", "convert", "real.npz", "--spec", spec_file, cwd=tmp_path)
    assert (made.returncode, made.stderr) == (0, "")
    assert "data/toy.zarr is complete: 60 images" in made.stdout
    assert "real.npz" in ood_data("data", "list", cwd=tmp_path).stdout
    written = ood_data("data", "export", "toy", "--kind", "composition", "--out", "npz", cwd=tmp_path)
    assert "npz/toy_composition_test_images.npz" in written.stdout


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (("convert", "real.npz"), 2, ("name it by --dataset", "--spec")),
        (("convert", "real.npz", "--dataset", "mpi3D"), 2, ("did you mean 'mpi3d'",)),
        (("convert", "real.npz", "--dataset", "mpi3d"), 2, ("1,036,800 of this dataset", "another dataset?")),
        (("convert", "none.npz", "--dataset", "mpi3d"), 2, ("there is no file none.npz",)),
        (("convert", "real.npz", "--dataset", "mpi3d", "--spec", "toy.toml"), 2, ("is the spec of toy, not of mpi3d",)),
        (("export", "mpi3d", "--kind", "random", "--out", "x"), 1, ("there is no mpi3d in",)),
    ],
)
def test_wrong_use_is_one_clear_line(
    tmp_path: Path, ood_data: CommandLine, arguments: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    LAYOUTS["mpi3d flat"](tmp_path, splits.load_spec(small_spec(tmp_path)))
    assert_one_clear_line(ood_data("data", *arguments, cwd=tmp_path), code, *words)
    assert not (tmp_path / "data").exists()
    assert not (tmp_path / "x").exists()


# Long ones

BIG_SPEC = """
name = "toy"
[[factor]]
name = "shape"
size = 40
kind = "categorical"
[[factor]]
name = "x"
size = 1365
kind = "ordinal"
[split.random]
test_count = 1000
"""


@pytest.mark.slow
def test_killed_twenty_times_it_ends_identical(tmp_path: Path) -> None:
    """SIGKILL the real command at random moments, 20 times, then let it finish: the bytes of an undisturbed run."""
    shards, kills = 40, 20
    (tmp_path / "toy.toml").write_text(BIG_SPEC)
    images = np.random.default_rng(0).integers(0, 256, (shards * 1365, 64, 64, 3), np.uint8)
    np.savez(tmp_path / "real.npz", images=images)
    del images

    def command(out: str) -> list[str]:
        spec, file = tmp_path / "toy.toml", tmp_path / "real.npz"
        return [sys.executable, "-m", "cli", "data", "convert", str(file), "--spec", str(spec), "--out", str(tmp_path / out)]

    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command("undisturbed"), env=environment, check=True, capture_output=True)
    folder, chance, killed = tmp_path / "killed/toy.zarr/images", random.Random(0), 0

    def there() -> int:
        return len(list(folder.glob("c.*.0"))) if folder.exists() else 0

    for attempt in range(4 * kills):
        before = there()
        process = subprocess.Popen(command("killed"), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and attempt % 4 and there() <= before:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.02 if attempt % 4 else 2))  # now and then from the very start
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
        if killed == kills or (tmp_path / "killed/toy.manifest.jsonl").exists():
            break
    assert killed == kills, f"finished after {killed} kills"
    subprocess.run(command("killed"), env=environment, check=True, capture_output=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")
    assert verify(tmp_path / "killed", "toy") == []


@pytest.mark.slow
def test_two_hundred_corruptions_are_named(tmp_path: Path) -> None:
    """Single bytes of any file of a converted store, replaced: the file is named every time."""
    spec_file = small_spec(tmp_path)
    path, _ = LAYOUTS["3dshapes"](tmp_path, splits.load_spec(spec_file))
    convert(path, None, tmp_path / "data", spec_file)
    chance, files = random.Random(0), sorted(file for file in (tmp_path / "data").rglob("*") if file.is_file())
    named = 0
    for _ in range(400):
        file = chance.choice(files)
        whole = file.read_bytes()
        damaged = bytearray(whole)
        position = chance.randrange(len(whole))
        damaged[position] = chance.choice([value for value in range(256) if value != whole[position]])
        file.write_bytes(damaged)
        named += str(file.relative_to(tmp_path / "data")) in [problem.path for problem in verify(tmp_path / "data", "toy")]
        file.write_bytes(whole)
    assert named == 400


@pytest.mark.slow
def test_a_full_size_dsprites_file(tmp_path: Path, ood_data: CommandLine) -> None:
    """The official layout at its full size: in less than 1 GiB, the shards of the renderer, bit by bit."""
    spec = splits.load_spec("dsprites")
    small = {"latents_classes": np.zeros((dsprites.IMAGES, 6), np.int64)}
    small["latents_classes"][:, 1:] = spec.grid.factors(np.arange(dsprites.IMAGES))
    np.savez_compressed(tmp_path / "dsprites.npz", **small)  # type: ignore[arg-type]
    with (
        zipfile.ZipFile(tmp_path / "dsprites.npz", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("imgs.npy", "w", force_zip64=True) as member,
    ):
        npy.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (dsprites.IMAGES, 64, 64)})
        for bits in dsprites.all_bits():
            member.write(np.unpackbits(bits).tobytes())
    program = (
        "import sys, pathlib; from harness.formats.convert import convert; convert(sys.argv[1], 'dsprites', sys.argv[2]); "
        "print(pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"  # ru_maxrss has the parent's in it
    )
    run = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "dsprites.npz", tmp_path / "converted"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(run.stdout) * 1024 < 2**30
    assert ood_data("generate", "dsprites", "--out", tmp_path / "rendered").returncode == 0
    converted, rendered = (
        (tmp_path / root / "dsprites.manifest.jsonl").read_text().splitlines() for root in ("converted", "rendered")
    )
    assert converted[:-1] == rendered[:-1]
