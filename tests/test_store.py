"""The store: what is written survives, what is damaged is found, what is not ours is left alone."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import writer
from harness.data.manifest import finished, read_finished, read_part, salvaged
from harness.data.store import Description, Store
from harness.data.verify import Problem, overview, verify
from harness.data.writer import Writer, remove
from helpers.dying import killed_at
from helpers.files import contents, counting
from helpers.hostile import peak_of
from helpers.toy import FORGED, ROWS, SIDE, SPEC, description, pictures, rows_of
from splits.errors import DamagedError, MissingError


def write(root: Path, images: int = 20, part: tuple[int, int] = (1, 1), compress: bool = False, limit: int = 10**6) -> bool:
    with Writer(root, description(images, compress), part) as one:
        for shard in one.missing[:limit]:
            one.publish(shard, pictures(shard, rows_of(images, shard)))
        return one.finish(lambda _: "# toy\n", lambda s: s.read(0, 1).tobytes())


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
    assert damaged(lambda root: (root / images / "c.9.0.0.0").write_bytes(b"x"))[0].advice == "delete it"
    assert damaged(lambda root: (root / "toy.md").unlink()) == [Problem("toy.md", "missing")]
    assert damaged(lambda root: (root / "toy.manifest.jsonl").write_bytes(b""))[0].path == "toy.manifest.jsonl"


def _swapped_for(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def harm(path: Path) -> None:
        path.unlink()
        make(path)

    return harm


def _moved_and_linked(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


STRANGE: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a folder with something in it": lambda path: (path / "x").mkdir(parents=True),
    "a dangling link": lambda path: path.symlink_to("/nowhere"),
    "a link to a folder": lambda path: path.symlink_to(path.parents[1]),
    "a fifo": os.mkfifo,
    "a file": lambda path: path.write_text("x"),
}


@pytest.mark.parametrize("what", STRANGE)
@pytest.mark.parametrize("where", ["toy.zarr/extra", "toy.zarr/images/extra"])
def test_strange_things_in_the_group_are_named(tmp_path: Path, what: str, where: str) -> None:
    write(tmp_path)
    STRANGE[what](tmp_path / where)
    assert verify(tmp_path, "toy") == [Problem(where, "does not belong to the store", "delete it")]


def test_a_manifest_that_is_a_link_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    manifest = tmp_path / "toy.manifest.jsonl"
    manifest.rename(tmp_path / "elsewhere")
    manifest.symlink_to(tmp_path / "elsewhere")
    assert [str(each) for each in verify(tmp_path, "toy")] == [
        "toy.manifest.jsonl: is a link, not a file: put the file in its place"
    ]


@pytest.mark.parametrize("what", ["a folder", "a fifo", "a link"])
@pytest.mark.parametrize("where", ["images/c.1.0.0.0", "images/zarr.json", "zarr.json"])
def test_what_stands_for_a_file_is_named(tmp_path: Path, what: str, where: str) -> None:
    """A link to equal bytes too: whoever changes its target changes the store."""
    write(tmp_path)
    path = tmp_path / "toy.zarr" / where
    path.rename(tmp_path / "moved")
    if what == "a link":
        path.symlink_to(tmp_path / "moved")
    else:
        STRANGE[what](path)
    assert Problem(f"toy.zarr/{where}", f"is {what}, not a file") in verify(tmp_path, "toy")


@pytest.mark.parametrize("what", FORGED)
def test_a_manifest_that_agrees_with_itself_and_is_none_is_named(tmp_path: Path, what: str) -> None:
    write(tmp_path)
    manifest = tmp_path / "toy.manifest.jsonl"
    entries, hashes = read_finished(manifest)
    FORGED[what](entries, hashes)
    manifest.write_bytes(finished(entries, hashes))
    assert {problem.path for problem in verify(tmp_path, "toy")} == {"toy.manifest.jsonl"}


def test_a_shard_that_the_manifest_forgot_is_named_and_never_black(tmp_path: Path) -> None:
    write(tmp_path)
    manifest, shard = tmp_path / "toy.manifest.jsonl", tmp_path / "toy.zarr/images/c.1.0.0.0"
    entries, hashes = read_finished(manifest)
    manifest.write_bytes(finished([entries[0], *entries[2:]], hashes))
    shard.unlink()
    assert verify(tmp_path, "toy") == [Problem("toy.zarr/images/c.1.0.0.0", "is not in the manifest")]
    with pytest.raises(DamagedError, match="lists other shards"):
        Store(tmp_path, "toy")


def test_a_manifest_nested_without_end_is_damaged(tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two")
    shutil.copytree(tmp_path / "two/toy.zarr", tmp_path / "one/bad.zarr")
    (tmp_path / "one/bad.manifest.jsonl").write_bytes(b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n")
    assert {store["name"]: store["complete"] for store in overview(tmp_path / "one")} == {"toy": True, "bad": False}
    assert verify(tmp_path / "one", "bad")[0].path == "bad.manifest.jsonl"


HARMS: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: os.truncate(path, 0),
    "cut": lambda path: os.truncate(path, 100),
    "grown": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
    "another's": lambda path: shutil.copy(path.with_name("c.3.0.0.0"), path),
    "missing": Path.unlink,
    "a folder": _swapped_for(Path.mkdir),
    "a fifo": _swapped_for(os.mkfifo),
}


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("compress", [False, True], ids=["raw", "zstd"])
def test_a_damaged_shard_is_never_read(tmp_path: Path, harm: str, compress: bool) -> None:
    """However it is damaged and whichever way it is read, it is an error that names it: never black, nor another's images."""
    write(tmp_path, compress=compress)
    before = Store(tmp_path, "toy")
    HARMS[harm](tmp_path / "toy.zarr/images/c.1.0.0.0")
    for opened in (before, Store(tmp_path, "toy")):
        reads: list[Callable[[], object]] = [
            lambda opened=opened: opened.read(0, 20),  # type: ignore[misc]
            lambda opened=opened: opened.read(7, 8),  # type: ignore[misc]
            lambda opened=opened: opened.images[6],  # type: ignore[misc]
            lambda opened=opened: opened.images[::4],  # type: ignore[misc]
            lambda opened=opened: opened.images.oindex[[1, 7]],  # type: ignore[misc]
            lambda opened=opened: np.asarray(opened.images),  # type: ignore[misc]
        ]
        for read in reads:
            with pytest.raises((DamagedError, MissingError), match=r"c\.1\.0\.0\.0 .*data verify toy"):
                read()
        np.testing.assert_array_equal(opened.images[10:15], pictures(2))  # the others can be read
    (listed,) = overview(tmp_path)
    if harm not in ("flipped", "another's"):  # what can be seen without reading
        assert not listed["complete"]
        assert "1 of 4 shards can't be read, first images/c.1.0.0.0" in listed["damage"]


