"""Training a flow and finding its directions, on images made here."""

# mypy: allow-untyped-calls

from __future__ import annotations

import csv
import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from celebglow.directions import Directions, Label, area_under_curve, fit_directions
from celebglow.fitting.augmentation import TrainingImages
from celebglow.fitting.config import NO_AUGMENTATION, Augmentation, TrainingConfig
from celebglow.fitting.images import MESH_POINTS, LabelledImages, read_images
from celebglow.fitting.trainer import Trainer, learning_rate
from celebglow.glow import Glow
from celebglow.pipeline import CelebGlowPipeline
from cli import main
from harness.data.store import Store
from helpers.commands import CommandLine
from helpers.flows import random_glow
from helpers.hostile import npy_header, npz, peak_of, png, zeros

CPU = torch.device("cpu")
CONFIG = TrainingConfig(
    flow={"resolution": 8, "steps": (2, 2), "widths": 8, "quantize": False}, steps=12, batch=8, warmup=4, held_out=0.2
)


def faces(count: int = 60, side: int = 16, seed: int = 0) -> LabelledImages:
    """Discs of a random size and brightness on a grey ground: two labels that a flow can learn; two pictures a person."""
    rng = np.random.default_rng(seed)
    radius, bright = rng.uniform(3, 7, count), rng.uniform(80, 250, count)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    inside = np.hypot(x, y)[None] < radius[:, None, None]
    images = np.where(inside, bright[:, None, None], 40) + rng.normal(0, 4, (count, side, side))
    pictures = np.repeat(images.clip(0, 255).astype(np.uint8)[..., None], 3, axis=3)
    people = np.array([f"p{i // 2}" for i in range(count)])
    return LabelledImages(pictures, {"radius": radius, "bright": bright, "person": people, "group": people}, None)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    data = faces()
    np.savez(tmp_path / "faces.npz", images=data.images, **data.columns)  # type: ignore[arg-type]
    return tmp_path / "faces.npz"


def train(out: Path, stop_after: int | None = None) -> Trainer:
    trainer = Trainer(faces(), CONFIG, out, CPU)
    if stop_after is None:
        trainer.run(log_every=6, progress=False)
    else:
        while trainer.step < stop_after:
            trainer._train_step()
            trainer.step += 1
        trainer._save()
    return trainer


