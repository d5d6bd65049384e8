"""The store: what is written survives, what is damaged is found, what is not ours is left alone."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import writer
from harness.data.store import Description, Problem, Store, overview, verify
from harness.data.writer import Writer, remove
from harness.io import atomic as files
from splits.errors import DamagedError

ROWS, SIDE = 5, 4
SPEC = {"name": "toy", "factor": [{"name": "a", "size": 4, "kind": "ordinal"}]}


def description(images: int = 20, compress: bool = False, **source: object) -> Description:
    return Description("toy", (images, SIDE, SIDE, 3), ROWS, compress, SPEC, {"seed": 0} | source)


def pictures(shard: int, rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(shard).integers(0, 256, (rows, SIDE, SIDE, 3), dtype=np.uint8)


def rows_of(images: int, shard: int) -> int:
    return min(ROWS, images - shard * ROWS)


def write(root: Path, images: int = 20, part: tuple[int, int] = (1, 1), compress: bool = False, limit: int = 10**6) -> bool:
    with Writer(root, description(images, compress), part) as one:
        for shard in one.missing[:limit]:
            one.publish(shard, pictures(shard, rows_of(images, shard)))
        return one.finish(lambda _: "# toy\n", lambda s: s.read(0, 1).tobytes())


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@settings(max_examples=25, deadline=None)
@given(images=st.integers(1, 23), compress=st.booleans())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, images: int, compress: bool) -> None:
    root = tmp_path_factory.mktemp("store")
    assert write(root, images, compress=compress)
    opened = Store(root, "toy")
    expected = np.concatenate([pictures(shard, rows_of(images, shard)) for shard in range(-(-images // ROWS))])
    assert len(opened) == images
    np.testing.assert_array_equal(opened.read(0, images), expected)
    np.testing.assert_array_equal(zarr.open_array(root / "toy.zarr/images", mode="r"), expected)  # as other programs read it
    assert opened.spec == SPEC
    assert verify(root, "toy") == []


def test_raw_shards_are_the_images_bytes(tmp_path: Path) -> None:
    write(tmp_path)
    shard = (tmp_path / "toy.zarr/images/c.2.0.0.0").read_bytes()
    assert shard.startswith(pictures(2).tobytes())  # so that they can be memory-mapped
    assert len(shard) == ROWS * SIDE * SIDE * 3 + 4 + 16 + 4  # crc32c, an index of one entry, its crc32c


def test_black_images_are_stored(tmp_path: Path) -> None:
    with Writer(tmp_path, description(5)) as one:
        one.publish(0, np.zeros((5, SIDE, SIDE, 3), np.uint8))
        assert one.finish(lambda _: "", lambda _: b"")
    assert verify(tmp_path, "toy") == []


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_parts_in_any_order_give_the_same_bytes(tmp_path: Path, order: tuple[int, ...]) -> None:
    write(tmp_path / "one", 33)
    finished = [write(tmp_path / "parts", 33, (part, 3)) for part in order]
    assert finished == [False, False, True]
    assert contents(tmp_path / "parts") == contents(tmp_path / "one")


@pytest.mark.parametrize("first, second", [(5, 20), (10, 23), (13, 33), (20, 20)])
def test_extending_gives_the_bytes_of_all_at_once(tmp_path: Path, first: int, second: int) -> None:
    write(tmp_path / "grown", first)
    write(tmp_path / "grown", second)
    write(tmp_path / "one", second)
    assert contents(tmp_path / "grown") == contents(tmp_path / "one")


def test_an_interrupted_writer_is_continued(tmp_path: Path) -> None:
    write(tmp_path / "one", 33)
    assert not write(tmp_path / "two", 33, limit=3)
    manifest = tmp_path / "two/toy.manifest.1-of-1.jsonl"
    manifest.write_bytes(manifest.read_bytes() + b'{"bytes":24')  # killed while it wrote a line
    (tmp_path / "two/toy.zarr/images/c.3.0.0.0").write_bytes(b"no line, so not there")
    (tmp_path / "two/toy.zarr/images/c.4.0.0.0.partial").write_bytes(b"half")
    with pytest.raises(FileNotFoundError, match="unfinished"):
        Store(tmp_path / "two", "toy")
    assert "unfinished" in verify(tmp_path / "two", "toy")[0].what
    assert write(tmp_path / "two", 33)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_an_interrupted_extension_is_continued(tmp_path: Path) -> None:
    write(tmp_path / "one", 33)
    write(tmp_path / "two", 10)
    write(tmp_path / "two", 33, limit=2)
    assert verify(tmp_path / "two", "toy")
    assert write(tmp_path / "two", 33)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    write(tmp_path)
    chance = random.Random(0)
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        named = str(path.relative_to(tmp_path))
        bits = range(8 * len(whole)) if "manifest" in path.name else [chance.randrange(8 * len(whole)) for _ in range(40)]
        for bit in bits:
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            problems = verify(tmp_path, "toy")
            assert problems, f"bit {bit} of {named}"
            if "manifest" not in named:
                assert [problem.path for problem in problems] == [named]
        path.write_bytes(whole)
    assert verify(tmp_path, "toy") == []


def test_missing_swapped_truncated_and_foreign_files_are_named(tmp_path: Path) -> None:
    write(tmp_path / "good")
    write(tmp_path / "other", 20)
    images = Path("toy.zarr/images")

    def damaged(harm: object) -> list[Problem]:
        root = tmp_path / "bad"
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(tmp_path / "good", root)
        harm(root)  # type: ignore[operator]
        return verify(root, "toy")

    def swap(root: Path) -> None:
        one, two = root / images / "c.0.0.0.0", root / images / "c.1.0.0.0"
        first, second = one.read_bytes(), two.read_bytes()
        one.write_bytes(second)
        two.write_bytes(first)

    def truncate(root: Path) -> None:
        (root / images / "c.2.0.0.0").write_bytes((root / images / "c.2.0.0.0").read_bytes()[:-1])

    assert [p.path for p in damaged(lambda root: (root / images / "c.3.0.0.0").unlink())] == ["toy.zarr/images/c.3.0.0.0"]
    assert [p.path for p in damaged(swap)] == ["toy.zarr/images/c.0.0.0.0", "toy.zarr/images/c.1.0.0.0"]
    assert "instead of" in damaged(truncate)[0].what
    assert (
        damaged(lambda root: (root / images / "c.9.0.0.0").write_bytes(b"x"))[0].what == "does not belong to the store: delete it"
    )
    assert damaged(lambda root: (root / "toy.md").unlink()) == [Problem("toy.md", "missing")]
    assert damaged(lambda root: (root / "toy.manifest.jsonl").write_bytes(b""))[0].path == "toy.manifest.jsonl"


def test_other_parameters_are_refused_by_name_and_nothing_changes(tmp_path: Path) -> None:
    write(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="seed is 0 there, 1 here"):
        Writer(tmp_path, description(seed=1))
    with pytest.raises(ValueError, match="more than the 10 asked for"):
        Writer(tmp_path, description(10))
    assert contents(tmp_path) == before


def test_another_number_of_parts_is_refused(tmp_path: Path) -> None:
    write(tmp_path, part=(1, 3))
    with pytest.raises(ValueError, match="3 parts"):
        Writer(tmp_path, description(), (1, 2))


def test_one_writer_per_part(tmp_path: Path) -> None:
    with (
        Writer(tmp_path, description(), (1, 2)),
        Writer(tmp_path, description(), (2, 2)),
        pytest.raises(BlockingIOError, match="another process"),
    ):
        Writer(tmp_path, description(), (1, 2))


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "toy.zarr").mkdir()
    (tmp_path / "toy.zarr/thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="not a dataset store"):
            Writer(tmp_path, description(), overwrite=overwrite)
    assert contents(tmp_path) == {"toy.zarr/thesis.txt": b"mine"}


def test_a_store_of_another_tool_is_left_alone(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "toy.zarr", zarr_format=3).create_array("images", shape=(2,), dtype="u1")
    before = contents(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="not a dataset store"):
            Writer(tmp_path, description(), overwrite=overwrite)
    assert contents(tmp_path) == before


def test_no_space_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "old", 10)
    before = contents(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    for root in (tmp_path / "new", tmp_path / "old"):
        with pytest.raises(OSError, match=r"not enough space.*bytes are needed, 1,000 are free"):
            Writer(root, description(20))
    assert contents(tmp_path) == before
    assert not (tmp_path / "new").exists()
    assert verify(tmp_path / "old", "toy") == []


def test_a_disk_that_fills_up_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "one")
    messages: list[str] = []
    fsync = os.fsync
    for failing in range(1, 40):
        root = tmp_path / f"two-{failing}"
        syncs = 0

        def full(descriptor: int, failing: int = failing) -> None:
            nonlocal syncs
            syncs += 1
            if syncs == failing:
                raise OSError(errno.ENOSPC, "No space left on device")  # as a failing write: it names no file
            fsync(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        try:
            write(root)
        except OSError as error:
            messages.append(str(error))
        else:
            break  # no sync was left to fail
        finally:
            monkeypatch.undo()
        assert not list(root.rglob("*.partial"))
        write(root)
        assert contents(root) == contents(tmp_path / "one"), failing
    assert failing > 20
    assert all("No space left" in message for message in messages)


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the writer's own handling runs but what a dead process would leave."""


