"""Scores against the definition in plain numpy, scikit-learn, and what trivial predictors are known to get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

import harness
import splits
from harness.scoring.baselines import BASELINES, baselines
from harness.scoring.baselines import predictions as predictions_of
from harness.scoring.r2 import grid_variance
from harness.scoring.sampling import sample
from harness.scoring.scores import Scorer
from helpers.small import blocks_spec
from splits.errors import InputError

SPEC = blocks_spec()
# The mean R² of train-mean, ood-to-mean and clip on the paper's splits, worked out independently.
KNOWN = {
    ("dsprites", "extrapolation"): (-0.388, 0.111, 0.873),
    ("dsprites", "interpolation"): (0.016, 0.746, 0.964),
    ("dsprites", "composition"): (-0.134, 1, 1),
    ("shapes3d", "extrapolation"): (-0.302, 0.225, 0.916),
    ("shapes3d", "interpolation"): (0.029, 0.822, 0.968),
    ("shapes3d", "composition"): (-0.053, 1, 1),
    ("mpi3d", "extrapolation"): (-0.302, 0.313, 0.782),
    ("mpi3d", "interpolation"): (0.073, 0.960, 0.784),
    ("mpi3d", "composition"): (-0.171, 1, 1),
    ("celebglow", "extrapolation"): (-0.546, -0.127, 0.695),
    ("celebglow", "interpolation"): (0.036, 0.726, 0.878),
    ("celebglow", "composition"): (-0.126, 1, 1),
}


def nearest_seen(truth: np.ndarray, train: np.ndarray) -> np.ndarray:
    seen = truth[train > 0]
    nearest: np.ndarray = seen[np.abs(truth[:, None] - seen).argmin(axis=1)]
    return nearest


def noisy(split: splits.Split, indices: np.ndarray, seed: int = 0) -> np.ndarray:
    return split.grid.targets(indices) + np.random.default_rng(seed).normal(0, 0.2, (len(indices), len(split.grid.sizes)))


def scored(split: splits.Split, indices: np.ndarray, predictions: np.ndarray, batch: int = 7) -> Scorer:
    scorer = Scorer(split)
    for start in range(0, len(indices), batch):
        scorer.update(indices[start : start + batch], predictions[start : start + batch])
    return scorer


@pytest.mark.parametrize("sizes", [(2, 3, 40), (6,), (1000,)])
def test_the_variance_is_that_of_the_enumerated_grid(sizes: tuple[int, ...]) -> None:
    grid = splits.FactorGrid(tuple(splits.Factor(str(axis), size) for axis, size in enumerate(sizes)))
    np.testing.assert_allclose(grid_variance(grid), grid.targets(np.arange(len(grid))).var(axis=0), rtol=1e-12)


@pytest.mark.parametrize("kind", splits.KINDS)
def test_streamed_scores_are_the_definition(kind: str) -> None:
    split = SPEC.split(kind)
    indices = split.test
    predictions, targets = noisy(split, indices), split.grid.targets(indices)
    errors = scored(split, indices, predictions).errors()
    variance = split.grid.targets(np.arange(len(split.grid))).var(axis=0)
    mse = ((predictions - targets) ** 2).mean(axis=0)
    assert list(errors.r2.factors.values()) == pytest.approx(1 - mse / variance, rel=1e-12)
    assert errors.r2.mean == pytest.approx((1 - mse / variance).mean(), rel=1e-12)
    assert errors.r2.mean_excl_categorical == pytest.approx((1 - mse / variance)[1:].mean(), rel=1e-12)
    assert list(errors.mse.factors.values()) == pytest.approx(mse, rel=1e-12)
    ours = list(errors.r2_sklearn.factors.values())
    assert ours == pytest.approx(r2_score(targets, predictions, multioutput="raw_values"), rel=1e-9)


def test_where_a_target_is_constant_sklearn_is_followed_too() -> None:
    split = SPEC.split("extrapolation")
    indices = split.test[:1].repeat(2)
    truth = split.grid.targets(indices)
    perfect, wrong = scored(split, indices, truth).errors(), scored(split, indices, truth + 0.1).errors()
    assert (perfect.r2_sklearn.mean, wrong.r2_sklearn.mean) == (1, 0)


def test_of_one_sample_sklearn_says_nothing() -> None:
    split = SPEC.split("extrapolation")
    errors = scored(split, split.test[:1], split.grid.targets(split.test[:1])).errors()
    assert errors.r2.mean == 1
    assert errors.r2_sklearn.to_dict() == {
        "mean": None,
        "mean_excl_categorical": None,
        "factors": dict.fromkeys(split.grid.names),
    }


def test_groups_against_a_loop_over_samples() -> None:
    split = SPEC.split("extrapolation")
    indices = split.test
    predictions = noisy(split, indices)
    groups = scored(split, indices, predictions).groups().to_dict()
    variance = grid_variance(split.grid)
    held_out = split.held_out_count[indices]
    squares = (predictions - split.grid.targets(indices)) ** 2

    for count, group in groups["by_held_out_count"].items():
        chosen = held_out == int(count)
        assert group == {"n": chosen.sum(), "r2": pytest.approx((1 - squares[chosen].mean(axis=0) / variance).mean())}
    assert sum(group["n"] for group in groups["by_held_out_count"].values()) == len(indices)

    assert list(groups["modularity"]) == ["brightness", "x-position", "y-position"]
    for axis, name in list(enumerate(split.grid.names))[1:]:
        r2 = 1 - squares[np.isin(indices, split.only(name))].mean(axis=0) / variance
        assert groups["modularity"][name] == pytest.approx({"ood": r2[axis], "id": np.delete(r2, axis).mean()})

    for entry in groups["by_distance"]:
        axis = split.grid.axis(entry["factor"])
        chosen = split.steps(entry["factor"])[split.grid.factors(indices)[:, axis]] == entry["steps"]
        assert (entry["n"], entry["mse"]) == (chosen.sum(), pytest.approx(squares[chosen, axis].mean()))
    json.dumps(groups)  # plain numbers


@pytest.mark.parametrize("kind", ["random", "composition"])
def test_no_groups_where_a_held_out_value_does_not_make_a_sample_test(kind: str) -> None:
    split = SPEC.split(kind)
    groups = scored(split, split.test, noisy(split, split.test)).groups()
    assert groups.to_dict() == {"modularity": None, "by_held_out_count": {}, "by_distance": []}


@pytest.mark.parametrize("dataset, kind", KNOWN)
def test_baselines_are_those_that_are_known(dataset: str, kind: str) -> None:
    found = baselines(splits.load(dataset, kind))
    assert [found[name].mean for name in BASELINES] == pytest.approx(KNOWN[dataset, kind], abs=5e-4)


@pytest.mark.parametrize("kind", splits.KINDS)
def test_baselines_are_what_their_predictions_score(kind: str) -> None:
    split = SPEC.split(kind)
    indices, grid = split.test, split.grid
    targets, train = grid.targets(indices), grid.targets(split.train)
    seen = [np.unique(column) for column in train.T]
    mean = np.broadcast_to(train.mean(axis=0), targets.shape)
    known = np.stack([np.isin(column, values) for column, values in zip(targets.T, seen, strict=True)], axis=1)
    nearest = [values[np.abs(column[:, None] - values).argmin(axis=1)] for column, values in zip(targets.T, seen, strict=True)]
    predictions = {"train_mean": mean, "ood_to_mean": np.where(known, targets, mean), "clip": np.stack(nearest, axis=1)}
    found = baselines(split)
    for name in BASELINES:
        scorer = scored(split, indices, predictions[name])
        assert found[name].factors == pytest.approx(scorer.errors().r2.factors)
        by_distance = {(error.factor, error.steps): error.mse for error in scorer.groups().by_distance}
        ours = {(error.factor, error.steps): error.mse for error in found[name].by_distance}
        assert ours == pytest.approx(by_distance, abs=1e-12)


def test_a_factor_of_one_value_counts_in_no_mean() -> None:
    spec = splits.derive_spec("one", [splits.Factor("a", 1), splits.Factor("b", 5), splits.Factor("c", 5)], 0.2)
    split = spec.split("extrapolation")
    errors = scored(split, split.test, split.grid.targets(split.test) + np.array([7, 0, 0])).errors()
    one = {"mean": 1, "mean_excl_categorical": 1, "factors": {"a": None, "b": 1, "c": 1}}
    assert (errors.r2.to_dict(), errors.r2_sklearn.to_dict()) == (one, one)
    assert errors.mse.to_dict() == {"mean": 0, "mean_excl_categorical": 0, "factors": {"a": None, "b": 0, "c": 0}}
    assert baselines(split)["clip"].factors["a"] is None


def test_a_sample_is_drawn_by_its_seed() -> None:
    indices = np.arange(100, 1000)
    drawn = sample(indices, 50, 0)
    assert len(np.unique(drawn)) == 50
    assert (np.diff(drawn) > 0).all()
    assert set(drawn) <= set(indices)
    assert np.array_equal(drawn, sample(indices, 50, 0))
    assert not np.array_equal(drawn, sample(indices, 50, 1))
    assert sample(indices, None, 0) is indices
    assert sample(indices, 900, 0) is indices


def test_what_is_wrong_with_predictions_is_said() -> None:
    split = SPEC.split("random")
    with pytest.raises(
        ValueError, match=r"shape \(2, 4\) are expected \(shape, brightness, x-position, y-position\), got \(2, 3\)"
    ):
        Scorer(split).update(split.test[:2], np.zeros((2, 3)))
    with pytest.raises(FloatingPointError, match=f"not finite, first for sample {split.test[1]}"):
        Scorer(split).update(split.test[:2], np.array([[0, 0, 0, 0], [0, np.nan, 0, 0]]))
    with pytest.raises(FloatingPointError, match=f"beyond ±1e\\+70, first for sample {split.test[0]}"):
        Scorer(split).update(split.test[:1], np.array([[0, -1e200, 0, 0]]))
    with pytest.raises(ValueError, match="no sample"):
        Scorer(split).errors()


def test_score_shows_each_test_image_once_and_nothing_of_train(blocks_root: Path) -> None:
    data = harness.open("blocks", blocks_root)
    split = data.split("extrapolation")
    everything = torch.from_numpy(np.asarray(data.images)).permute(0, 3, 1, 2) / 255
    shown = []

    def predict(images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.float32
        matches = (images[:, None] == everything[None]).flatten(2).all(2)
        indices = matches.float().argmax(1)
        shown.append(indices.numpy())
        return torch.from_numpy(split.grid.targets(indices.numpy()))

    scores = harness.score(predict, data, split, batch_size=33)
    assert np.array_equal(np.concatenate(shown), split.test)
    assert scores["r2"]["mean"] == 1
    assert scores["n_test"] == len(split.test)
    assert list(scores) == [
        "n_test", "r2", "r2_sklearn", "mse", "reference", "modularity", "by_held_out_count", "by_distance",
    ]  # fmt: skip


def test_score_takes_numpy_and_a_sample(blocks_root: Path) -> None:
    data = harness.open("blocks", blocks_root)
    split = data.split("random")
    scores = harness.score(lambda images: np.full((len(images), 4), 0.5), data, split, limit=20)
    assert scores["n_test"] == 20
    assert harness.score(lambda images: np.full((len(images), 4), 0.5), data, "random", limit=20) == scores
    with pytest.raises(ValueError, match="a split such as"):
        harness.score(lambda images: images, data, split.test)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="but blocks has"):
        harness.score(lambda images: images, data, splits.load("dsprites", "random"))


def test_clip_is_the_nearest_value_of_train_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    for size in [2, 3, 6, 40, 1000, *rng.integers(2, 60, 100)]:
        truth, train = np.arange(size) / max(size - 1, 1), rng.integers(0, 2, size)
        train[rng.integers(size)] = 1
        np.testing.assert_array_equal(predictions_of(truth, train)["clip"], nearest_seen(truth, train))
    assert predictions_of(np.arange(10**6) / 10**6, np.arange(10**6) % 2)["clip"].shape == (10**6,)  # by no square of them


def test_images_are_scored_some_at_a_time_to_the_same_bits(blocks_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = harness.open("blocks", blocks_root)
    split = data.split("extrapolation")
    held: list[int] = []

    def predict(images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images.mean(dim=(1, 2, 3)) * len(images), *images.std(dim=(1, 2, 3)).expand(3, -1)], dim=1)

    at_once = harness.score(predict, data, split, batch_size=7)
    batches = data.batches

    def counted(part: np.ndarray, *args: Any, **options: Any) -> Any:
        held.append(len(part))
        return batches(part, *args, **options)

    monkeypatch.setattr(data, "batches", counted)
    monkeypatch.setattr("harness.scoring.scores.IMAGES_HELD", 20 * 64 * 64)
    assert harness.score(predict, data, split, batch_size=7) == at_once
    assert len(held) > 1
    assert set(held[:-1]) == {14}
    assert sum(held) == len(split.test)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        harness.score(predict, data, split, batch_size=0)


def test_what_is_wrong_with_a_call_is_said(blocks_root: Path) -> None:
    data = harness.open("blocks", blocks_root)
    ready = np.zeros((len(data.split("random").test), 4))

    def pair(images: torch.Tensor) -> Any:
        return torch.zeros(len(images), 4), torch.zeros(len(images), 2)

    calls: list[tuple[Any, dict[str, Any], str]] = [
        (ready, {"limit": -1}, "limit: a number of samples, at least 1, is expected, or None for all, got -1"),
        (ready, {"limit": 0}, "limit: a number of samples, at least 1"),
        (ready, {"limit": 2.5}, "limit: a number of samples, at least 1"),
        (ready, {"limit": 5, "seed": -1}, "seed: a whole number of at least 0 is expected, got -1"),
        (pair, {}, r"are expected \(shape, .*\), got a tuple that is no array of numbers"),
        (lambda images: {"x": images}, {}, "got a dict that is no array of numbers"),
        ([[0.0, 1.0], [0.0]], {}, "a function of images is expected, or predictions .* not a list that numpy makes no array of"),
        (lambda images: images, {"device": "gpu"}, "device 'gpu' is not usable here"),
    ]
    if not torch.cuda.is_available():
        calls.append((lambda images: images, {"device": "cuda"}, "device 'cuda' is not usable here .* set `device` to cpu"))
    for predict, options, words in calls:
        with pytest.raises(InputError, match=words):
            harness.score(predict, data, "random", **options)


def test_ready_predictions_are_scored_as_those_of_a_function(blocks_root: Path) -> None:
    data = harness.open("blocks", blocks_root)
    split = data.split("extrapolation")
    ready = noisy(split, split.test)
    expected = harness.score(lambda images: ready, data, split, batch_size=len(ready))
    assert harness.score(ready, data, split) == expected
    assert harness.score(torch.from_numpy(ready), data, "extrapolation") == expected
    some = harness.score(ready, data, split, limit=20)
    part = sample(split.test, 20, 0)
    assert some["n_test"] == 20
    assert some["r2"] == scored(split, part, ready[np.isin(split.test, part)]).errors().to_dict()["r2"]
    with pytest.raises(ValueError, match=r"or predictions \(\d+, \d\) in the order of split.test, not float64 \(3, 2\)"):
        harness.score(np.zeros((3, 2)), data, split)


def test_a_module_is_scored_in_eval_mode(blocks_root: Path) -> None:
    data = harness.open("blocks", blocks_root)
    factors = len(data.factor_names)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(factors), torch.nn.Dropout(0.5)).train()
    network(torch.zeros(1, *torch.from_numpy(data[:1][0]).permute(0, 3, 1, 2).shape[1:]))
    network[0].eval()
    assert harness.score(network, data, "random") == harness.score(network, data, "random")
    assert [part.training for part in network.modules()] == [True, False, True, True]  # as they were
