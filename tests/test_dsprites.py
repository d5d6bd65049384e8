"""The dSprites renderer: the published images, and the store that it makes."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import splits
from harness.data.store import Store
from harness.data.verify import verify
from harness.data.writer import Writer
from harness.formats import dsprites
from helpers.commands import CommandLine

# Of the 320 frames of the dataset's own animation, packed by numpy.packbits.
ANIMATION_SHA256 = "3d38f770e7694ba6ba5430c6f6eb71df0a62d538c867bcc5b19aebdb15d2d9e3"
# Of all images, packed the same way.
ALL_SHA256 = "3a228f4037ef3d42a42588e0e01f1078aa2df13cfa17584e88c95ed9fb5672da"


def animation() -> np.ndarray:
    """(320, 64, 64) bool: the poses of the published animation, in its order."""
    up, down = list(range(32)), list(range(31, -1, -1))
    poses: list[tuple[int, ...]] = []
    for shape in (2, 1, 0):
        poses += [(shape, scale, 0, 0, 0) for scale in (*range(6), *range(5, -1, -1), *range(6))]
        poses += [(shape, 5, orientation, 0, 0) for orientation in range(40)]
        if shape == 2:
            poses += [(shape, 5, 0, 0, y) for y in up] + [(shape, 5, 0, x, 31) for x in up]
            poses += [(shape, 5, 0, 31, y) for y in down] + [(shape, 5, 0, x, 0) for x in down]
        poses += [(shape, scale, 0, 0, 0) for scale in range(5, -1, -1)]
    rendered = {pose[:3]: dsprites.render_bits(*pose[:3]) for pose in poses}
    return np.unpackbits(np.stack([rendered[pose[:3]][pose[3:]] for pose in poses]), axis=-1).astype(bool)


def test_the_published_animation() -> None:
    frames = animation()
    assert len(frames) == 320
    assert hashlib.sha256(np.packbits(frames).tobytes()).hexdigest() == ANIMATION_SHA256


def test_the_sum_of_all_images() -> None:
    digest, white = hashlib.sha256(), 0
    for bits in dsprites.all_bits():
        digest.update(bits.tobytes())
        white += int(np.bitwise_count(bits).sum())
    assert white == dsprites.WHITE_PIXELS  # two off the published mean pixel, in 128 million
    assert digest.hexdigest() == ALL_SHA256  # another machine's sines may differ in a last bit: then only the sum counts


def test_images_are_the_cells_of_the_grid() -> None:
    grid = splits.load_spec("dsprites").grid
    assert len(grid) == dsprites.IMAGES
    cell = (2, 3, 17, 30, 5)
    index = int(grid.index(cell))
    image = dsprites.render(index, index + 1)
    assert image.shape == (1, 64, 64, 1)
    np.testing.assert_array_equal(np.unique(image), [0, 255])
    np.testing.assert_array_equal(np.packbits(image[0, :, :, 0] > 0, axis=1), dsprites.render_bits(*cell[:3])[cell[3:]])
    rows, columns = np.nonzero(image[0, :, :, 0])
    assert columns.mean() > 40  # x-position 30 of 31 is on the right
    assert rows.mean() < 30  # y-position 5 at the top
    across_poses = dsprites.render(1000, 1050)
    np.testing.assert_array_equal(across_poses[24], dsprites.render(1024, 1025)[0])


@pytest.mark.parametrize("scale", [0, 5])
@pytest.mark.parametrize("shape", [0, 1, 2])
def test_a_whole_turn_is_none(shape: int, scale: int) -> None:
    np.testing.assert_array_equal(dsprites.render_bits(shape, scale, 0), dsprites.render_bits(shape, scale, 39))


def test_images_out_of_the_grid_are_refused() -> None:
    for start, stop in ((-1, 4), (5, 5), (dsprites.IMAGES, dsprites.IMAGES + 1)):
        with pytest.raises(ValueError, match="dsprites has images 0 to 737279"):
            dsprites.render(start, stop)


def test_the_command_makes_the_store_and_continues_it(tmp_path: Path, ood_data: CommandLine) -> None:
    made = ood_data("generate", "dsprites", "--out", tmp_path)
    assert made.returncode == 0, made.stderr
    assert "128,328,864 white pixels" in made.stderr
    assert verify(tmp_path, "dsprites") == []
    manifest = (tmp_path / "dsprites.manifest.jsonl").read_bytes()
    store = Store(tmp_path, "dsprites")
    np.testing.assert_array_equal(store.read(400_000, 400_100), dsprites.render(400_000, 400_100))
    assert splits.spec_from_dict(store.spec).split("extrapolation").counts == (240_000, 497_280)
    assert "| x-position | 32 | ordinal |" in (tmp_path / "dsprites.md").read_text()

    shard = tmp_path / "dsprites.zarr/images/c.7.0.0.0"
    shard.unlink()
    again = ood_data("generate", "dsprites", "--out", tmp_path, "--json")
    assert again.stdout == f'{{"store": "{tmp_path}/dsprites.zarr", "complete": true}}\n'
    assert (tmp_path / "dsprites.manifest.jsonl").read_bytes() == manifest
    assert verify(tmp_path, "dsprites") == []


def test_the_room_that_a_store_needs_is_estimated_honestly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for orientations in (40, 1):
        description = dsprites.describe(orientations)
        for shard in (0, description.shards // 2, description.shards - 1):
            first = shard * description.rows
            images = dsprites.render(first, min(first + description.rows, description.shape[0]), orientations)
            assert len(description.encode(images)) < description.expected_bytes
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=15_000_000))
        with pytest.raises(OSError, match=r"not enough space .* 2\d,\d{3},\d{3} bytes are needed, 15,000,000 are free"):
            dsprites.generate(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=30_000_000))
    with Writer(tmp_path, dsprites.describe()) as writer:
        assert len(writer.missing) == 180


def test_a_part_of_the_orientations_is_a_dataset_of_its_own(tmp_path: Path, ood_data: CommandLine) -> None:
    made = ood_data("generate", "dsprites", "--orientations", 10, "--out", tmp_path)
    assert made.returncode == 0, made.stderr
    assert f"{tmp_path}/dsprites10.zarr is complete" in made.stdout
    assert "128,328,864 white pixels" in made.stderr
    assert "Matthey" in (tmp_path / "dsprites10.md").read_text()
    assert verify(tmp_path, "dsprites10") == []
    store = Store(tmp_path, "dsprites10")
    spec = splits.spec_from_dict(store.spec)
    assert len(store) == 3 * 6 * 10 * 32 * 32
    assert spec.split("extrapolation").held_out["orientation"] == (8, 9)
    assert spec.split("extrapolation").counts.train == 3 * 4 * 8 * 25 * 25
    cells = spec.grid.factors(np.arange(9_000, 180_000, 5_000))
    for index, image in zip(spec.grid.index(cells), splits.load_spec("dsprites").grid.index(cells), strict=True):
        np.testing.assert_array_equal(store.read(index, index + 1), dsprites.render(image, image + 1))


def test_of_ten_orientations_no_two_look_alike() -> None:
    for shape, scale in itertools.product(range(dsprites.SHAPES), range(dsprites.SCALES)):
        assert len({dsprites.render_bits(shape, scale, orientation).tobytes() for orientation in range(10)}) == 10


def test_the_rules_for_a_part_are_those_of_the_whole() -> None:
    grid = splits.load_spec("dsprites").grid
    derived = splits.derive_spec("dsprites", grid, dsprites.HOLD_OUT_RATIO, never_held_out=("shape",))
    assert derived.rules == splits.load_spec("dsprites").rules


def test_a_file_in_the_way_is_one_clear_line(tmp_path: Path, ood_data: CommandLine) -> None:
    (tmp_path / "data").write_text("a file")
    done = ood_data("generate", "dsprites", "--out", tmp_path / "data")
    assert done.returncode == 2
    assert f"{tmp_path / 'data'} is a file: a folder is expected" in done.stderr


def test_wrong_pixels_leave_the_store_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dsprites, "render", lambda start, stop, _: np.zeros((stop - start, 64, 64, 1), np.uint8))
    with pytest.raises(ArithmeticError, match="0 white pixels instead of 128,328,864"):
        dsprites.generate(tmp_path, progress=False)
    with pytest.raises(FileNotFoundError, match="unfinished"):
        Store(tmp_path, "dsprites")