def test_killed_between_any_two_writes_it_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new store, and an extension, die before and after every single file that they publish."""
    write(tmp_path / "one", 23)
    publish = files.write_atomically
    for begin in (0, 13):
        for fatal in range(1, 30):
            root = tmp_path / f"{begin}-{fatal}"
            if begin:
                write(root, begin)
            count = 0

            def dying(path: Path, data: bytes, fatal: int = fatal) -> None:
                nonlocal count
                count += 1
                if count == fatal:
                    path.with_name(path.name + ".partial").write_bytes(data[: len(data) // 2])
                    raise Killed
                publish(path, data)

            monkeypatch.setattr(writer, "write_atomically", dying)
            try:
                write(root, 23)
            except Killed:
                monkeypatch.undo()
            else:
                monkeypatch.undo()
                break
            try:
                assert len(Store(root, "toy")) == begin  # before the extension began: what it was
                assert begin
            except (FileNotFoundError, DamagedError):  # never zeros for what is not there
                assert not any(store["complete"] for store in overview(root))
            assert write(root, 23), fatal
            assert contents(root) == contents(tmp_path / "one"), fatal
        assert fatal > 5


def test_a_refused_extension_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, 10)
    manifest = tmp_path / "toy.manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes().replace(b'"first":5', b'"first":6'))
    before = contents(tmp_path)
    with pytest.raises(DamagedError, match=r"toy\.manifest\.jsonl is damaged"):
        Writer(tmp_path, description(20))
    assert contents(tmp_path) == before


def test_two_processes_with_other_lengths_do_not_mix(tmp_path: Path) -> None:
    with Writer(tmp_path, description(20), (1, 2)) as one:
        one.publish(0, pictures(0))
        for part in ((1, 2), (2, 2)):
            with pytest.raises(BlockingIOError, match="another process"):
                Writer(tmp_path, description(40), part)
        one.publish(1, pictures(1))
    assert write(tmp_path, 20, (2, 2))
    assert verify(tmp_path, "toy") == []


def test_a_store_that_is_being_written_is_not_removed(tmp_path: Path) -> None:
    with Writer(tmp_path, description()) as one:
        one.publish(0, pictures(0))
        with pytest.raises(BlockingIOError, match="another process"):
            Writer(tmp_path, description(seed=1), overwrite=True)
        one.publish(1, pictures(1))
    assert write(tmp_path)
    assert verify(tmp_path, "toy") == []


def test_parts_are_not_overwritten_by_each_other(tmp_path: Path) -> None:
    write(tmp_path, part=(1, 2))
    with pytest.raises(ValueError, match="remove the other parts"):
        Writer(tmp_path, description(), (2, 2), overwrite=True)
    assert write(tmp_path, part=(2, 2))


def test_a_damaged_shard_is_named_deleted_and_made_again(tmp_path: Path) -> None:
    write(tmp_path)
    before = contents(tmp_path)
    shard = tmp_path / "toy.zarr/images/c.1.0.0.0"
    shard.write_bytes(b"x" + shard.read_bytes()[1:])
    assert [problem.path for problem in verify(tmp_path, "toy")] == ["toy.zarr/images/c.1.0.0.0"]
    shard.unlink()
    assert write(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("damaged", ["toy.zarr/zarr.json", "toy.zarr/images/zarr.json", "toy.manifest.jsonl"])
def test_a_damaged_store_is_listed_refused_and_overwritten(tmp_path: Path, damaged: str) -> None:
    write(tmp_path)
    before = contents(tmp_path)
    (tmp_path / damaged).write_bytes(b"\xff\x00 not json")
    assert [store["complete"] for store in overview(tmp_path)] == [False]
    with pytest.raises((ValueError, DamagedError), match=r"damaged|not a dataset store"):
        Writer(tmp_path, description())
    with Writer(tmp_path, description(), overwrite=True) as again:
        for shard in again.missing:
            again.publish(shard, pictures(shard))
        again.finish(lambda _: "# toy\n", lambda s: s.read(0, 1).tobytes())
    assert contents(tmp_path) == before


def test_a_finished_store_is_left_as_it_is(tmp_path: Path) -> None:
    write(tmp_path)
    before = contents(tmp_path)
    for part in ((1, 1), (1, 3)):
        assert write(tmp_path, part=part)
        assert contents(tmp_path) == before


def test_removing_is_whole(tmp_path: Path) -> None:
    write(tmp_path)
    remove(tmp_path, "toy")
    assert contents(tmp_path) == {}
    remove(tmp_path, "toy")


def test_wrong_shards_are_refused(tmp_path: Path) -> None:
    with Writer(tmp_path, description()) as one:
        for wrong in (pictures(0).astype(np.int32), pictures(0)[:, :2], pictures(0, 6), pictures(0)[:0]):
            with pytest.raises(ValueError, match="a shard of toy is uint8"):
                one.publish(0, wrong)  # type: ignore[arg-type]
        assert one.missing == [0, 1, 2, 3]


def test_manifest_lines_say_what_is_where(tmp_path: Path) -> None:
    write(tmp_path, 13)
    *lines, last = map(json.loads, (tmp_path / "toy.manifest.jsonl").read_text().splitlines())
    assert [(line["first"], line["last"]) for line in lines] == [(0, 4), (5, 9), (10, 12)]
    assert set(last["files"]) == {"zarr.json", "images/zarr.json", "toy.md", "toy.png"}
