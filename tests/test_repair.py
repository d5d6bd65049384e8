"""Lost and damaged files of a store: what can be proven is restored, what can't is made again, and nothing else."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from harness.data import writer
from harness.data.description import Description
from harness.data.manifest import finished, read_finished
from harness.data.store import Store
from harness.data.verify import overview, verify
from harness.data.writer import Writer
from harness.formats import dsprites
from harness.formats.convert import convert
from helpers import official
from helpers.dying import Killed, killed_at
from helpers.files import contents
from helpers.toy import FORGED, ROWS, description, pictures, rows_of
from ood_data.commands import main
from splits.errors import DamagedError

IMAGES = 23


def make(root: Path, images: int = IMAGES, part: tuple[int, int] = (1, 1), **source: Any) -> list[int]:
    """Run the command that makes the store; which shards were made."""
    with Writer(root, description(images, **source), part) as one:
        missing = one.missing
        for shard in missing:
            one.publish(shard, pictures(shard, rows_of(images, shard)))
        one.finish(lambda s: f"# {len(s)} toys\n", lambda s: s.read(0, 1).tobytes())
    return missing


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def garbled(path: Path) -> None:
    path.write_bytes(b"\xff\x00 not json")


def replaced(old: bytes, new: bytes) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        assert old in path.read_bytes()
        path.write_bytes(path.read_bytes().replace(old, new))

    return harm


def linked(path: Path) -> None:
    path.rename(path.parent / "moved")
    path.symlink_to(path.parent / "moved")


SHARD, CARD, PREVIEW, MANIFEST = "toy.zarr/images/c.1.0.0.0", "toy.md", "toy.png", "toy.manifest.jsonl"
GROUP, ARRAY = "toy.zarr/zarr.json", "toy.zarr/images/zarr.json"
# What is done to which file, and the shards that have to be made again.
LOSSES: dict[str, tuple[str, Callable[[Path], object], list[int]]] = {
    "a shard deleted": (SHARD, Path.unlink, [1]),
    "a shard emptied": (SHARD, lambda path: os.truncate(path, 0), [1]),
    "a shard cut": (SHARD, lambda path: os.truncate(path, 7), [1]),
    "a shard that became a link": (SHARD, linked, [1]),
    "the card deleted": (CARD, Path.unlink, []),
    "the card flipped": (CARD, flip, []),
    "the preview deleted": (PREVIEW, Path.unlink, []),
    "the preview emptied": (PREVIEW, lambda path: os.truncate(path, 0), []),
    "the group's document deleted": (GROUP, Path.unlink, []),
    "the group's document garbled": (GROUP, garbled, []),
    "the group's document of another seed": (GROUP, replaced(b'"seed": 0', b'"seed": 1'), []),
    "the group's document of another spec": (GROUP, replaced(b'"size": 4', b'"size": 5'), []),
    "the array's document deleted": (ARRAY, Path.unlink, []),
    "the array's document garbled": (ARRAY, garbled, []),
    "the array's document of another length": (ARRAY, replaced(b"23", b"28"), []),
    "the manifest deleted": (MANIFEST, Path.unlink, [0, 1, 2, 3, 4]),
    "the manifest emptied": (MANIFEST, lambda path: os.truncate(path, 0), [0, 1, 2, 3, 4]),
    "a line of the manifest flipped": (MANIFEST, replaced(b'"first":5', b'"first":4'), [1]),
    "the manifest's last line flipped": (MANIFEST, replaced(b'"toy.md"', b'"toy.mf"'), []),
    "the manifest cut": (MANIFEST, lambda path: os.truncate(path, path.stat().st_size // 2), [3, 4]),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_same_command_restores_what_was_lost(tmp_path: Path, loss: str, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "store")
    file, harm, again = LOSSES[loss]
    harm(tmp_path / "store" / file)
    problems = verify(tmp_path / "store", "toy")
    assert file in {problem.path for problem in problems}
    with caplog.at_level(logging.INFO):
        assert make(tmp_path / "store") == again
    (tmp_path / "store/toy.zarr/images/moved").unlink(missing_ok=True)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert verify(tmp_path / "store", "toy") == []
    if loss not in ("the manifest deleted", "the manifest emptied"):  # without one it is an unfinished store, which is gone on with
        assert "restored" in caplog.text
    if loss != "the manifest deleted":
        assert Path(file).name in caplog.text
    caplog.clear()
    make(tmp_path / "store")
    assert caplog.text == ""


@pytest.mark.parametrize("loss", ["nothing", *LOSSES])
def test_a_store_of_before_is_as_good(tmp_path: Path, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its documents name no dimensions. It is read, restored to what it was, and extended to a store of today."""

    def before(images: int = IMAGES) -> Description:
        return replace(today(images), dimensions=None)

    today = description
    monkeypatch.setattr(sys.modules[__name__], "description", before)
    make(tmp_path / "whole")
    monkeypatch.undo()
    store = shutil.copytree(tmp_path / "whole", tmp_path / "store")
    assert b"dimension_names" not in (store / ARRAY).read_bytes()
    assert verify(store, "toy") == []
    assert Store(store, "toy").description == description(IMAGES)
    file, harm, again = LOSSES.get(loss, (CARD, lambda _: None, []))
    harm(store / file)
    assert make(store) == again
    (store / "toy.zarr/images/moved").unlink(missing_ok=True)
    manifest = {name: data for name, data in contents(store).items() if name not in (ARRAY, MANIFEST)}
    assert manifest.items() <= contents(tmp_path / "whole").items()
    assert verify(store, "toy") == []
    if "manifest" not in loss:
        assert contents(store) == contents(tmp_path / "whole")
    make(store, IMAGES + ROWS)
    make(tmp_path / "one", IMAGES + ROWS)
    assert contents(store) == contents(tmp_path / "one")


