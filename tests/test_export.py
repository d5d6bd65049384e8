"""Exports: killed or out of room, the same command finishes them, to the bytes of an unbroken run and nothing beside them."""

from __future__ import annotations

import csv
import fcntl
import gc
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import splits
from harness.data.dataset import spec_of
from harness.data.store import Description, Store
from harness.data.writer import Writer
from harness.formats import export as module
from harness.formats import webdataset
from harness.formats.card import card, preview
from harness.formats.convert import convert
from harness.formats.export import export
from helpers import official
from helpers.commands import ROOT
from helpers.files import contents, no_file_above
from splits.errors import InputError

RECORD = ".toy.export.json"
LAYOUTS = ["benchmark", "parquet", "png", "webdataset"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 60 images in shards of 7."""
    return official.small_store(tmp_path_factory.mktemp("data"))


def whole(root: Path, layout: str, out: Path, kind: str = "composition") -> dict[str, bytes]:
    export(root, "toy", kind, layout, out)
    return contents(out)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_again_it_is_the_same(root: Path, tmp_path: Path, layout: str) -> None:
    first = whole(root, layout, tmp_path)
    assert whole(root, layout, tmp_path) == first


@pytest.mark.parametrize("layout", LAYOUTS)
def test_interrupted_anywhere_it_is_finished_by_the_same_command(
    root: Path, tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(root, layout, tmp_path / "whole")
    read = Store.read
    for fatal in range(9):

        def dying(self: object, start: int, stop: int, fatal: int = fatal) -> np.ndarray:
            if start == 7 * fatal:
                raise KeyboardInterrupt
            return read(self, start, stop)  # type: ignore[arg-type]

        monkeypatch.setattr(Store, "read", dying)
        out = tmp_path / str(fatal)
        with pytest.raises(KeyboardInterrupt):
            export(root, "toy", "composition", layout, out)
        monkeypatch.undo()
        assert not list(out.rglob("*.partial"))
        assert [path.name for path in out.glob("*") if path.is_file()] == [RECORD]  # nothing to load
        assert whole(root, layout, out) == expected


@pytest.mark.parametrize("layout, room", [("benchmark", 2000), ("png", 100), ("webdataset", 20_000)])
def test_without_room_it_is_finished_by_the_same_command(root: Path, tmp_path: Path, layout: str, room: int) -> None:
    expected = whole(root, layout, tmp_path / "whole")
    with no_file_above(room), pytest.raises(OSError, match="File too large"):
        export(root, "toy", "composition", layout, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").rglob(".*")} <= {RECORD}
    assert whole(root, layout, tmp_path / "out") == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_it_is_finished_by_the_same_command(root: Path, tmp_path: Path, layout: str) -> None:
    """SIGKILL in the middle, for real."""
    expected = whole(root, layout, tmp_path / "whole")
    code = (
        "import os, signal, sys; from harness.formats import export as e; read = e.Store.read\n"
        "e.Store.read = lambda s, a, b: os.kill(os.getpid(), signal.SIGKILL) if a == 28 else read(s, a, b)\n"
        "e.export(sys.argv[1], 'toy', 'composition', sys.argv[2], sys.argv[3])"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-c", code, str(root), layout, str(out)]
    assert subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode == -signal.SIGKILL
    assert list(out.rglob(".*.partial"))
    assert whole(root, layout, out) == expected


def left_overs(out: Path) -> list[Path]:
    names = [".toy_random_train_images.npz.partial", ".celeb_glow_extrapolation_test_labels.npz.partial", ".labels.csv.partial"]
    return [out / name for name in (*names, ".picture.partial")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_left_overs_of_the_dead_are_swept_and_nothing_else(root: Path, tmp_path: Path, layout: str) -> None:
    expected = whole(root, layout, tmp_path / "whole")
    out = tmp_path / "out"
    out.mkdir()
    foreign = [out / ".notes.partial", out / "movie.mp4.partial", out / ".toy_random_train_images.npz.bak"]
    for path in (*left_overs(out), *foreign):
        path.write_bytes(b"x")
    found = whole(root, layout, out)
    assert found == expected | {path.name: b"x" for path in foreign}


def test_what_the_living_hold_is_not_swept(root: Path, tmp_path: Path) -> None:
    held = left_overs(tmp_path)
    for path in held:
        path.write_bytes(b"x")
    with held[1].open("rb") as another:
        fcntl.flock(another, fcntl.LOCK_EX)
        with held[0].open("rb") as images, held[2].open("rb") as table:
            for file in (images, table):  # the picture is that of whoever holds the table
                fcntl.flock(file, fcntl.LOCK_EX)
            export(root, "toy", "composition", "benchmark", tmp_path)
            assert all(path.read_bytes() == b"x" for path in held)
            with pytest.raises(BlockingIOError, match=r"another process is writing .*labels\.csv"):
                export(root, "toy", "composition", "png", tmp_path)
        export(root, "toy", "composition", "png", tmp_path)
    assert [path.exists() for path in held] == [False, True, False, False]


def test_two_kinds_at_once_into_one_folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(root, "benchmark", tmp_path / "a") | whole(root, "benchmark", tmp_path / "b", "extrapolation")
    read, out = Store.read, tmp_path / "out"

    def meanwhile(self: object, start: int, stop: int) -> np.ndarray:
        if start == 21:
            monkeypatch.setattr(Store, "read", read)
            export(root, "toy", "extrapolation", "benchmark", out)
            with pytest.raises(BlockingIOError, match="another process is writing"):
                export(root, "toy", "composition", "benchmark", out)
        return read(self, start, stop)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "read", meanwhile)
    export(root, "toy", "composition", "benchmark", out)
    document = "toy.croissant.json"
    assert contents(out) | {document: b"", RECORD: b""} == expected | {document: b"", RECORD: b""}
    listed = {node["@id"] for node in json.loads((out / document).read_bytes())["distribution"]}
    assert listed == {name for name in expected if name.endswith(".npz")}


# Pictures


def test_pictures_that_are_there_are_not_made_again(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = whole(root, "png", tmp_path)
    lost = sorted((tmp_path / "train").iterdir())[::5]
    (tmp_path / "labels.csv").unlink()
    for path in lost:
        path.unlink()
    save = module._save
    saved: list[Path] = []

    def saving(pixels: np.ndarray, path: Path, partial: Path) -> None:
        saved.append(path)
        save(pixels, path, partial)

    monkeypatch.setattr(module, "_save", saving)
    assert whole(root, "png", tmp_path) == expected
    assert saved == lost


HARMS: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: os.truncate(path, 0),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 30),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_broken_picture_is_made_again(root: Path, tmp_path: Path, harm: str) -> None:
    """As a power failure leaves them."""
    expected = whole(root, "png", tmp_path)
    HARMS[harm](sorted((tmp_path / "test").iterdir())[3])
    assert whole(root, "png", tmp_path) == expected


def test_the_table_is_there_only_with_all_pictures(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a finished export lost one, and making it again is interrupted."""
    export(root, "toy", "composition", "png", tmp_path)
    first, *_, last = sorted((tmp_path / "train").iterdir())
    first.unlink()
    last.unlink()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", str(first))

    monkeypatch.setattr(module, "_save", full)
    with pytest.raises(OSError, match="No space left"):
        export(root, "toy", "composition", "png", tmp_path)
    assert not (tmp_path / "labels.csv").exists()


def test_pictures_of_something_else_are_left_alone(root: Path, tmp_path: Path) -> None:
    """Of another store with the same grid and split, of a folder of one's own: refused before anything is changed."""
    for name in ("train/00.png", "train/07.png"):
        (tmp_path / "train").mkdir(exist_ok=True)
        (tmp_path / "test").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    for extra in (None, "train/holiday.jpg", "test/00.png", "train/999.png"):
        if extra:
            (tmp_path / extra).write_bytes(b"mine")
        before = contents(tmp_path)
        with pytest.raises(ValueError, match="holds pictures already: choose another `out`"):
            export(root, "toy", "composition", "png", tmp_path)
        assert contents(tmp_path) == before
        if extra:
            (tmp_path / extra).unlink()


@pytest.mark.parametrize(
    "layout, name", [("png", "labels.csv"), ("parquet", "README.md"), ("benchmark", "toy.toml"), ("webdataset", "toy.md")]
)
def test_files_of_somebody_else_are_left_alone(root: Path, tmp_path: Path, layout: str, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(
        ValueError, match=rf"{name} is there already, and no export of this toy has written it: choose another `out`"
    ):
        export(root, "toy", "composition", layout, tmp_path)
    assert contents(tmp_path) == {name: b"mine"}


@pytest.mark.parametrize("layout, name", [("png", "labels.csv"), ("parquet", "README.md")])
def test_files_of_somebody_else_are_left_alone_beside_an_export(root: Path, tmp_path: Path, layout: str, name: str) -> None:
    export(root, "toy", "composition", "benchmark", tmp_path)
    (tmp_path / name).write_bytes(b"mine")
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=rf"{name} is there already, and no export of this toy has written it"):
        export(root, "toy", "composition", layout, tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("first, second", [("png", "parquet"), ("png", "webdataset"), ("parquet", "png"), ("webdataset", "png")])
def test_pictures_and_parquet_or_tars_do_not_mix(root: Path, tmp_path: Path, first: str, second: str) -> None:
    before = whole(root, first, tmp_path)
    with pytest.raises(ValueError, match=r"has .* of an export, and .* beside them would mix: choose another `out`"):
        export(root, "toy", "random", second, tmp_path)
    assert contents(tmp_path) == before
    for folder in ("train", "test", "composition"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    export(root, "toy", "random", second, tmp_path)  # what was deleted is not in the way


def test_a_folder_is_for_exports_of_the_same_images(root: Path, tmp_path: Path) -> None:
    export(root, "toy", "composition", "benchmark", tmp_path / "out")
    before = contents(tmp_path / "out")
    record = tmp_path / "out" / RECORD
    record.write_bytes(record.read_bytes().replace(b'"images": "', b'"images": "0'))  # as of a store of another source
    with pytest.raises(ValueError, match="has exports of another toy: choose another `out`"):
        export(root, "toy", "extrapolation", "benchmark", tmp_path / "out")
    assert contents(tmp_path / "out").keys() == before.keys()


def test_a_damaged_record_claims_nothing(root: Path, tmp_path: Path) -> None:
    export(root, "toy", "composition", "benchmark", tmp_path)
    record = tmp_path / RECORD
    for files in ("[[], 1]", "null"):
        record.write_text(f'{{"images": {json.loads(record.read_bytes())["images"]!r}, "files": {files}}}'.replace("'", '"'))
        with pytest.raises(ValueError, match="is there already, and no export of this toy has written it"):
            export(root, "toy", "composition", "benchmark", tmp_path)


def test_an_export_that_is_refused_leaves_the_claim_of_another(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Store.read

    def meanwhile(self: object, start: int, stop: int) -> np.ndarray:
        monkeypatch.setattr(Store, "read", read)
        export(root, "toy", "extrapolation", "benchmark", tmp_path)
        raise InputError("refused")

    monkeypatch.setattr(Store, "read", meanwhile)
    with pytest.raises(InputError, match="refused"):
        export(root, "toy", "composition", "benchmark", tmp_path)
    export(root, "toy", "extrapolation", "benchmark", tmp_path)  # it knows its files


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_killed_at_random_it_ends_the_same(root: Path, tmp_path: Path, layout: str) -> None:
    expected = whole(root, layout, tmp_path / "whole")
    command = [sys.executable, "-m", "cli", "data", "export", "toy", "--kind", "composition", "--format", layout]
    command += ["--data", str(root), "--out", str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    start = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    seconds = time.monotonic() - start
    rng = np.random.default_rng(0)
    for _ in range(10):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.6, 1) * seconds)
        process.kill()
        process.wait()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        assert contents(tmp_path / "out") == expected


@pytest.fixture
def few_people(tmp_path: Path) -> Path:
    """A store called celebglow, of 4 people at 2 × 2 × 2 levels."""
    levels = [splits.Factor(name, 2, "ordinal", (-1.0, 1.0)) for name in ("smile", "blond", "age")]
    spec = splits.derive_spec("celebglow", [splits.Factor("person", 4, "categorical"), *levels], 0.3, ["person"], 0.2)
    images = np.random.default_rng(0).integers(0, 256, (32, 64, 64, 3), dtype=np.uint8)
    description = Description("celebglow", images.shape, 8, False, spec.to_dict(), {"generator": "celebglow"})
    with Writer(tmp_path / "data", description) as writer:
        for shard in writer.missing:
            writer.publish(shard, images[shard * 8 : shard * 8 + 8])
        writer.finish(card, preview)
    return tmp_path / "data"


def test_an_export_of_few_people_says_its_grid_and_comes_back(
    few_people: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = tmp_path / "out"
    files = export(few_people, "celebglow", "extrapolation", "benchmark", out)
    (message,) = caplog.messages
    assert message.startswith("code that was written for celebglow takes these files for its whole grid, and scores them wrong")
    assert message.endswith(f"the grid is in {out / 'celebglow.toml'}")
    spec = splits.load_spec(out / "celebglow.toml")
    assert spec == splits.load_spec(few_people / "celebglow.zarr") == spec_of(Store(few_people, "celebglow"))
    again = convert(files[0], None, tmp_path / "again", out / "celebglow.toml")
    assert np.array_equal(again.read(0, 32), Store(few_people, "celebglow").read(0, 32))
    text = again.paths.card.read_text()
    assert "zenodo" not in text.casefold()
    assert "License" not in text


def test_a_spec_that_is_written_is_read(tmp_path: Path) -> None:
    for name in splits.DATASETS:
        (tmp_path / "spec.toml").write_text(splits.load_spec(name).to_toml())
        assert splits.load_spec(tmp_path / "spec.toml").to_dict() == splits.load_spec(name).to_dict()
    odd = splits.derive_spec("odd", [splits.Factor("a b", 4, values=('q"', "\\", "é", "-")), splits.Factor("y", 5)], 0.3)
    (tmp_path / "spec.toml").write_text(odd.to_toml())
    assert splits.load_spec(tmp_path / "spec.toml").to_dict() == odd.to_dict()


def test_pictures_keep_their_factors_as_imagefolder_reads_them(root: Path, tmp_path: Path) -> None:
    """Hugging Face's imagefolder takes file_name, and the other columns, from metadata.csv beside the pictures."""
    export(root, "toy", "composition", "png", tmp_path)
    split = spec_of(Store(root, "toy")).split("composition")
    for side, indices in (("train", split.train), ("test", split.test)):
        header, *lines = csv.reader((tmp_path / side / "metadata.csv").read_text().splitlines())
        assert header == ["file_name", *split.grid.names]
        assert [int(Path(line[0]).stem) for line in lines] == indices.tolist()
        assert np.array_equal(np.array([line[1:] for line in lines], dtype=int), split.grid.factors(indices))
        assert {line[0] for line in lines} == {path.name for path in (tmp_path / side).glob("*.png")}


def test_parquet_has_the_pictures_and_their_factors(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("harness.formats.parquet.FILE_ROWS", 9)
    monkeypatch.setattr("harness.formats.parquet.GROUP_ROWS", 4)
    store, kinds = Store(root, "toy"), ("extrapolation", "random")
    for kind in kinds:
        split = spec_of(store).split(kind)
        files = export(root, "toy", kind, "parquet", tmp_path)
        assert [path.parent.name for path in files] == [kind] * len(files)
        for side, indices in (("train", split.train), ("test", split.test)):
            tables = [pq.read_table(path) for path in files if path.name.startswith(side)]
            assert [table.num_rows for table in tables] == [min(9, len(indices) - 9 * n) for n in range(-(-len(indices) // 9))]
            rows = [row for table in tables for row in table.to_pylist()]
            assert [row["image"]["path"] for row in rows] == [f"{index}.png" for index in indices]
            pictures = [np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows]
            assert np.array_equal(np.stack(pictures), np.concatenate([store.read(i, i + 1) for i in indices.tolist()]).squeeze())
            assert [[row[name] for name in split.grid.names] for row in rows] == split.grid.factors(indices).tolist()
    features = json.loads(tables[0].schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    for factor in split.grid:
        assert features[factor.name]["_type"] == ("ClassLabel" if factor.kind == "categorical" else "Value")
    page = (tmp_path / "README.md").read_text()
    assert re.findall("config_name: (.*)", page) == ["random", "extrapolation"]
    assert page.startswith("---\nlicense: unknown\n")
    assert splits.load_spec(tmp_path / "toy.toml") == spec_of(store)


def tars(files: list[Path], side: str) -> list[Path]:
    return [path for path in files if path.name.startswith(side)]


def test_tars_have_every_image_once_in_parts_of_bounded_size(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.formats.webdataset.SHARD_IMAGES", 9)
    split = spec_of(Store(root, "toy")).split("composition")
    files = export(root, "toy", "composition", "webdataset", tmp_path)
    for side, indices in (("train", split.train), ("test", split.test)):
        keys, shards = [], tars(files, side)
        assert [path.name for path in shards] == [f"{side}-{number:05d}.tar" for number in range(-(-len(indices) // 9))]
        for path in shards:
            with tarfile.open(path) as archive:
                members = archive.getmembers()
            assert {(member.mtime, member.uid, member.uname, member.mode) for member in members} == {(0, 0, "", 0o644)}
            names = [member.name.split(".") for member in members]
            assert [suffix for _, suffix in names] == ["png", "json"] * (len(names) // 2)
            assert len(indices) // len(shards) <= len(names) // 2 <= 9
            keys += [int(key) for key, _ in names[::2]]
            assert [key for key, _ in names[::2]] == [key for key, _ in names[1::2]]
            part = np.array([int(key) for key, _ in names[::2]])
            assert np.ptp(part) > len(indices) / 2  # of the whole side, and no piece of the grid
        assert sorted(keys) == indices.tolist()
    nodes = json.loads((tmp_path / "toy.croissant.json").read_bytes())["distribution"]
    assert [(node["@id"], node["includes"]) for node in nodes] == [("composition-webdataset", ["composition/*.tar"])]


def test_large_images_and_very_many_make_more_and_larger_tars(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(root, "toy")
    split = spec_of(store).split("random")
    monkeypatch.setattr("harness.formats.webdataset.SHARD_BYTES", 5 * 8 * 8 * 3 + 100)
    assert len(webdataset.files_of(store, split)) == sum(-(-count // 5) for count in split.counts)
    monkeypatch.setattr("harness.formats.webdataset.MOST_SHARDS", 3)
    assert len(webdataset.files_of(store, split)) == 6


@pytest.mark.parametrize("layout, what", [("parquet", "parquet"), ("webdataset", "tar")])
def test_parquet_and_tars_are_told_as_what_cannot_be_converted(root: Path, tmp_path: Path, layout: str, what: str) -> None:
    file = export(root, "toy", "random", layout, tmp_path / "out")[0]
    for path, told in (
        (tmp_path / "out", f"holds {what} files"),
        (file.parent, f"holds {what} files"),
        (file, f"is a {what} file"),
    ):
        with pytest.raises(InputError, match=f"{told}, which can't be converted; what can be: .*a folder of pictures with a .csv"):
            convert(path, None, tmp_path / "data", tmp_path / "out/toy.toml")
    zeros = tmp_path / "zeros.npz"
    zeros.write_bytes(bytes(4096))
    with pytest.raises(InputError, match="a download that failed"):
        convert(zeros, None, tmp_path / "data", tmp_path / "out/toy.toml")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves tars to the garbage collector
@pytest.mark.parametrize("kind", ["composition", "random"])
def test_the_library_webdataset_reads_what_the_store_has(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    wds = pytest.importorskip("webdataset")
    monkeypatch.setattr("harness.formats.webdataset.SHARD_IMAGES", 10)
    store = Store(root, "toy")
    split = spec_of(store).split(kind)
    files = export(root, "toy", kind, "webdataset", tmp_path)
    for side, indices in (("train", split.train), ("test", split.test)):
        urls = f"{tmp_path}/{kind}/{side}-{{00000..{len(tars(files, side)) - 1:05d}}}.tar"
        samples = list(wds.WebDataset(urls, shardshuffle=False).decode("rgb8").to_tuple("png", "json", "__key__"))
        assert sorted(sample["index"] for _, sample, _ in samples) == indices.tolist()
        for pixels, sample, key in samples:
            index = sample.pop("index")
            assert int(key) == index
            assert np.array_equal(pixels, store.read(index, index + 1)[0])
            assert list(sample) == list(split.grid.names)
            assert list(sample.values()) == split.grid.factors(index).tolist()
    del samples
    gc.collect()