@pytest.mark.parametrize("compress", [False, True])
def test_any_range_is_read(tmp_path: Path, compress: bool) -> None:
    write(tmp_path, 13, compress=compress)
    opened = Store(tmp_path, "toy")
    whole = opened.read(0, 13)
    for start in range(14):
        for stop in range(start, 14):
            np.testing.assert_array_equal(opened.read(start, stop), whole[start:stop])
    for start, stop in ((-1, 3), (4, 3), (12, 14)):
        with pytest.raises(ValueError, match="toy has 13 images"):
            opened.read(start, stop)


def test_a_manifest_of_many_lines_is_refused_at_the_first(tmp_path: Path) -> None:
    path = tmp_path / "toy.manifest.jsonl"
    path.write_bytes(b"{}\n" * 10**6)
    for read in (read_finished, read_part, salvaged):
        assert peak_of(read, path) < 8 * 10**6


def test_a_shard_is_hashed_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.shards.TICK", 0)
    write(tmp_path)
    monkeypatch.setattr("harness.data.shards._CHECKED", set())
    hashed: list[str] = []
    monkeypatch.setattr("harness.data.shards.hashlib.file_digest", counting(hashed))
    opened = Store(tmp_path, "toy")
    assert not hashed
    for _ in range(3):
        opened.read(3, 7)
        assert np.asarray(opened.images[4]).shape == (SIDE, SIDE, 3)
    assert len(hashed) == 2
    shutil.copy(opened.shard(0), tmp_path / "copy")
    (tmp_path / "copy").replace(opened.shard(0))  # another file is another matter
    opened.read(0, 20)
    assert len(hashed) == 5
    Store(tmp_path, "toy").read(0, 20)
    assert len(hashed) == 5
    times = opened.shard(1).stat()
    data = bytearray(opened.shard(1).read_bytes())
    data[9] ^= 1
    opened.shard(1).write_bytes(data)
    os.utime(opened.shard(1), ns=(times.st_atime_ns, times.st_mtime_ns))  # as if it had not been changed
    with pytest.raises(DamagedError, match="is damaged"):
        Store(tmp_path, "toy").read(5, 6)


def test_a_file_that_was_just_written_is_hashed_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its times don't tell it from what is written within the same tick of the clock."""
    write(tmp_path)
    opened = Store(tmp_path, "toy")
    hashed: list[str] = []
    monkeypatch.setattr("harness.data.shards.hashlib.file_digest", counting(hashed))
    monkeypatch.setattr("harness.data.shards.TICK", 3600 * 10**9)
    opened.read(0, 3)
    opened.read(0, 3)
    assert len(hashed) == 2