def test_a_resumed_training_repeats_an_unbroken_one(tmp_path: Path) -> None:
    train(tmp_path / "one")
    train(tmp_path / "two", stop_after=5)
    train(tmp_path / "two")
    one, two = (Glow.from_pretrained(tmp_path / run / "flow", low_cpu_mem_usage=False).state_dict() for run in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert (tmp_path / "one/flow/config.json").exists()


def test_ctrl_c_saves_the_step_that_it_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(faces(), CONFIG, tmp_path / "two", CPU, save_every=1000)
    step = trainer._train_step

    def press() -> torch.Tensor:
        if trainer.step == 4:
            signal.raise_signal(signal.SIGINT)
        return step()

    monkeypatch.setattr(trainer, "_train_step", press)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer.run(log_every=2, progress=False)
    finally:
        signal.signal(signal.SIGINT, handler)
    resumed = train(tmp_path / "two")
    assert resumed.step == 12
    assert Trainer(faces(), CONFIG, tmp_path / "two", CPU).step == 12
    train(tmp_path / "one")
    one, two = (Glow.from_pretrained(tmp_path / run / "flow", low_cpu_mem_usage=False).state_dict() for run in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    log = [json.loads(line)["step"] for line in (tmp_path / "two/log.jsonl").read_text().splitlines()]
    assert log == [2, 4, 6, 12]


@pytest.mark.parametrize("log_bytes", [True, False])
def test_the_log_goes_on_where_the_checkpoint_was(tmp_path: Path, log_bytes: bool) -> None:
    """Also where a version before saved it, which didn't say how long the log was."""
    trainer = Trainer(faces(), CONFIG, tmp_path, CPU)
    line = '{{"step": {}}}\n'
    (tmp_path / "log.jsonl").write_text(line.format(3) + line.format(6))
    trainer.step = 6
    trainer._save()
    if not log_bytes:
        saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
        del saved["log_bytes"]
        torch.save(saved, tmp_path / "checkpoint.pt")
    with (tmp_path / "log.jsonl").open("a") as log:
        log.write(line.format(9) + line.format(12)[:5])
    assert Trainer(faces(), CONFIG, tmp_path, CPU).step == 6
    assert (tmp_path / "log.jsonl").read_text() == line.format(3) + line.format(6)


def test_a_log_without_a_checkpoint_begins_again(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 6}\n')
    Trainer(faces(), CONFIG, tmp_path, CPU)
    assert (tmp_path / "log.jsonl").read_text() == ""


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x80\x02cos\nsystem\n(S'touch CANARY'\ntR."])
def test_a_checkpoint_that_is_none_is_named(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"can't continue from .*checkpoint.pt, delete it to start again"):
        Trainer(faces(), CONFIG, tmp_path, CPU)
    assert not (tmp_path / "CANARY").exists()


def test_another_config_is_not_continued(tmp_path: Path) -> None:
    train(tmp_path, stop_after=1)
    with pytest.raises(ValueError, match="seed is 0 there, 1 here"):
        Trainer(faces(), replace(CONFIG, seed=1), tmp_path, CPU)
    assert Trainer(faces(), replace(CONFIG, steps=50), tmp_path, CPU).step == 1  # longer is fine


def test_training_learns(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=120, batch=32, flow=CONFIG.flow | {"steps": (3, 3), "widths": 16})
    Trainer(faces(200), config, tmp_path, CPU).run(log_every=30, progress=False)
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["bits_per_dim"] < log[0]["bits_per_dim"] - 0.3
    assert log[-1]["held_out"] < log[0]["held_out"]


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    trainer = train(tmp_path, stop_after=2)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with torch.no_grad():
        trainer.flow.levels[0].steps[0].actnorm.bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="lower `lr`"):
        trainer.run(log_every=1, progress=False)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_learning_rate_rises_stays_and_falls() -> None:
    config = TrainingConfig(steps=100, warmup=10, decay=0.5, lr=1.0)
    assert learning_rate(config, 0) == pytest.approx(0.1)
    assert learning_rate(config, 30) == 1.0
    assert learning_rate(config, 75) == pytest.approx(0.5)
    assert learning_rate(config, 99) == pytest.approx(0.02)


def test_people_stay_together_when_held_out() -> None:
    data = faces()
    held_out = data.held_out(0.3, seed=0)
    assert set(data.columns["person"][held_out]).isdisjoint(data.columns["person"][~held_out])
    assert 0.2 < held_out.mean() < 0.4


def test_balanced_weights() -> None:
    data = LabelledImages(np.zeros((5, 2, 2, 3), np.uint8), {"source": np.array(["a", "a", "a", "a", "b"])})
    np.testing.assert_allclose(data.balanced_weights(None), 0.2)
    np.testing.assert_allclose(data.balanced_weights("source"), np.array([1 / 2, 1 / 2, 1 / 2, 1 / 2, 1]) / 3)
    with pytest.raises(ValueError, match="no column 'sauce'"):
        data.balanced_weights("sauce")


def test_plain_batches_are_the_images() -> None:
    data = faces(6, side=8)
    batch = TrainingImages(data.images, None, 8, NO_AUGMENTATION)(torch.arange(6), torch.Generator())
    assert torch.equal(batch, torch.from_numpy(data.images).permute(0, 3, 1, 2))


def test_augmented_batches_depend_on_the_generator_only() -> None:
    rng = np.random.default_rng(0)
    data = faces(20, side=32)
    landmarks = rng.uniform(4, 28, (20, MESH_POINTS, 2)).astype(np.float32)
    batches = TrainingImages(data.images, landmarks, 16, Augmentation())
    indices = torch.arange(8)
    one = batches(indices, torch.Generator().manual_seed(1))
    assert one.shape == (8, 3, 16, 16)
    assert torch.equal(one, batches(indices, torch.Generator().manual_seed(1)))
    assert not torch.equal(one, batches(indices, torch.Generator().manual_seed(2)))


def test_mixing_replaces_the_face_and_keeps_the_rest() -> None:
    """Both faces have the same landmarks, so mixing pastes the other's interior, recoloured, and leaves the border alone."""
    side = 64
    angles = np.linspace(0, 2 * np.pi, MESH_POINTS)
    points = np.stack([32 + 18 * np.sin(7 * angles), 36 - 22 * np.cos(7 * angles)], axis=1)
    one = np.full((side, side, 3), 90, np.uint8)
    one[::2] = 130
    two = np.full((side, side, 3), 90, np.uint8)
    two[:, ::2] = 130
    batches = TrainingImages(
        np.stack([one, two]), np.stack([points, points]).astype(np.float32), side, replace(NO_AUGMENTATION, mix=1.0)
    )
    grid = batches._grid(1, torch.Generator())
    pictures = torch.from_numpy(one)[None].permute(0, 3, 1, 2).float()
    mixed = batches._mix(pictures, grid, torch.tensor([0]), torch.tensor([1]))[0, 0].numpy()
    np.testing.assert_allclose(mixed[:4], one[:4, :, 0], atol=1)  # far from the face
    centre = mixed[38:46, 26:38]
    assert np.ptp(centre.mean(axis=0)) > 20 > np.ptp(centre.mean(axis=1))  # the other's stripes


def test_folders_are_read_in_order_and_cropped(tmp_path: Path) -> None:
    for name, size in (("b.png", (30, 20)), ("a.jpg", (20, 20))):
        Image.new("RGB", size, (200, 0, 0)).save(tmp_path / name)
    assert read_images(tmp_path, 16).images.shape == (2, 16, 16, 3)
    (tmp_path / "c.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"c\.png is not a readable image"):
        read_images(tmp_path, 16)


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"pictures": np.zeros(3)}, "no array 'images'"),
        ({"images": np.zeros((2, 8, 8, 3))}, "must be uint8"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "age": np.zeros(3)}, "age must have one row per image"),
    ],
)
def test_archives_that_are_not_images(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=words):
        read_images(tmp_path / "x.npz", 8)


