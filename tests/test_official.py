"""Stores in the official layouts: what the readers of disentanglement_lib, TFDS and disent do with a file gives the store's images."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

import splits
from cli import main
from harness.data.store import Description, Store
from harness.data.writer import Writer
from harness.formats import official as layouts
from harness.formats.card import card, preview
from harness.formats.convert import convert
from harness.formats.export import export
from helpers import official
from helpers.files import contents
from splits.arrays import BadFile
from splits.errors import InputError

SIDE = 2  # of the pictures, so that whole grids are small


def spec_now(name: str) -> splits.SplitSpec:
    """What the layouts take for the official grid, `small` or not."""
    spec: splits.SplitSpec = layouts.load_spec(name)  # type: ignore[attr-defined]
    return spec


def store_of(root: Path, name: str, compress: bool = True) -> Store:
    """A store of the official grid, each image of which is its own."""
    spec = spec_now(name)
    channels = 1 if name == "dsprites" else 3
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (len(spec.grid), SIDE, SIDE, channels), dtype=np.uint8)
    images = (images > 127) * np.uint8(255) if channels == 1 else images
    description = Description(name, images.shape, 200_000, compress, spec.to_dict(), {"file": "a test's"})
    with Writer(root, description) as writer:
        for shard in writer.missing:
            rows = writer.rows(shard)
            writer.publish(shard, images[rows.start : rows.stop])
        writer.finish(card, preview)
    return Store(root, name)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if dSprites had fewer values of its factors: the grid takes the last ones of each."""
    spec = splits.load_spec("dsprites")
    factors = [splits.Factor(factor.name, size, factor.kind) for factor, size in zip(spec.grid, (3, 4, 5, 6, 7), strict=True)]
    values = zip(layouts.DSPRITES_VALUES.items(), (1, 3, 4, 5, 6, 7), strict=True)
    monkeypatch.setattr(layouts, "DSPRITES_VALUES", {name: known[-size:] for (name, known), size in values})
    monkeypatch.setattr(layouts, "load_spec", lambda name: splits.derive_spec(name, factors, 0.2, ["shape"]))


def sizes_of(name: str) -> np.ndarray:
    return np.array(spec_now(name).grid.sizes)


@pytest.mark.usefixtures("small")
def test_dsprites_npz_as_disentanglement_lib_reads_it(tmp_path: Path) -> None:
    store = store_of(tmp_path, "dsprites")
    npz, hdf5 = export(tmp_path, "dsprites", None, "official", tmp_path / "out")
    with npz.open("rb") as file:
        data = np.load(file, encoding="latin1", allow_pickle=True)
        images, sizes = np.array(data["imgs"]), np.array(data["metadata"][()]["latents_sizes"], dtype=np.int64)
        classes, values = data["latents_classes"], data["latents_values"]
    assert images.dtype == np.uint8
    assert images.max() == 1
    assert np.array_equal(images * 255, store.read(0, len(store)).squeeze(3))
    assert sizes.tolist() == [1, *sizes_of("dsprites")]
    bases = np.prod(sizes) / np.cumprod(sizes)
    assert np.array_equal(np.dot(classes, bases).astype(np.int64), np.arange(len(store)))
    assert classes.dtype == np.int64
    assert values.dtype == np.float64
    assert values[-1].tolist() == [1.0, 3.0, 1.0, 2 * np.pi, 1.0, 1.0]
    assert values[0].tolist() == [known[0] for known in layouts.DSPRITES_VALUES.values()]
    assert b"numpy._core" not in zipfile.ZipFile(npz).read("metadata.npy")  # which numpy 1 doesn't have
    with h5py.File(hdf5, "r") as file:  # as TFDS reads it
        assert np.array_equal(file["imgs"][()], images)
        assert np.array_equal(file["latents"]["classes"][()], classes)
        assert np.array_equal(file["latents"]["values"][()], values)
        assert file["imgs"].dtype == np.uint8
    for file_name in (npz, hdf5):
        again = convert(file_name, "dsprites", tmp_path / file_name.suffix[1:], tmp_path / "out/dsprites.toml")
        assert np.array_equal(again.read(0, len(store)), store.read(0, len(store)))