@pytest.mark.parametrize("what", FORGED)
def test_a_manifest_that_is_none_is_restored(tmp_path: Path, what: str) -> None:
    make(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "store")
    manifest = tmp_path / "store" / MANIFEST
    entries, hashes = read_finished(manifest)
    FORGED[what](entries, hashes)
    manifest.write_bytes(finished(entries, hashes))
    make(tmp_path / "store")
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_a_damaged_shard_is_not_restored_by_believing_it(tmp_path: Path) -> None:
    """With a damaged manifest, a shard whose line is whole is proven by its hash; any other is made again."""
    make(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "store")
    images = tmp_path / "store/toy.zarr/images"
    flip(images / "c.0.0.0.0")
    shutil.copy(images / "c.3.0.0.0", images / "c.2.0.0.0")
    replaced(b'"first":5', b'"first":4')(tmp_path / "store" / MANIFEST)
    assert make(tmp_path / "store") == [0, 1, 2]
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_several_losses_at_once(tmp_path: Path) -> None:
    make(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "store")
    for file in (GROUP, ARRAY, CARD, PREVIEW, SHARD):
        (tmp_path / "store" / file).unlink()
    assert not overview(tmp_path / "store")[0]["complete"]  # listed all the same: its manifest says that it was ours
    assert make(tmp_path / "store") == [1]
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_a_document_is_not_restored_from_other_parameters(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / GROUP).unlink()
    before = contents(tmp_path)
    for images, seed in ((IMAGES, 1), (IMAGES + ROWS, 0)):
        with pytest.raises(DamagedError, match="run the command that made it, which restores them"):
            make(tmp_path, images, seed=seed)
        assert contents(tmp_path) == before


def test_a_lost_document_and_a_lost_manifest_are_too_much(tmp_path: Path) -> None:
    make(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "store")
    (tmp_path / "store" / MANIFEST).unlink()
    (tmp_path / "store" / ARRAY).unlink()
    assert make(tmp_path / "store") == [0, 1, 2, 3, 4]  # the group's document still says what it is
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