def test_columns_are_looked_at_before_they_are_unpacked(tmp_path: Path) -> None:
    images = [npy_header((2, 8, 8, 3)), bytes(384)]
    for column, words in (
        ([npy_header((2**27,)), *zeros(2**27)], "column must have one row per image"),
        ([npy_header((2,), "<U9999999")], "truncated or damaged"),
        ([npy_header((2,), "<U10000"), *zeros(80_000)], "'column' is longer than"),
        ([npy_header((2,), "|O")], "Python objects"),
    ):
        path = npz(tmp_path / "x.npz", {"images": images, "column": column})
        with pytest.raises(ValueError, match=words):
            read_images(path, 8)
        assert peak_of(read_images, path, 8) < 2**24
    marks = [npy_header((2, MESH_POINTS, 2), "<U1"), *zeros(2 * MESH_POINTS * 8)]
    landmarks = npz(tmp_path / "x.npz", {"images": images, "landmarks": marks})
    with pytest.raises(ValueError, match="'landmarks' must be numbers"):
        read_images(landmarks, 8)


def test_arrays_are_read_in_whatever_order_they_are_stored(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    marks = np.random.default_rng(0).random((3, MESH_POINTS, 2))
    np.savez(
        tmp_path / "x.npz",
        name=["a", "bc", ""],
        images=np.asfortranarray(images),
        other=np.zeros((3, 2)),
        age=[1, 2, 3],
        landmarks=marks,
    )
    data = read_images(tmp_path / "x.npz", 8)
    np.testing.assert_array_equal(data.images, images)
    assert {name: column.tolist() for name, column in data.columns.items()} == {"name": ["a", "bc", ""], "age": [1, 2, 3]}
    np.testing.assert_array_equal(data.landmarks, marks.astype(np.float32))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_what_no_picture_should_be_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png(13_000, 13_000))
    with pytest.raises(ValueError, match=r"b\.png is 13000 × 13000; pictures of at most 67,108,864 pixels"):
        read_images(tmp_path, 8)
    (tmp_path / "b.png").unlink()
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(ValueError, match=r"b\.png is not a regular file"):
        read_images(tmp_path, 8)


# Directions