def test_images_can_be_pickled(tmp_path: Path) -> None:
    """As dask and spawned workers do."""
    write(tmp_path)
    images = pickle.loads(pickle.dumps(Store(tmp_path, "toy").images))
    np.testing.assert_array_equal(images[5:10], pictures(1))
    (tmp_path / "toy.zarr/images/c.2.0.0.0").unlink()
    with pytest.raises(MissingError):
        images[10:15]


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


def test_killed_between_any_two_writes_it_continues(tmp_path: Path) -> None:
    """A new store, and an extension, die before and after every single file that they publish."""
    write(tmp_path / "one", 23)
    for begin in (0, 13):
        for fatal in range(1, 30):
            root = tmp_path / f"{begin}-{fatal}"
            if begin:
                write(root, begin)
            with killed_at(fatal) as died:
                write(root, 23)
            if not died:
                break
            try:
                assert len(Store(root, "toy")) == begin  # before the extension began: what it was
                assert begin
            except (FileNotFoundError, DamagedError):  # never zeros for what is not there
                assert not any(store["complete"] for store in overview(root))
            assert write(root, 23), fatal
            assert contents(root) == contents(tmp_path / "one"), fatal
        assert fatal > 5


def test_a_store_can_be_read_while_it_is_extended(tmp_path: Path) -> None:
    """And after the extension was killed: until it is finished, the store is what it was."""
    write(tmp_path, 10)
    before = contents(tmp_path)
    with Writer(tmp_path, description(20)) as one:
        one.publish(2, pictures(2))
        opened = Store(tmp_path, "toy")
        assert len(opened) == 10
        np.testing.assert_array_equal(opened.read(0, 10), np.concatenate([pictures(0), pictures(1)]))
        assert zarr.open_array(tmp_path / "toy.zarr/images", mode="r").shape[0] == 10  # for other programs too
        assert overview(tmp_path)[0] | {"complete": True, "images": 10, "damage": ""} == overview(tmp_path)[0]
        assert [problem.path for problem in verify(tmp_path, "toy")] == ["toy.manifest.1-of-1.jsonl"]  # and no shard is foreign
    assert contents(tmp_path).items() >= before.items()
    with pytest.raises(ValueError, match="being extended to, 20 images, more than the 15 asked for"):
        Writer(tmp_path, description(15))
    assert write(tmp_path, 20)
    write(tmp_path / "one", 20)
    assert {name: data for name, data in contents(tmp_path).items() if not name.startswith("one/")} == contents(tmp_path / "one")


def test_other_programs_find_names_for_the_dimensions(tmp_path: Path) -> None:
    """xarray opens nothing without."""
    write(tmp_path)
    array = zarr.open_array(tmp_path / "toy.zarr/images", mode="r")
    assert array.metadata.dimension_names == ("image", "row", "column", "channel")  # type: ignore[union-attr]


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize("module", ["xarray", "dask.array", "tensorstore"])
def test_other_programs_read_the_same(tmp_path: Path, module: str) -> None:
    """Those of them that are installed."""
    write(tmp_path, compress=True)
    library, group = pytest.importorskip(module), tmp_path / "toy.zarr"
    where = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{group}/images/"}}
    read: dict[str, Callable[[], object]] = {
        "xarray": lambda: library.open_zarr(group, consolidated=False)["images"],
        "dask.array": lambda: library.from_zarr(str(group), component="images"),
        "tensorstore": lambda: library.open(where).result().read().result(),
    }
    np.testing.assert_array_equal(np.asarray(read[module]()), Store(tmp_path, "toy").read(0, 20))


def test_an_extension_that_an_older_version_began_is_continued(tmp_path: Path) -> None:
    """It wrote the new documents first."""
    write(tmp_path / "old", 10)
    with Writer(tmp_path / "old", description(20)) as one:
        one.publish(2, pictures(2))
        for name, document in one.description.metadata().items():
            (tmp_path / "old/toy.zarr" / name).write_bytes(document)
    (tmp_path / "old/.toy.pending.json").unlink()
    with pytest.raises(MissingError, match="is being changed"):
        Store(tmp_path / "old", "toy")
    assert write(tmp_path / "old", 20)
    write(tmp_path / "one", 20)
    assert contents(tmp_path / "old") == contents(tmp_path / "one")


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_consolidated_metadata_belongs_to_a_store_and_nothing_else_that_is_added(tmp_path: Path) -> None:
    write(tmp_path)
    before = contents(tmp_path)
    zarr.consolidate_metadata(tmp_path / "toy.zarr", zarr_format=3)
    consolidated = contents(tmp_path)
    assert verify(tmp_path, "toy") == []
    assert write(tmp_path)
    assert contents(tmp_path) == consolidated != before
    document = tmp_path / "toy.zarr/zarr.json"
    document.write_bytes(document.read_bytes().replace(b"20,", b"25,"))  # a copy that lies
    np.testing.assert_array_equal(Store(tmp_path, "toy").images[5:10], pictures(1))
    assert [problem.path for problem in verify(tmp_path, "toy")] == ["toy.zarr/zarr.json"]
    zarr.consolidate_metadata(tmp_path / "toy.zarr", zarr_format=3)
    zarr.open_group(tmp_path / "toy.zarr").attrs["note"] = "mine"
    np.testing.assert_array_equal(Store(tmp_path, "toy").images[5:10], pictures(1))
    assert [problem.path for problem in verify(tmp_path, "toy")] == ["toy.zarr/zarr.json"]
    assert write(tmp_path)
    assert contents(tmp_path) == before