@pytest.mark.parametrize("lose", [lambda path: path.unlink(), lambda path: path.write_bytes(b'{"path"')])
def test_what_nothing_proves_is_to_be_deleted(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    make(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "store")
    lose(tmp_path / "store" / MANIFEST)
    (tmp_path / "store" / GROUP).write_text("{}")
    with pytest.raises(ValueError, match="is not a dataset store"):
        make(tmp_path / "store")
    group = tmp_path / "store" / "toy.zarr"
    told = CliRunner().invoke(main, ["data", "verify", "toy", "--data", str(tmp_path / "store")])
    assert (told.exit_code, told.output.count("delete it"), told.output.count("repeat the command")) == (1, 1, 0)
    shutil.rmtree(group)
    make(tmp_path / "store")
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_another_spec_of_the_same_images_is_taken_over(tmp_path: Path) -> None:
    """As when the spec file of a converted dataset was edited: the images stay, the documents and the card follow."""

    def describe(size: int) -> Description:
        return Description("toy", (IMAGES, 4, 4, 3), ROWS, False, {"name": "toy", "factor": [{"size": size}]}, {"seed": 0})

    def make_with(size: int, limit: int = 99) -> list[int]:
        with Writer(tmp_path, describe(size)) as one:
            missing = one.missing
            for shard in missing:
                one.publish(shard, pictures(shard, rows_of(IMAGES, shard)))
            if limit:
                one.finish(lambda s: f"# {s.spec['factor'][0]['size']}\n", lambda _: b"")
        return missing

    assert make_with(4) == [0, 1, 2, 3, 4]
    assert make_with(6, limit=0) == []  # killed before it was finished: it is what it was
    assert Store(tmp_path, "toy").spec["factor"][0]["size"] == 4
    assert make_with(5) == []
    assert Store(tmp_path, "toy").spec["factor"][0]["size"] == 5
    assert (tmp_path / "toy.md").read_text() == "# 5\n"
    assert verify(tmp_path, "toy") == []


@pytest.mark.parametrize(
    "loss", ["a shard deleted", "the card deleted", "the group's document deleted", "a line of the manifest flipped"]
)
def test_a_killed_repair_is_continued(tmp_path: Path, loss: str) -> None:
    make(tmp_path / "whole")
    file, harm, _ = LOSSES[loss]
    for fatal in range(1, 10):
        root = tmp_path / str(fatal)
        shutil.copytree(tmp_path / "whole", root)
        harm(root / file)
        with killed_at(fatal) as died:
            make(root)
        if not died:
            break
        make(root)
        assert contents(root) == contents(tmp_path / "whole"), died
    assert fatal > 1


def test_a_full_disk_does_not_lose_what_a_damaged_manifest_proves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "store")
    LOSSES["a line of the manifest flipped"][1](tmp_path / "store" / MANIFEST)
    (tmp_path / "store" / ARRAY).unlink()

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(writer, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        make(tmp_path / "store")
    monkeypatch.undo()
    assert make(tmp_path / "store") == [1]
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_a_manifest_of_a_store_that_was_removed_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard that is written but has no line yet must not get that of another seed."""
    make(tmp_path / "store")
    shutil.rmtree(tmp_path / "store/toy.zarr")
    make(tmp_path / "one", seed=1)

    def killed(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(Writer, "_note", killed)
    with pytest.raises(Killed):
        make(tmp_path / "store", seed=1)
    monkeypatch.undo()
    assert make(tmp_path / "store", seed=1) == [0, 1, 2, 3, 4]
    assert contents(tmp_path / "store") == contents(tmp_path / "one")


# The commands


def test_convert_restores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.store.SHARD_BYTES", 7 * 8 * 8 * 3)
    file, spec = official.mpi3d_npz(tmp_path / "real.npz", official.pictures()), official.small_spec(tmp_path)
    convert(file, None, tmp_path / "data", spec)
    whole = contents(tmp_path / "data")
    published: list[int] = []
    publish = Writer.publish

    def publishing(self: Writer, shard: int, images: np.ndarray) -> None:
        published.append(shard)
        publish(self, shard, images)

    monkeypatch.setattr(Writer, "publish", publishing)
    for lost, again in (
        ("toy.md", []),
        ("toy.png", []),
        ("toy.zarr/zarr.json", []),
        (ARRAY, []),
        ("toy.zarr/images/c.4.0.0.0", [4]),
    ):
        (tmp_path / "data" / lost).unlink()
        published.clear()
        np.testing.assert_array_equal(convert(file, None, tmp_path / "data", spec).read(0, 60), official.pictures())
        assert (contents(tmp_path / "data"), published) == (whole, again)


def test_generate_dsprites_restores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dsprites, "all_bits", lambda: [np.packbits(np.ones(dsprites.WHITE_PIXELS, np.uint8))])
    dsprites.generate(tmp_path, progress=False, orientations=1)
    whole = contents(tmp_path)
    monkeypatch.setattr(Writer, "publish", lambda *_: pytest.fail("an image was made again"))
    for lost in ("dsprites1.md", "dsprites1.png", "dsprites1.zarr/zarr.json", "dsprites1.zarr/images/zarr.json"):
        (tmp_path / lost).unlink()
        dsprites.generate(tmp_path, progress=False, orientations=1)
        assert contents(tmp_path) == whole


def test_the_command_says_what_it_restored(tmp_path: Path, flow_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = CliRunner()
    arguments = ["generate", "celebglow", "--persons", "2", "--levels", "2", "--flow", str(flow_folder), "--out", str(tmp_path)]
    assert run.invoke(main, arguments).exit_code == 0
    assert "restored" not in caplog.text
    whole = contents(tmp_path)
    (tmp_path / "celebglow.md").unlink()
    (tmp_path / "celebglow.zarr/images/c.1.0.0.0").unlink()
    advised = run.invoke(main, ["data", "verify", "celebglow", "--data", str(tmp_path)])
    assert advised.exit_code == 1
    assert "repeat the command that made celebglow" in advised.stdout
    again = run.invoke(main, arguments)
    assert again.exit_code == 0
    assert "is complete" in again.stdout
    assert f"`ood-data data verify celebglow --data {tmp_path}` reads every byte of it" in again.stdout
    assert "restored images/c.1.0.0.0, celebglow.md" in caplog.text
    assert contents(tmp_path) == whole