def synthetic_latents(count: int = 400, seed: int = 0) -> tuple[torch.Tensor, np.ndarray, dict[str, np.ndarray]]:
    """Latents z = labels @ effects + noise, with labels that correlate as in real data."""
    rng = np.random.default_rng(seed)
    male = rng.integers(0, 2, count).astype(float)
    old = (rng.random(count) < 0.2 + 0.6 * male).astype(float)
    effects = rng.normal(0, 1, (2, 30))
    latents = np.stack([2 * old - 1, 2 * male - 1], axis=1) @ effects + rng.normal(0, 0.5, (count, 30))
    return torch.from_numpy(latents).float(), effects, {"old": old, "male": male}


def test_regression_finds_a_direction_free_of_its_confounder() -> None:
    latents, effects, labels = synthetic_latents()
    old, male = (Label.of(name, labels[name]) for name in ("old", "male"))
    controlled = fit_directions(lambda: latents.split(64), [old], [male], shrink=0).directions.table[0].numpy()
    alone = fit_directions(lambda: latents.split(64), [old], shrink=0).directions.table[0].numpy()
    np.testing.assert_allclose(controlled, effects[0], atol=0.2)
    assert np.abs(controlled - effects[0]).max() < 0.5 * np.abs(alone - effects[0]).max()


def test_directions_do_not_depend_on_the_batches() -> None:
    latents, _, labels = synthetic_latents()
    old = Label.of("old", labels["old"])
    one, many = (fit_directions(partial(latents.split, n), [old]).directions.table for n in (400, 7))
    torch.testing.assert_close(one, many, atol=1e-6, rtol=1e-5)


def test_missing_labels_and_held_out_images() -> None:
    latents, effects, labels = synthetic_latents(800)
    old = labels["old"].copy()
    old[::3] = np.nan
    held_out = np.arange(800) % 5 == 0
    fit = fit_directions(lambda: latents.split(100), [Label.of("old", old)], [Label.of("male", labels["male"])], held_out, shrink=0)
    np.testing.assert_allclose(fit.directions.table[0].numpy(), effects[0], atol=0.3)
    assert fit.separation["old"] > 0.9
    poisoned = latents.clone()
    poisoned[held_out] = 1e6  # held-out images take no part in the fit
    again = fit_directions(
        lambda: poisoned.split(100), [Label.of("old", old)], [Label.of("male", labels["male"])], held_out, shrink=0
    )
    torch.testing.assert_close(again.directions.table, fit.directions.table)


def test_shrinking_leaves_noise_out() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 300).astype(float)
    latents = rng.normal(0, 1, (300, 500))
    latents[:, :5] += 2 * (2 * label - 1)[:, None]
    fit = fit_directions(lambda: torch.from_numpy(latents).float().split(50), [Label.of("a", label)], shrink=2.0)
    table = fit.directions.table[0].numpy()
    assert (table[:5] > 1.5).all()
    assert (table[5:] == 0).mean() > 0.9


def test_labels_that_determine_each_other() -> None:
    latents, _, labels = synthetic_latents()
    with pytest.raises(ValueError, match="determine each other"):
        fit_directions(lambda: latents.split(64), [Label.of("old", labels["old"])], [Label.of("young", 1 - labels["old"])])


def test_labels_are_scaled_to_their_ends() -> None:
    np.testing.assert_array_equal(Label.of("a", np.array([0.0, 1.0, np.nan])).values, [-1, 1, np.nan])
    scaled = Label.of("a", np.arange(101.0)).values
    np.testing.assert_allclose(scaled[[10, 50, 90]], [-1, 0, 1])
    with pytest.raises(ValueError, match="two different values"):
        Label.of("a", np.array([1.0, 1.0]))


def test_area_under_curve() -> None:
    labels = np.array([1.0, 1.0, -1.0, -1.0, np.nan])
    assert area_under_curve(np.array([4.0, 3.0, 2.0, 1.0, 9.0]), labels) == 1.0
    assert area_under_curve(np.array([4.0, 1.0, 2.0, 3.0, 9.0]), labels) == 0.5
    assert area_under_curve(np.array([1.0, 1.0, 1.0, 1.0, 9.0]), labels) == 0.5
    assert np.isnan(area_under_curve(np.ones(5), np.ones(5)))


