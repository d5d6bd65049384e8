"""Everyday calls on a dataset, as torch users write them."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, SubsetRandomSampler

import harness
import ood_data
from harness.data.dataset import Dataset
from helpers.small import NAME, blocks, blocks_spec
from splits import load_spec


@pytest.fixture
def data(blocks_root: Path) -> Dataset:
    return harness.open(NAME, blocks_root)


def test_a_store_is_opened_by_its_path(blocks_root: Path) -> None:
    for path in (blocks_root / f"{NAME}.zarr", f"{blocks_root}/{NAME}.zarr", f"{blocks_root}/{NAME}.zarr/"):
        opened = ood_data.open_dataset(path)
        assert (opened.name, len(opened)) == (NAME, 200)
    assert opened.factor_names == ("shape", "brightness", "x-position", "y-position")
    with pytest.raises(FileNotFoundError):
        ood_data.open_dataset(blocks_root / "absent.zarr")


def test_a_dataset_says_what_it_is(data: Dataset) -> None:
    sizes = "shape 2 × brightness 4 × x-position 5 × y-position 5"
    assert repr(data) == f"<blocks: 200 images of 64 × 64 × 1; {sizes}>"


def test_items_are_images_and_their_factors(data: Dataset) -> None:
    images, grid = blocks(blocks_spec().grid), blocks_spec().grid
    for index in (0, 7, np.int64(199), torch.tensor(3), -1):
        image, factors = data[index]
        assert image.shape == (64, 64, 1)
        assert (image.dtype, factors.dtype) == (np.dtype(np.uint8), np.dtype(np.int64))
        assert np.array_equal(image, images[int(index)])
        assert np.array_equal(factors, grid.factors(int(index) % 200))
    for several in (slice(195, None), [5, 3, 5], np.array([0, 199]), torch.tensor([2, 1]), slice(0, 0), [], np.array([])):
        found, factors = data[several]
        assert (found.dtype, factors.dtype) == (np.dtype(np.uint8), np.dtype(np.int64))
        numbers = np.arange(200)[np.asarray(several, dtype=np.int64) if not isinstance(several, slice) else several]
        assert np.array_equal(found, images[numbers])
        assert np.array_equal(factors, grid.factors(numbers))
    with pytest.raises(
        ood_data.OodDataError, match=r"a list is expected: data\[\[1, 2\]\] has several images, not data\[\(1, 2\)\]"
    ):
        data[1, 2]
    for wrong in (200, -201, [0, 200]):
        with pytest.raises(IndexError, match="blocks has 200 images") as caught:
            data[wrong]
        assert isinstance(caught.value, ood_data.OodDataError)
    for odd in (1.5, "0", [[0]]):
        with pytest.raises(ValueError, match="a whole number, a slice or a list"):
            data[odd]


def test_images_are_chosen_by_their_factors(data: Dataset) -> None:
    grid = blocks_spec().grid
    chosen = data.sel(shape="frame", x_position=slice(2, 5), brightness=[3, 0])
    factors = grid.factors(np.arange(200))
    expected = (factors[:, 0] == 1) & np.isin(factors[:, 2], (2, 3, 4)) & np.isin(factors[:, 1], (0, 3))
    assert np.array_equal(chosen, np.flatnonzero(expected))
    assert np.array_equal(data.sel(), np.arange(200))
    assert len(data.sel(x_position=[])) == 0
    assert len(load_spec("dsprites").grid.select(shape=["heart", "square"], scale=slice(-2, None))) == 2 * 2 * 40 * 32 * 32
    wrongs: list[tuple[dict[str, object], str]] = [
        ({"shap": 0}, "no factor 'shap'; did you mean 'shape'"),
        ({"shape": "fram"}, "shape has no value 'fram'; did you mean 'frame'"),
        ({"brightness": 4}, "brightness has the values 0 to 3, and not 4"),
        ({"brightness": 1.5}, "brightness has the values 0 to 3, and not 1.5"),
    ]
    for wrong, words in wrongs:
        with pytest.raises(ValueError, match=words):
            data.sel(**wrong)


def test_a_split_means_its_train_side(data: Dataset) -> None:
    split = data.split("extrapolation")
    assert np.array_equal(data.batches(split, 7).indices, split.train)
    assert len(data.torch_dataset(split)) == split.counts.train
    with pytest.raises(ValueError, match="the split is of a grid of"):
        data.batches(load_spec("mpi3d").split("random"))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_torch_offers_around_a_dataset_works(data: Dataset, workers: int) -> None:
    split = data.split("random")
    images = data.torch_dataset(split)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:20]
    expected = sorted(split.train[chosen.numpy()].tolist())

    def seen(loader: DataLoader[tuple[torch.Tensor, torch.Tensor]]) -> list[int]:
        targets = torch.cat([targets for _, targets in loader]).numpy()
        return sorted(int(np.abs(data.targets - target).sum(1).argmin()) for target in targets)

    assert seen(DataLoader(Subset(images, chosen), 8, num_workers=workers)) == expected  # type: ignore[arg-type]
    sampler = SubsetRandomSampler(chosen)  # type: ignore[arg-type]
    assert seen(DataLoader(images, 8, sampler=sampler, num_workers=workers)) == expected
    image, target = images[torch.tensor(3)]
    assert torch.equal(image, images[3][0])
    assert np.array_equal(target, data.targets[split.train[3]])
    loader = data.dataloader(split, 16, num_workers=workers, seed=1)
    assert seen(loader) == split.train.tolist()


@pytest.mark.parametrize("small", [2**20, 0])
def test_workers_give_what_the_store_has_in_the_order_of_the_seed(
    data: Dataset, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr("harness.data.batches.SMALL_BATCH", small)
    split = data.split("random")
    alone, workers = data.dataloader(split, 16, seed=1), data.dataloader(split, 16, num_workers=2, seed=1)
    assert len(alone) == len(workers) == -(-len(split.train) // 16)
    for _ in range(2):  # epochs
        batches = list(zip(alone, workers, strict=True))
        assert all(torch.equal(a, b) for pair in batches for a, b in zip(*pair, strict=True))
        found = torch.cat([targets for (_, targets), _ in batches]).numpy()
        indices = [int(np.abs(data.targets - target).sum(1).argmin()) for target in found]
        assert sorted(indices) == split.train.tolist() != indices
        assert all(images.is_contiguous() for (images, _), _ in batches)
        images = torch.cat([images for (images, _), _ in batches])
        assert torch.equal(images, torch.from_numpy(data[indices][0]).permute(0, 3, 1, 2) / 255)


def test_transforms_are_applied_to_each_item(data: Dataset) -> None:
    images = data.torch_dataset([3, 5], transform=lambda image: image * 2, target_transform=lambda target: int(target[0]))
    plain = data.torch_dataset([3, 5])
    assert torch.equal(images[1][0], plain[1][0] * 2)
    assert images[1][1] == int(plain[1][1][0])


def test_the_front_door_lists_what_it_has() -> None:
    """Its list is written by hand, as type checkers and editors read no code."""
    assert sorted(ood_data.__all__) == sorted(["__version__", *ood_data._PLACES])
    assert set(ood_data.__all__) <= set(dir(ood_data))
    typed = ast.parse(Path(ood_data.__file__).read_text()).body
    (block,) = (node for node in typed if isinstance(node, ast.If))
    imported = {alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == set(ood_data._PLACES)


def test_plans_take_paths_and_names_as_one_writes_them(blocks_root: Path, tmp_path: Path) -> None:
    settings = ood_data.Settings(overrides=("train.steps=2", "train.batch=8", "score.samples=20"))
    planned = ood_data.plan("mlp", str(blocks_root), str(tmp_path), datasets=NAME, kinds="random", settings=settings)
    (outcome,) = ood_data.execute(planned.runs, "cpu", progress=False)
    assert outcome.scores is not None
    assert outcome.run.folder.is_dir()
