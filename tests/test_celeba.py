"""CelebA as it is downloaded: pictures, lists of attributes, and what can be wrong with them. The pictures are made here."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from celebglow.convert.openai_directions import CELEBA
from celebglow.fitting import images as reading
from celebglow.fitting.augmentation import TrainingImages
from celebglow.fitting.config import NO_AUGMENTATION
from celebglow.fitting.images import read_images
from celebglow.fitting.labels import read_labels
from harness.data.store import Store
from helpers.commands import CommandLine, assert_one_clear_line, invoke
from helpers.flows import random_glow

COUNT = 40


def values(kind: str = "txt") -> np.ndarray:
    """(COUNT, 40) of -1 and 1: every attribute has both."""
    random = np.random.default_rng(0).integers(0, 2, (COUNT, 40)) * 2 - 1
    random[:2] = [[-1], [1]]
    return random


def write_txt(path: Path, rows: int = COUNT) -> Path:
    """As CelebA's: names of attributes separated by single spaces, numbers padded."""
    lines = [f"{i + 1:06d}.jpg " + " ".join(f"{v:2d}" for v in row) for i, row in enumerate(values()[:rows])]
    path.write_text("\n".join([str(COUNT), " ".join(CELEBA) + " ", *lines]) + "\n")
    return path


def write_csv(path: Path) -> Path:
    """As Kaggle's."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["image_id", *CELEBA], *([f"{i + 1:06d}.jpg", *row] for i, row in enumerate(values()))])
    return path


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """178 x 218 JPEGs whose middle is bright where someone smiles."""
    root = tmp_path_factory.mktemp("celeba")
    (root / "img_align_celeba").mkdir()
    rng = np.random.default_rng(1)
    for index, row in enumerate(values()):
        picture = rng.integers(60, 90, (218, 178, 3), dtype=np.uint8)
        picture[80:140, 60:120] = 200 if row[CELEBA.index("Smiling")] > 0 else 30
        Image.fromarray(picture).save(root / f"img_align_celeba/{index + 1:06d}.jpg")
    write_txt(root / "list_attr_celeba.txt")
    write_csv(root / "list_attr_celeba.csv")
    return root


@pytest.mark.parametrize("name", ["list_attr_celeba.txt", "list_attr_celeba.csv"])
def test_both_lists_are_read(celeba: Path, name: str) -> None:
    data = read_images(celeba / "img_align_celeba", 16, celeba / name)
    assert list(data.columns) == list(CELEBA)
    np.testing.assert_array_equal(np.stack(list(data.columns.values()), axis=1), values())
    smiling = data.columns["Smiling"] > 0
    assert data.images[smiling, 7, 7].min() > 150 > data.images[~smiling, 7, 7].max()


def test_the_folder_around_the_pictures_is_taken_too(celeba: Path) -> None:
    """Kaggle's archive unpacks to img_align_celeba/img_align_celeba/."""
    inner, outer = (read_images(path, 16, celeba / "list_attr_celeba.csv") for path in (celeba / "img_align_celeba", celeba))
    np.testing.assert_array_equal(inner.images, outer.images)
    np.testing.assert_array_equal(inner.columns["Smiling"], outer.columns["Smiling"])