def test_uncentered_directions_add_to_the_latent() -> None:
    directions = Directions(("a",), 4, centered=False)
    directions.table.copy_(torch.tensor([[1.0, 0, 0, 2.0]]))
    base = directions.base(torch.ones(1, 4))[0]
    torch.testing.assert_close(directions.walk(base, torch.tensor([[0.5]])), torch.tensor([[1.5, 1, 1, 2.0]]))


# The commands


def test_from_images_to_faces_by_the_documented_commands(tmp_path: Path, ood_data: CommandLine, archive: Path) -> None:
    out = tmp_path / "mine"
    trained = ood_data(
        *("flow", "train", archive, "--out", out, "--resolution", 8, "--flow-steps", "2,2", "--widths", 8),
        *("--steps", 30, "--batch", 8, "--mix", 0, "--device", "cpu"),
    )
    assert trained.returncode == 0, trained.stderr
    assert (out / "samples.png").exists()
    info = json.loads(ood_data("flow", "info", out / "flow", "--json").stdout)
    assert (info["resolution"], info["attributes"]) == (8, [])
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "big", "fold"])
        for index, radius in enumerate(np.load(archive)["radius"]):
            writer.writerow([index, "" if 4 < radius < 6 else int(radius >= 6), "judge" if index % 4 == 0 else "fit"])
    found = ood_data(
        *(
            "flow",
            "directions",
            out / "flow",
            archive,
            "--labels",
            tmp_path / "labels.csv",
            "--attribute",
            "big",
            "--attribute",
            "light=bright",
        ),
        *("--strength", "big=1.5", "--fit-on", "fold=fit", "--out", tmp_path / "walkable"),
    )
    assert found.returncode == 0, found.stderr
    assert "big: separates held-out images" in found.stdout
    generated = ood_data("generate", "celebglow", "--flow", tmp_path / "walkable", "--out", tmp_path, "--persons", 2, "--levels", 3)
    assert generated.returncode == 0, generated.stderr
    assert Store(tmp_path, "celebglow").images.shape == (2 * 9, 8, 8, 3)
    assert "big, light" in ood_data("flow", "info", tmp_path / "walkable").stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("--attribute", "radios"), "no column 'radios'"),
        (("--attribute", "who=person"), "holds text"),
        (("--attribute", "seed=radius"), "cannot be called 'seed'"),
        (("--attribute", "radius", "--strength", "bright=2"), "--strength names 'bright', which --attribute does not"),
        (("--attribute", "radius", "--strength", "radius=much"), "a number is expected"),
        (("--attribute", "radius", "--fit-on", "person=nobody"), "no image is left"),
    ],
)
def test_directions_that_cannot_be_found(tmp_path: Path, archive: Path, arguments: tuple[str, ...], words: str) -> None:
    random_glow(resolution=8).save_pretrained(tmp_path / "flow")
    command = ["flow", "directions", str(tmp_path / "flow"), str(archive), "--out", str(tmp_path / "walkable"), *arguments]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert not (tmp_path / "walkable").exists()


def test_the_bundled_flow_is_what_its_card_says() -> None:
    pipeline = CelebGlowPipeline.from_pretrained("bundled")
    info = pipeline.info()
    assert info["attributes"] == ["smile", "blond", "age"]
    assert info["resolution"] == 64
    image = np.asarray(pipeline(person=7).images[0])
    assert 20 < image.std() < 110  # neither grey nor noise


@pytest.mark.parametrize(
    "people, held_out, words",
    [
        (None, 0.05, "pictures found: 1; at least 2 are needed, one to train on and one to hold out"),
        (["a"], 0.05, "people found: 1; at least 2 are needed"),
        (["a", "b"], 0.9, "people found: 2; none of them is left to train on: lower `held_out`"),
    ],
)
def test_too_few_to_train_on_are_counted(tmp_path: Path, people: list[str] | None, held_out: float, words: str) -> None:
    found = faces(count=len(people or [""]))
    data = replace(found, columns={} if people is None else {"person": np.array(people)})
    with pytest.raises(ValueError, match=words):
        Trainer(data, replace(CONFIG, held_out=held_out), tmp_path / "out", CPU)
    assert not (tmp_path / "out").exists()