def test_shapes3d_h5(tmp_path: Path) -> None:
    store = store_of(tmp_path, "shapes3d")
    (path,) = export(tmp_path, "shapes3d", None, "official", tmp_path / "out")
    assert path.name == "3dshapes.h5"
    with h5py.File(path, "r") as file:
        assert np.array_equal(file["images"][()], store.read(0, len(store)))
        labels = file["labels"][()]
    assert labels.dtype == np.float64
    assert [len(np.unique(column)) for column in labels.T] == sizes_of("shapes3d").tolist()
    assert labels[0].tolist() == [0, 0, 0, 0.75, 0, -30]
    assert labels[-1] == pytest.approx([0.9, 0.9, 0.9, 1.25, 3, 30])
    again = convert(path, "shapes3d", tmp_path / "again")  # which checks the order of the labels
    assert np.array_equal(again.read(0, 1000), store.read(0, 1000))


@pytest.mark.parametrize("name, file, compress", [("mpi3d", "mpi3d_real.npz", False), ("mpi3d_toy", "mpi3d_toy.npz", True)])
def test_mpi3d_npz(tmp_path: Path, name: str, file: str, compress: bool) -> None:
    store = store_of(tmp_path, name, compress)
    (path,) = export(tmp_path, name, None, "official", tmp_path / "out")
    assert path.name == file
    data = np.load(path)
    assert list(data) == ["images"]
    assert np.array_equal(data["images"], store.read(0, len(store)))
    assert (zipfile.ZipFile(path).infolist()[0].compress_type == zipfile.ZIP_STORED) is not compress
    document = json.loads((tmp_path / f"out/{name}.croissant.json").read_bytes())
    (node,) = document["distribution"]
    assert node["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.usefixtures("small")
def test_an_official_file_is_a_function_of_the_store(tmp_path: Path) -> None:
    store_of(tmp_path, "dsprites")
    for number in (1, 2):
        export(tmp_path, "dsprites", None, "official", tmp_path / str(number))
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_what_has_no_official_layout_is_told(tmp_path: Path) -> None:
    convert(official.mpi3d_npz(tmp_path / "real.npz", official.pictures()), None, tmp_path, official.small_spec(tmp_path))
    convert(tmp_path / "real.npz", None, tmp_path, official.small_spec(tmp_path, "mpi3d"))
    for name, words in (
        ("toy", "toy has no official layout; dsprites"),
        ("mpi3d", "another grid than the official mpi3d \\(6 × 6"),
    ):
        with pytest.raises(InputError, match=words):
            export(tmp_path, name, None, "official", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_of_dsprites_of_another_size_are_not_compared_with_ours(tmp_path: Path) -> None:
    spec = splits.load_spec("dsprites")
    path = official.dsprites_npz(tmp_path / "small.npz", spec, np.ones((len(spec.grid), 2, 2), np.uint8))
    assert convert(path, "dsprites", tmp_path).images.shape == (len(spec.grid), 2, 2, 1)


@pytest.mark.parametrize(
    "arguments, words",
    [(["--format", "official", "--kind", "random"], "no sides: leave out --kind"), (["--format", "png"], "which kind of split")],
)
def test_wrong_use_is_one_line(tmp_path: Path, arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(main, ["data", "export", "dsprites", *arguments, "--data", str(tmp_path), "--out", str(tmp_path)])
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


# disent's copies


@pytest.mark.parametrize("key", ["imgs", "images"])
def test_copies_that_disent_keeps_are_converted(tmp_path: Path, key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    images = official.pictures(channels=1, binary=True) * np.uint8(255) if key == "imgs" else official.pictures()
    with h5py.File(tmp_path / "copy.h5", "w", libver="earliest") as file:
        file.create_dataset(key, data=images, chunks=(1, *images.shape[1:]), compression="gzip", compression_opts=4)
    store = convert(tmp_path / "copy.h5", None, tmp_path / "data", official.small_spec(tmp_path))
    assert np.array_equal(store.read(0, 60), images)
    assert "has no labels: its images are taken in the order of the grid" in caplog.text


def test_a_copy_of_dsprites_is_black_and_white(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "copy.h5", "w") as file:
        file["imgs"] = official.pictures(channels=1)
    with pytest.raises(BadFile, match="values besides 0 and 255"):
        convert(tmp_path / "copy.h5", None, tmp_path / "data", official.small_spec(tmp_path))


def test_the_values_are_as_many_as_the_grid_has() -> None:
    assert [len(values) for values in layouts.DSPRITES_VALUES.values()] == [1, *sizes_of("dsprites")]
    assert [len(values) for values in layouts.SHAPES3D_VALUES] == sizes_of("shapes3d").tolist()