def test_a_changed_document_stops_a_reader(tmp_path: Path) -> None:
    """Another spec is another split, another shape other images."""
    write(tmp_path)
    for name, old, new in (
        ("zarr.json", b'"size": 4', b'"size": 5'),
        ("images/zarr.json", b'"data_type": "uint8"', b'"data_type": "int8"'),
    ):
        document = tmp_path / "toy.zarr" / name
        whole = document.read_bytes()
        document.write_bytes(whole.replace(old, new))
        if name == "zarr.json":
            with pytest.raises(DamagedError, match=r"zarr\.json is missing or damaged"):
                Store(tmp_path, "toy")
        else:  # what the manifest proves is read, not what is there
            assert Store(tmp_path, "toy").images.dtype == np.uint8
        document.write_bytes(whole)


def test_a_complete_store_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it may lie on a read-only disk: nothing is locked, opened for writing or made."""
    write(tmp_path)

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("locked", "write_atomically", "_check_space"):
        monkeypatch.setattr(writer, name, refused)
    monkeypatch.setattr(os, "open", refused)
    assert write(tmp_path)


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


def test_a_finished_store_is_left_as_it_is(tmp_path: Path) -> None:
    write(tmp_path)
    before = contents(tmp_path)
    for part in ((1, 1), (1, 3)):
        assert write(tmp_path, part=part)
        assert contents(tmp_path) == before


def test_names_of_other_stores_are_not_parts(tmp_path: Path) -> None:
    write(tmp_path)
    other = Description("toy.manifest.1-of-2", (5, SIDE, SIDE, 3), ROWS, False, SPEC)
    with Writer(tmp_path, other) as one:
        one.publish(0, pictures(0))
        one.finish(lambda _: "", lambda _: b"")
    assert len(Store(tmp_path, "toy")) == 20
    assert verify(tmp_path, "toy") == verify(tmp_path, other.name) == []
    assert [store["complete"] for store in overview(tmp_path)] == [True, True]


def test_a_name_is_not_a_pattern(tmp_path: Path) -> None:
    odd = Description("t[o]y", (5, SIDE, SIDE, 3), ROWS, False, SPEC)
    with Writer(tmp_path, odd) as one:
        one.publish(0, pictures(0))
    (part,) = tmp_path.glob("*.jsonl")
    with Writer(tmp_path, odd) as one:
        assert one.missing == []
        assert one.finish(lambda _: "", lambda _: b"")
    assert not part.exists()


@pytest.mark.parametrize("inside", ["toy.zarr", "toy.zarr/images"])
def test_a_link_is_not_written_through(tmp_path: Path, inside: str) -> None:
    write(tmp_path / "theirs")
    (tmp_path / "theirs/toy.zarr/images/c.1.0.0.0").unlink()
    (tmp_path / "theirs/toy.zarr/images/c.99.0.0.0").write_text("not ours")
    write(tmp_path / "ours")
    linked = tmp_path / "ours" / inside
    shutil.rmtree(linked)
    linked.symlink_to(tmp_path / "theirs" / inside)
    before = contents(tmp_path / "theirs")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="is a link"):
            Writer(tmp_path / "ours", description(), overwrite=overwrite)
    assert contents(tmp_path / "theirs") == before


def test_what_is_not_named_as_ours_is_not_deleted(tmp_path: Path) -> None:
    write(tmp_path, limit=2)
    images = tmp_path / "toy.zarr/images"
    foreign = ["c.notes", "c.01.0.0.0", "mine.partial", "c.99.0.0.0.bak"]
    for name in foreign:
        (images / name).write_text("mine")
    (images / "c.98.0.0.0").mkdir()
    ours = ["c.97.0.0.0", "c.3.0.0.0.partial"]
    for name in ours:
        (images / name).write_text("left by a kill")
    assert write(tmp_path)
    assert all((images / name).read_text() == "mine" for name in foreign)
    assert not any((images / name).exists() for name in ours)
    named = {problem.path.rpartition("/")[2] for problem in verify(tmp_path, "toy")}
    assert named == {*foreign, "c.98.0.0.0"}


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
