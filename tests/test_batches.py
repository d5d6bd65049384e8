"""Feeding: the right images with the right targets, whatever the place and the way; pairs that never leave train."""

from __future__ import annotations

import itertools
import os
import pickle
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
import splits
from harness.data import pixels as pixels_module
from harness.data.batches import to_float
from harness.data.dataset import Dataset
from harness.data.pairs import ChangedFactors, LaplaceSteps
from harness.data.pixels import Pixels, available_memory
from harness.formats.convert import convert
from harness.models import Representation, find
from helpers import official
from helpers.files import counting, no_file_above
from splits.grid import FactorKind

PLACES = ["memory", "mapped"]


@pytest.fixture(scope="module", params=[False, True], ids=["raw", "zstd"])
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """60 images in shards of 7; image i has i in its first byte."""
    folder = tmp_path_factory.mktemp("data")
    images = np.zeros((60, 8, 8, 3), np.uint8) if request.param else official.pictures()
    images[:, 0, 0, 0] = np.arange(60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.data.store.SHARD_BYTES", 7 * 8 * 8 * 3)
        convert(official.mpi3d_npz(folder / "real.npz", images), None, folder, official.small_spec(folder))
    opened = harness.open("toy", folder)
    assert opened.store.compressed == request.param
    return opened


def numbers(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def test_a_dataset_has_images_targets_and_splits(data: Dataset) -> None:
    assert len(data) == 60
    assert np.asarray(data.images[59])[0, 0, 0] == 59
    np.testing.assert_allclose(data.targets[59], [1, 1, 1])
    np.testing.assert_allclose(data.targets[7], [0, 1 / 3, 2 / 4])
    assert data.split("composition").counts == data.spec.split("composition").counts


def test_there_is_no_such_dataset(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no mpi3d in"):
        harness.open("mpi3d", tmp_path)


@pytest.mark.parametrize("place", PLACES)
def test_batches_are_the_images_and_their_targets(data: Dataset, place: str) -> None:
    train = data.split("extrapolation").train
    seen = []
    for images, targets in data.batches(train, 7, place=place):
        assert images.dtype == targets.dtype == torch.float32
        assert images.shape[1:] == (3, 8, 8)
        chosen = numbers(images)
        expected = torch.from_numpy(np.asarray(data.images)[chosen]).permute(0, 3, 1, 2).float() / 255
        assert torch.equal(images, expected)
        assert torch.equal(targets, torch.from_numpy(data.targets[chosen]))
        seen += chosen
    assert sorted(seen) == train.tolist()
    assert seen != train.tolist()  # shuffled


def test_batches_that_are_kept_stay_what_they_were(data: Dataset) -> None:
    """Memory is used again, but never under a tensor, or a view of one, that somebody still holds."""
    batches = data.batches(range(60), 4, shuffle=False)
    kept: list[torch.Tensor] = []
    views: list[np.ndarray] = []
    addresses: set[int] = set()
    for number, (images, _) in enumerate(batches):
        addresses.add(images.data_ptr())
        if number % 3:
            kept.append(images)
        else:
            views.append(images[1:, 0].numpy())
        del images
    assert [n for images in kept for n in numbers(images)] == [n for n in range(60) if (n // 4) % 3]
    assert [round(255 * float(v)) for view in views for v in view[:, 0, 0]] == [n for n in range(60) if (n // 4) % 3 == 0 and n % 4]
    assert len(addresses) == 15
    again = set()
    for images, _ in data.batches(range(60), 4):
        again.add(images.data_ptr())
    assert len(again) <= 3


def test_every_place_gives_the_same_batches(data: Dataset) -> None:
    train = data.split("random").train
    runs = [[numbers(images) for images, _ in data.batches(train, 5, seed=3, place=place)] for place in (*PLACES, "auto")]
    assert runs[0] == runs[1] == runs[2]


def test_order_is_a_matter_of_seed_and_epoch(data: Dataset) -> None:
    one, two = data.batches(range(60), 10, seed=1), data.batches(range(60), 10, seed=1)
    first, second = ([numbers(images) for images, _ in one] for _ in range(2))
    assert first != second
    assert [numbers(images) for images, _ in two] == first
    assert [numbers(images) for images, _ in data.batches(range(60), 10, seed=2)] != first
    in_order = torch.cat([images for images, _ in data.batches(range(60), 7, shuffle=False)])
    assert numbers(in_order) == list(range(60))
    steps = two.steps(start=4)
    assert [numbers(next(steps)[0]) for _ in range(4)] == [*first[4:], *second[:2]]  # where a killed training continues


@pytest.mark.parametrize("drop_last, sizes", [(False, [25, 25, 10]), (True, [25, 25])])
def test_the_last_batch(data: Dataset, drop_last: bool, sizes: list[int]) -> None:
    batches = data.batches(range(60), 25, drop_last=drop_last)
    assert [len(targets) for _, targets in batches] == sizes
    assert len(batches) == len(sizes)


def test_wrong_use_of_batches(data: Dataset) -> None:
    for wrong, words in (
        (lambda: data.batches([1, 2, 1]), "1 indices are repeats"),
        (lambda: data.batches([60]), "index 60 is out of range"),
        (lambda: data.batches([-1]), "index -1 is out of range"),
        (lambda: data.batches([0.5]), "whole numbers"),
        (lambda: data.batches([1], 0), "batch_size must be at least 1"),
        (lambda: data.batches([1], place="disk"), "unknown place 'disk'"),
        (lambda: next(data.batches([1], 2, drop_last=True).steps()), "make no batch"),
    ):
        with pytest.raises((ValueError, IndexError), match=words):
            wrong()


def test_the_place_is_chosen_by_the_available_memory(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 20 * 8 * 8 * 3
    for available, place in ((2 * needed, "memory"), (2 * needed - 2, "mapped")):
        monkeypatch.setattr(pixels_module, "available_memory", lambda available=available: available)
        assert Pixels(data.store, np.arange(20)).place == place


def test_available_memory_where_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no /proc."""
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.parts[1:2] != ("proc",) and exists(path))
    assert available_memory() > 2**20


def test_a_full_disk_is_an_error_not_a_crash(tmp_path: Path) -> None:
    """Bytes decoded into a map of a file without room for them would end the process."""
    convert(
        official.mpi3d_npz(tmp_path / "z.npz", np.zeros((60, 64, 64, 3), np.uint8)), None, tmp_path, official.small_spec(tmp_path)
    )
    opened = harness.open("toy", tmp_path)
    with no_file_above(100_000), pytest.raises(OSError, match="File too large"):
        opened.batches(range(60), place="mapped")


def test_images_that_were_not_opened_are_refused(data: Dataset) -> None:
    batches = data.batches(data.split("extrapolation").train, 4)
    with pytest.raises(IndexError, match="is not among those that were opened"):
        batches.images(data.split("extrapolation").test[:3])


HARMS: dict[str, Callable[[Path], object]] = {
    "is missing": Path.unlink,
    "has 0 bytes instead of": lambda path: os.truncate(path, 0),
    "bytes instead of": lambda path: os.truncate(path, path.stat().st_size - 1),
    "is damaged": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
    "(is damaged: it differs|bytes instead of)": lambda path: shutil.copy(path.with_name("c.4.0.0.0"), path),  # whole, but another
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("harm", HARMS)
def test_damaged_stores_are_not_fed(data: Dataset, tmp_path: Path, place: str, harm: str) -> None:
    """Whatever way they are fed: the shard is named before the first batch. Others can be fed."""
    root = tmp_path / "copy"
    shutil.copytree(data.store.paths.root, root)
    opened = harness.open("toy", root)
    shard = opened.store.shard(3)
    HARMS[harm](shard)
    with pytest.raises(OSError, match=rf"c\.3\.0\.0\.0 .*{harm}.*data verify toy"):
        opened.batches(range(60), place=place)
    with pytest.raises(OSError, match=r"c\.3\.0\.0\.0 "):
        opened.torch_dataset(range(60))
    with pytest.raises(OSError, match=r"c\.3\.0\.0\.0 "):
        opened.images[:]
    assert numbers(next(iter(opened.batches(range(14), 14, shuffle=False, place=place)))[0]) == list(range(14))


@pytest.mark.parametrize("place", PLACES)
def test_a_shard_is_hashed_once_for_all_that_feed_from_it(data: Dataset, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.data.shards.TICK", 0)
    monkeypatch.setattr("harness.data.shards._CHECKED", set())
    hashed: list[str] = []
    monkeypatch.setattr("harness.data.shards.hashlib.file_digest", counting(hashed))
    opened = harness.open("toy", data.store.paths.root)
    for _ in range(2):  # as training and scoring do, one after the other
        for _ in opened.batches(range(30), 7, place=place):
            pass
    assert len(hashed) == 5  # shards of 7
    opened.torch_dataset(range(60))
    assert len(hashed) == 9


def test_more_shards_than_file_descriptors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr("harness.data.store.SHARD_BYTES", 1)
    images = official.pictures()
    convert(official.mpi3d_npz(tmp_path / "real.npz", images), None, tmp_path, official.small_spec(tmp_path))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = harness.open("toy", tmp_path)
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, hard))
    try:
        pixels = Pixels(opened.store, np.arange(60), "mapped")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    np.testing.assert_array_equal(pixels.gather(np.arange(59, -1, -1)).numpy(), images[::-1])


def test_bytes_become_floats_as_everybodys() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    assert torch.equal(to_float(every).flatten(), torch.arange(256).float() / 255)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_the_device(data: Dataset) -> None:
    train = data.split("random").train
    on_device = data.batches(train, 5, device="cuda")
    assert on_device.pixels.place == "device"
    for (images, targets), (ours, our_targets) in zip(on_device, data.batches(train, 5), strict=True):
        assert images.is_cuda
        assert torch.equal(images.cpu(), ours)
        assert torch.equal(targets.cpu(), our_targets)


# The torch Dataset


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_data_loader_gets_the_same(data: Dataset, workers: int, context: str) -> None:
    if context == "spawn" and (workers == 0 or data.store.compressed):
        pytest.skip("spawned workers take seconds to start: once is enough")
    train = data.split("composition").train
    dataset = data.torch_dataset(train)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=7, num_workers=workers, multiprocessing_context=context if workers else None
    )
    images, targets = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert numbers(images) == train.tolist()
    assert torch.equal(targets, torch.from_numpy(data.targets[train]))
    assert len(dataset) == len(train)
    assert torch.equal(dataset[3][0], images[3])


def test_a_torch_dataset_pickles_small(data: Dataset) -> None:
    dataset = data.torch_dataset(range(60))
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 60 * 8 * 8 * 3
    assert torch.equal(pickle.loads(pickled)[5][0], dataset[5][0])


# Pairs

KINDS = ["extrapolation", "interpolation", "composition", "random"]


def samplers(split: splits.Split) -> list[ChangedFactors | LaplaceSteps]:
    return [ChangedFactors(split), ChangedFactors(split, k=-1), ChangedFactors(split, k=3), LaplaceSteps(split)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dataset", ["dsprites", "mpi3d", "celebglow"])
def test_pairs_never_leave_train(dataset: str, kind: str) -> None:
    split = splits.load(dataset, kind)
    for sampler in samplers(split):
        drawn = sampler.sample(2000, np.random.default_rng(0))
        assert drawn.shape == (2000, 2)
        assert drawn.dtype == np.int64
        assert not split.mask[drawn].any(), sampler


@st.composite
def small_splits(draw: st.DrawFn) -> splits.Split:
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    kinds = draw(st.lists(st.sampled_from(get_args(FactorKind)), min_size=len(sizes), max_size=len(sizes)))
    grid = splits.FactorGrid(tuple(splits.Factor(f"f{i}", s, k) for i, (s, k) in enumerate(zip(sizes, kinds, strict=True))))
    return splits.Split("toy", "random", grid, splits.RandomRule(draw(st.integers(0, len(grid) - 1)), draw(st.integers(0, 99))))


@settings(max_examples=60, deadline=None)
@given(split=small_splits(), seed=st.integers(0, 99))
def test_pairs_never_leave_train_whatever_the_split(split: splits.Split, seed: int) -> None:
    for sampler in (ChangedFactors(split), ChangedFactors(split, k=-1), LaplaceSteps(split, rate=0.5)):
        assert not split.mask[sampler.sample(50, np.random.default_rng(seed))].any()


@pytest.mark.parametrize("k", [1, 2, 7])
def test_k_factors_change(k: int) -> None:
    split = splits.load("mpi3d", "extrapolation")  # a product of values in train: any k is possible
    factors = split.grid.factors(ChangedFactors(split, k).sample(3000, np.random.default_rng(0)))
    assert ((factors[:, 0] != factors[:, 1]).sum(axis=1) == k).all()
    if k == 1:
        which = (factors[:, 0] != factors[:, 1]).mean(axis=0)
        np.testing.assert_allclose(which, 1 / 7, atol=0.03)


def test_a_random_number_of_factors_changes() -> None:
    split = splits.load("dsprites", "interpolation")
    factors = split.grid.factors(ChangedFactors(split, -1).sample(4000, np.random.default_rng(0)))
    counts = np.bincount((factors[:, 0] != factors[:, 1]).sum(axis=1), minlength=6) / 4000
    np.testing.assert_allclose(counts, [0, 0.25, 0.25, 0.25, 0.25, 0], atol=0.03)


def test_changed_values_are_uniform_over_the_others_in_train() -> None:
    split = splits.load("shapes3d", "interpolation")
    factors = split.grid.factors(ChangedFactors(split, 1).sample(60_000, np.random.default_rng(0)))
    moved = factors[(factors[:, 0, 0] == 5) & (factors[:, 1, 0] != 5), 1, 0]
    shares = np.bincount(moved, minlength=10) / len(moved)
    np.testing.assert_allclose(shares, [1 / 7, 1 / 7, 0, 1 / 7, 1 / 7, 0, 1 / 7, 0, 1 / 7, 1 / 7], atol=0.04)


def test_laplace_steps_have_the_stated_distribution() -> None:
    split = splits.load("mpi3d", "extrapolation")
    factors = split.grid.factors(LaplaceSteps(split).sample(100_000, np.random.default_rng(0)))
    for axis, factor in enumerate(split.grid):
        if factor.kind == "categorical":
            assert (factors[:, 0, axis] == factors[:, 1, axis]).all()
            continue
        values = np.setdiff1d(np.arange(factor.size), split.held_out.get(factor.name, ()))
        start = int(values[len(values) // 2])
        steps = factors[factors[:, 0, axis] == start, 1, axis]
        heights = np.exp(-np.abs(values - start) / np.log(factor.size))
        shares = np.bincount(steps, minlength=factor.size)[values] / len(steps)
        np.testing.assert_allclose(shares, heights / heights.sum(), atol=0.025)


def test_pairs_by_hand() -> None:
    """A grid of 2 x 3 whose train is cells 0, 1 and 5: from (0, 0) only (0, 1) can be reached."""
    grid = splits.FactorGrid((splits.Factor("a", 2), splits.Factor("b", 3)))
    split = splits.Split("toy", "random", grid, splits.RandomRule(3, 0))
    mask = np.array([0, 0, 1, 1, 1, 0], bool)
    split.__dict__["mask"] = mask
    drawn = ChangedFactors(split).sample(500, np.random.default_rng(0))
    assert {tuple(pair) for pair in drawn.tolist()} == {(0, 1), (1, 0), (5, 5)}


def test_pairs_of_images(data: Dataset) -> None:
    split = data.split("composition")
    batches = data.batches(split.train, 16, seed=4)
    sampler = LaplaceSteps(split)
    pairs = batches.pairs(sampler)
    seen = [next(pairs) for _ in range(3)]
    assert seen[0][0].shape == (16, 3, 8, 8)
    again = next(batches.pairs(sampler, start=2))
    assert torch.equal(again[0], seen[2][0])
    assert torch.equal(again[1], seen[2][1])
    drawn = sampler.sample(16, np.random.default_rng([4, 0]))
    assert [numbers(images) for images in seen[0]] == drawn.T.tolist()
    with pytest.raises(IndexError, match="not among those that were opened"):  # a sampler of another split is found out
        next(batches.pairs(LaplaceSteps(data.split("random"))))


def test_wrong_use_of_samplers() -> None:
    split = splits.load("mpi3d", "random")
    for wrong, words in ((lambda: ChangedFactors(split, 0), "k must be 1 to 7"), (lambda: LaplaceSteps(split, 0), "rate must be")):
        with pytest.raises(ValueError, match=words):
            wrong()
    grid = splits.FactorGrid((splits.Factor("a", 2),))
    with pytest.raises(ValueError, match="no train sample"):
        LaplaceSteps(splits.Split("toy", "random", grid, splits.RandomRule(2, 0)))


def test_a_step_may_be_made_to_change_something() -> None:
    """As SlowVAE's authors draw pairs; every image stays one of train's, and the other pairs stay as they were."""
    split = splits.load_spec("celebglow").split("random")
    either, always = (
        LaplaceSteps(split, unchanged=unchanged).sample(4000, np.random.default_rng(0)) for unchanged in (True, False)
    )
    same = either[:, 0] == either[:, 1]
    assert 0.33 < same.mean() < 0.41  # 37 % was measured outside
    alone = always[always[:, 0] == always[:, 1], 0]
    assert len(alone) < 0.02 * len(always)
    for image in alone:  # none of the 15 that differ in one of smile, blond and age is train
        neighbours = np.repeat(split.grid.factors([image]), 18, axis=0)
        for row, (axis, value) in enumerate(itertools.product((1, 2, 3), range(6))):
            neighbours[row, axis] = value
        assert (split.mask[split.grid.index(neighbours)] | (split.grid.index(neighbours) == image)).all()
    assert np.array_equal(either[~same], always[~same])
    assert not split.mask[always].any()
    for name in ("slowvae", "pcl"):
        network = find(name).build(1, 4, unchanged=False)
        assert isinstance(network, Representation)
        assert network.pairs(split) == LaplaceSteps(split, unchanged=False)


def test_an_image_without_a_neighbour_in_train_stays() -> None:
    """A grid of categorical factors alone has no steps at all."""
    spec = splits.derive_spec("faces", [splits.Factor("who", 4, "categorical"), splits.Factor("what", 3, "categorical")], 0.2)
    pairs = LaplaceSteps(spec.split("random"), unchanged=False).sample(50, np.random.default_rng(0))
    assert (pairs[:, 0] == pairs[:, 1]).all()
