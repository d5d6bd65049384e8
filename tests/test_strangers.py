"""Files of strangers, converted: what they say is looked at before what they hold, and it is theirs alone."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

import harness
import splits
from harness.data.store import Description
from harness.data.writer import Writer
from harness.formats.convert import convert
from harness.formats.export import export
from harness.formats.readers import image_shape
from helpers import official
from helpers.hostile import npy_header, npz, peak_of, png, zeros
from helpers.official import pictures, small_spec
from splits.arrays import BadFile


def names_in(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file()]


def h5(folder: Path, fill: Callable[[h5py.File], None]) -> Path:
    with h5py.File(folder / "x.h5", "w") as file:
        fill(file)
    return folder / "x.h5"


def other_h5(folder: Path) -> str:
    with h5py.File(folder / "secret.h5", "w") as file:
        file["s"] = pictures()
    return str(folder / "secret.h5")


LABELS = splits.FactorGrid((splits.Factor("a", 3), splits.Factor("b", 4), splits.Factor("c", 5))).targets(np.arange(60))


def _linked(folder: Path, spec: splits.SplitSpec) -> Path:
    other = other_h5(folder)
    return h5(folder, lambda file: file.update({"images": h5py.ExternalLink(other, "s"), "labels": LABELS}))


def _linked_softly(folder: Path, spec: splits.SplitSpec) -> Path:
    other = other_h5(folder)
    return h5(
        folder,
        lambda file: file.update({"there": h5py.ExternalLink(other, "/"), "images": h5py.SoftLink("/there/s"), "labels": LABELS}),
    )


def _linked_to_itself(folder: Path, spec: splits.SplitSpec) -> Path:
    return h5(folder, lambda file: file.update({"images": h5py.SoftLink("/images"), "labels": LABELS}))


def _stored_elsewhere(folder: Path, spec: splits.SplitSpec) -> Path:
    (folder / "raw").write_bytes(bytes(60 * 8 * 8 * 3))

    def fill(file: h5py.File) -> None:
        file.create_dataset("images", (60, 8, 8, 3), "u1", external=[(str(folder / "raw"), 0, 11520)])
        file["labels"] = LABELS

    return h5(folder, fill)


def _virtual(folder: Path, spec: splits.SplitSpec) -> Path:
    layout = h5py.VirtualLayout((60, 8, 8, 3), "u1")
    layout[:] = h5py.VirtualSource(other_h5(folder), "s", (60, 8, 8, 3))

    def fill(file: h5py.File) -> None:
        file.create_virtual_dataset("images", layout)
        file["labels"] = LABELS

    return h5(folder, fill)


def _h5_of(**arrays: Any) -> Callable[[Path, splits.SplitSpec], Path]:
    """Datasets created with these options, beside right ones."""

    def make(folder: Path, spec: splits.SplitSpec) -> Path:
        def fill(file: h5py.File) -> None:
            for name, options in ({"images": {"data": pictures()}, "labels": {"data": LABELS}} | arrays).items():
                file.create_dataset(name, **options)

        return h5(folder, fill)

    return make


def _h5_bomb(folder: Path, spec: splits.SplitSpec) -> Path:
    """A chunk of 11,520 bytes that unpacks to 20 MB."""

    def fill(file: h5py.File) -> None:
        images = file.create_dataset("images", (60, 8, 8, 3), "u1", chunks=(60, 8, 8, 3), compression="gzip")
        packer = zlib.compressobj(9)
        images.id.write_direct_chunk((0, 0, 0, 0), b"".join([*map(packer.compress, zeros(2 * 10**7)), packer.flush()]))
        file["labels"] = LABELS

    return h5(folder, fill)


def picture_folder(folder: Path, spec: splits.SplitSpec, **first: Any) -> Path:
    """A right folder of pictures, but for what the table says of the first, or what that is."""
    (folder / "png").mkdir()
    rows = [f"{cell}.png,{','.join(map(str, spec.grid.factors(cell)))}" for cell in range(60)]
    if "name" in first:
        rows[0] = first["name"] + ",0,0,0"
    (folder / "png/labels.csv").write_text("\n".join(["file,color,size,x", *rows, *first.get("more", ())]))
    for cell in range(60):
        Image.fromarray(pictures()[cell]).save(folder / f"png/{cell}.png")
    Image.fromarray(pictures()[0]).save(folder / "outside.png")
    if "content" in first:
        (folder / "png/0.png").write_bytes(first["content"])
    if first.get("fifo"):
        (folder / "png/0.png").unlink()
        os.mkfifo(folder / "png/0.png")
    return folder / "png"


def _pictures(**first: Any) -> Callable[[Path, splits.SplitSpec], Path]:
    return lambda folder, spec: picture_folder(folder, spec, **first)


def _labels_of_4_gib(folder: Path, spec: splits.SplitSpec) -> Path:
    images = [npy_header((60, 8, 8)), bytes(60 * 64)]
    return npz(folder / "x.npz", {"imgs": images, "latents_classes": [npy_header((2**20, 4), "<i8"), *zeros(2**25)]})


STRANGE: dict[str, tuple[Callable[[Path, splits.SplitSpec], Path], str]] = {
    "external link": (_linked, "images is a link into 'secret.h5'; arrays of the file itself are expected"),
    "soft link out of the file": (_linked_softly, "images is a link into 'secret.h5'"),
    "soft link to itself": (_linked_to_itself, "images is a link that ends nowhere"),
    "external storage": (_stored_elsewhere, "images is stored in 'raw'"),
    "virtual dataset": (_virtual, "images is a virtual dataset"),
    "labels of nothing": (_h5_of(labels={"shape": (10**11, 3), "dtype": "f8", "chunks": (1000, 3)}), "more than the file can hold"),
    "images of nothing": (
        _h5_of(images={"shape": (60, 8, 8, 3), "dtype": "u1", "chunks": (1, 8, 8, 3)}),
        "more than the file can hold",
    ),
    "labels of text": (_h5_of(labels={"data": [["x"] * 3] * 60}), "not numbers"),
    "labels of references": (
        _h5_of(labels={"shape": (60, 3), "dtype": h5py.ref_dtype, "chunks": (1, 3)}),
        "can hold|not numbers",
    ),
    "empty labels": (_h5_of(labels={"data": h5py.Empty("f8")}), "labels holds nothing"),
    "huge chunks": (
        _h5_of(
            images={"shape": (60, 4096, 4096), "dtype": "u1", "chunks": (60, 4096, 4096), "compression": "gzip", "fillvalue": 1}
        ),
        "more than the file can hold|in chunks of 1,006,632,960 bytes",
    ),
    "a chunk of more": (_h5_bomb, "a chunk of images holds more than the 11,520 bytes"),
    "labels of another size": (_labels_of_4_gib, r"latents classes \(1048576, 4\) of int64, not numbers \(60, 4\)"),
    "many arrays": (lambda folder, spec: npz(folder / "x.npz", {f"a{n}": [b""] for n in range(2000)}), "and 1,950 more"),
    "a path outside": (_pictures(name="../outside.png"), "row 1 names '../outside.png'; a file in .* is expected"),
    "a path around": (_pictures(name="../png/0.png"), "row 1 names '../png/0.png'"),
    "an absolute path": (_pictures(name="/etc/passwd"), "row 1 names '/etc/passwd'"),
    "a device": (_pictures(name="/dev/zero"), "row 1 names '/dev/zero'"),
    "a NUL": (_pictures(name="a\0b"), r"row 1 names 'a\\x00b'"),
    "a folder": (_pictures(name="."), "is not a regular file"),
    "a fifo": (_pictures(fifo=True), "0.png is not a regular file"),
    "a picture of 13,000": (_pictures(content=png(13_000, 13_000)), "is 13000 × 13000; pictures of at most 16,777,216 pixels"),
    "a picture of 30,000": (_pictures(content=png(30_000, 30_000)), "is not a readable image: Image size"),
    "postscript": (
        _pictures(content=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"),
        "cannot identify image file",
    ),
    "many rows": (_pictures(more=["0.png,0,0,0"] * 61), "more than 120 rows, and the grid has 60 cells"),
    "a long line": (_pictures(more=["x" * (2**24 + 1)]), "a line of more than 16,777,216 characters"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", STRANGE)
def test_strangers_files_are_refused_by_name_and_take_no_memory(tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.formats.hdf5.CHUNK_CACHE", 2**20)
    make, words = STRANGE[case]
    spec_file = small_spec(tmp_path)
    path = make(tmp_path, splits.load_spec(spec_file))
    with pytest.raises(BadFile, match=words) as caught:
        convert(path, None, tmp_path / "data", spec_file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500
    assert not (tmp_path / "data").exists() or not names_in(tmp_path / "data")
    assert peak_of(convert, path, None, tmp_path / "data", spec_file) < 5 * 10**7


def test_images_have_a_largest_size() -> None:
    grid = splits.FactorGrid((splits.Factor("a", 60),))
    assert image_shape(Path("x"), (60, 4096, 4096), np.dtype(np.uint8), grid) == (60, 4096, 4096, 1)
    with pytest.raises(BadFile, match="at most 4096 × 4096 pixels"):
        image_shape(Path("x"), (60, 4097, 4097), np.dtype(np.uint8), grid)


def test_links_within_a_file_are_of_the_file(tmp_path: Path) -> None:
    spec_file = small_spec(tmp_path)

    def fill(file: h5py.File) -> None:
        file["deep/er"], file["labels"] = pictures(), LABELS
        file["near"] = h5py.SoftLink("deep")
        file["images"] = h5py.SoftLink("/near/er")

    store = convert(h5(tmp_path, fill), None, tmp_path / "data", spec_file)
    np.testing.assert_array_equal(store.read(0, 60), pictures())


def test_images_in_chunks_that_could_be_more_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks whose size alone makes them suspects are unpacked to see."""
    monkeypatch.setattr("harness.formats.hdf5.CHUNK_CACHE", 2**20)
    spec_file = small_spec(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    make = _h5_of(images={"data": images, "chunks": images.shape, "compression": "gzip", "shuffle": True, "fletcher32": True})
    store = convert(make(tmp_path, splits.load_spec(spec_file)), None, tmp_path / "data", spec_file)
    np.testing.assert_array_equal(store.read(0, 60), images)


def test_a_store_whose_grid_is_not_that_of_its_images(tmp_path: Path) -> None:
    """27 million labels for 162 images: a spec of another size, in a store that is whole by its own manifest."""
    spec = splits.load_spec(small_spec(tmp_path))
    large = spec.to_dict() | {"factor": [factor | {"size": 300} for factor in spec.to_dict()["factor"]]}
    with Writer(tmp_path, Description("toy", (60, 8, 8, 3), 60, False, large)) as writer:
        writer.publish(0, pictures())
        writer.finish(lambda _: "# toy\n", lambda _: b"")
    for use in (
        lambda: harness.open("toy", tmp_path),
        lambda: export(tmp_path, "toy", "extrapolation", "benchmark", tmp_path / "x"),
    ):
        with pytest.raises(ValueError, match="has 60 images, and its grid 27,000,000 cells"):
            use()
    assert not (tmp_path / "x").exists() or not names_in(tmp_path / "x")


def test_a_card_shows_text_as_text(tmp_path: Path) -> None:
    spec_file = small_spec(tmp_path)
    values = 'values = ["<script>alert(1)</script>", "a|b", "![x](http://127.0.0.1/$x$)"]\n'
    spec_file.write_text(spec_file.read_text().replace("size = 3\n", "size = 3\n" + values, 1))
    path = official.mpi3d_npz(tmp_path / "``<b>`.npz", pictures())
    text = convert(path, None, tmp_path / "data", spec_file).paths.card.read_text()
    assert "<script" not in text
    assert "![x]" not in text
    assert "&#60;script&#62;alert(1)&#60;/script&#62;, a&#124;b, !&#91;x&#93;(http://127.0.0.1/&#36;x&#36;)" in text
    assert "- file: ``` ``<b>`.npz ```" in text
    assert [line.count("|") for line in text.splitlines() if line.startswith("| color")] == [5]


def test_a_sheet_of_large_pictures_is_no_larger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.formats.card.MOST_SHOWN", 16)
    small_spec(tmp_path)
    images = np.zeros((60, 20, 20, 1), np.uint8)
    sheets = []
    for side in (16, 20):
        np.save(tmp_path / "x.npy", images[:, :side, :side])
        store = convert(tmp_path / "x.npy", None, tmp_path / f"data{side}", tmp_path / "toy.toml")
        with Image.open(store.paths.preview) as sheet:
            sheets.append(sheet.size)
    assert sheets[0] == sheets[1]