def test_the_centre_is_what_is_cropped(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (218, 178, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_images(tmp_path, 200, center_crop=148).images[0], picture[35:183, 15:163])
    assert read_images(tmp_path, 128, center_crop=148).images.shape == (1, 128, 128, 3)
    assert read_images(tmp_path, 512).images.shape == (1, 256, 256, 3)  # enlarged no more than the flow needs
    with pytest.raises(ValueError, match=r"a\.png is 178 × 218: too small for `center_crop` 200"):
        read_images(tmp_path, 64, center_crop=200)


def test_what_becomes_of_other_pictures_than_squares_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, size in (("a", (10, 50)), ("b", (128, 128)), ("c", (20, 20))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    read_images(tmp_path, 128)
    assert caplog.messages == [
        f"not square: 1 of 3 pictures, first {tmp_path / 'a.png'} (10 × 50); the central square of each is used",
        f"smaller than 64 × 64: 2 of 3 pictures, first {tmp_path / 'a.png'} (10 × 50); they are enlarged, which adds nothing",
    ]
    caplog.clear()
    read_images(tmp_path, 20, center_crop=10)
    assert caplog.messages == []


def test_pictures_lie_as_they_are_looked_at(tmp_path: Path) -> None:
    picture = Image.new("RGB", (20, 20))
    picture.paste((255, 255, 255), (0, 0, 20, 10))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down, says the camera
    picture.save(tmp_path / "a.png", exif=exif)
    image = read_images(tmp_path, 20).images[0]
    assert image[:10].max() == 0
    assert image[10:].min() == 255


def test_many_pictures_lie_in_a_file(celeba: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = read_images(celeba, 16)
    monkeypatch.setattr(reading, "IN_MEMORY", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    paged = read_images(celeba, 16)
    assert isinstance(paged.images, np.memmap)
    np.testing.assert_array_equal(paged.images, held.images)
    assert not list(tmp_path.iterdir())  # it has no name
    rows = np.array([3, 5])
    batches = TrainingImages(paged.images, None, 16, NO_AUGMENTATION, rows)
    assert torch.equal(batches(torch.arange(2), torch.Generator()), torch.from_numpy(held.images[rows]).permute(0, 3, 1, 2))
    assert np.shares_memory(batches.images.numpy(), paged.images)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("usage", (), {"free": 10}))
    with pytest.raises(ValueError, match="set TMPDIR"):
        read_images(celeba, 16)


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("40\n", "41\n", "announces 41 images and has 40 rows"),
        ("40\n", "", "is not CelebA's list of attributes"),
        ("000003.jpg", "000099.jpg", "1 of the 40 images in .* not in the folder, 000099.jpg among them"),
        ("000003.jpg", "000002.jpg", "two rows for 000002.jpg"),
        ("000001.jpg -1", "000001.jpg", "line 3, has 40 entries for 41 columns"),
        ("000001.jpg -1", "000001.jpg  2", "5_o_Clock_Shadow is '2' somewhere"),
        ("000001.jpg -1", "000001.jpg  0", "5_o_Clock_Shadow is '0 beside -1'"),
        ("000001.jpg -1", "000001.jpg yes", "5_o_Clock_Shadow is 'yes' somewhere"),
        ("000001.jpg -1", "000001.jpg nan", "5_o_Clock_Shadow is 'nan' somewhere"),
    ],
)
def test_damaged_lists_are_one_clear_line(celeba: Path, tmp_path: Path, old: str, new: str, words: str) -> None:
    (tmp_path / "list.txt").write_text((celeba / "list_attr_celeba.txt").read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=words) as raised:
        read_images(celeba, 16, tmp_path / "list.txt")
    assert "\n" not in str(raised.value)


def test_a_picture_without_a_row(celeba: Path, tmp_path: Path) -> None:
    path = write_txt(tmp_path / "list.txt", COUNT - 1)
    path.write_text(path.read_text().replace("40\n", "39\n", 1))
    with pytest.raises(ValueError, match=r"1 of 40 images have no row in .*000040\.jpg"):
        read_images(celeba, 16, path)


def test_zeros_and_ones_are_answers_too(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image_id,Smiling\nb.jpg,1\na.jpg,0\n")
    np.testing.assert_array_equal(read_labels(tmp_path / "list.csv", ["a.jpg", "b.jpg"], 2)["Smiling"], [0, 1])


@pytest.mark.parametrize(
    "text, words",
    [
        ("file,a,a\nx,1,2\n", "two columns 'a'"),
        ("file,a\nx\n", "line 2, has 1 entries"),
        ("a\n1\n2\n", "2 rows for 1"),
        ("", "0 rows"),
    ],
)
def test_damaged_tables(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_labels(tmp_path / "list.csv", ["x"], 1)


def test_wide_and_endless_tables_are_told_of_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list.csv"
    path.write_text(",".join(f"c{column}" for column in range(100_000)) + "\n")
    start = time.process_time()
    with pytest.raises(ValueError, match="0 rows for 1"):
        read_labels(path, ["x"], 1)
    assert time.process_time() - start < 3  # it was minutes
    monkeypatch.setattr("celebglow.fitting.labels.MOST_ENTRIES", 1000)
    path.write_text("file,a\n" + "x,1\n" * 501)
    with pytest.raises(ValueError, match="more than 1,000 entries"):
        read_labels(path, ["x"], 1)
    monkeypatch.setattr("harness.io.tables.LONGEST_LINE", 1000)
    for name in ("list.csv", "list.txt"):
        (tmp_path / name).write_text("1\nSmiling" + " " * 1001)
        with pytest.raises(ValueError, match="a line of more than 1,000 characters"):
            read_labels(tmp_path / name, ["x"], 1)
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match="is not a regular file"):
            read_labels(tmp_path / name, ["x"], 1)


# The commands


@pytest.mark.parametrize(
    "attributes, words",
    [
        (("smile=Smilling",), ("no column 'Smilling'", "did you mean 'Smiling'")),
        (("smile=Smiling", "smile=Male"), ("smile is given twice",)),
    ],
)
def test_wrong_attributes_are_said_before_pictures_are_read(
    celeba: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attributes: tuple[str, ...], words: tuple[str, ...]
) -> None:
    random_glow(resolution=8).save_pretrained(tmp_path / "flow")
    monkeypatch.setattr(reading, "_decode", lambda *arguments: pytest.fail("it decoded pictures first"))
    options = [option for attribute in attributes for option in ("--attribute", attribute)]
    labels = ("--labels", celeba / "list_attr_celeba.txt", "--out", tmp_path / "out")
    assert_one_clear_line(invoke("flow", "directions", tmp_path / "flow", celeba, *labels, *options), 2, *words)
    balance = ("--attributes", celeba / "list_attr_celeba.txt", "--balance", "Mail", "--out", tmp_path / "out")
    assert_one_clear_line(invoke("flow", "train", celeba, *balance), 2, "did you mean 'Male'")


def test_the_crop_of_an_array_file_is_another_option(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
    result = invoke("flow", "train", tmp_path / "a.npz", "--center-crop", 4, "--out", tmp_path / "out")
    assert_one_clear_line(result, 2, "--center-crop is for folders of pictures")


def test_celeba_as_downloaded_by_the_documented_commands(celeba: Path, tmp_path: Path, ood_data: CommandLine) -> None:
    pictures, flow = ("img_align_celeba/", "--center-crop", 148), tmp_path / "flow"
    trained = ood_data(
        *("flow", "train", *pictures, "--attributes", "list_attr_celeba.txt", "--balance", "Male", "--out", flow),
        *("--resolution", 8, "--flow-steps", "1,1", "--widths", 4, "--steps", 3, "--device", "cpu"),
        cwd=celeba,
    )
    assert trained.returncode == 0, trained.stderr
    found = ood_data(
        *("flow", "directions", flow / "flow", *pictures, "--labels", "list_attr_celeba.txt", "--out", tmp_path / "walkable"),
        *("--attribute", "smile=Smiling", "--attribute", "Male", "--shrink", 0, "--as-fitted", "--device", "cpu"),
        cwd=celeba,
    )
    assert found.returncode == 0, found.stderr
    assert "smile: separates held-out images" in found.stdout
    made = ood_data("generate", "celebglow", "--flow", tmp_path / "walkable", "--persons", 2, "--levels", 2, "--out", tmp_path)
    assert made.returncode == 0, made.stderr
    assert Store(tmp_path, "celebglow").images.shape == (8, 8, 8, 3)
