"""Error maps: they add up to the scores, the kept cells have both sides of the border, and runs of before get theirs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

import harness
import splits
from harness.bench.execute import execute
from harness.bench.plan import plan as plan_bench
from harness.runs import networks
from harness.runs.maps import MAPS, RunMaps
from harness.runs.presets import Settings
from harness.runs.records import RunScores
from harness.scoring import maps as scoring_maps
from harness.scoring.maps import MOST_KEPT, ErrorMaps, cells_of, groups_of, kept_cells, kept_values
from harness.scoring.scores import Scorer
from helpers.commands import CommandLine, assert_one_clear_line
from splits.errors import OodDataError

TINY = ("train.steps=3", "train.batch=16", "readout.steps=3", "train.precision=fp32")


@pytest.fixture(scope="module")
def run(blocks_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run."""
    plan = plan_bench(
        ["mlp"], blocks_root, tmp_path_factory.mktemp("runs"), kinds=["extrapolation"], settings=Settings(overrides=TINY)
    )
    (outcome,) = execute(plan.runs, torch.device("cpu"), jobs=1, progress=False)
    assert not outcome.error
    return outcome.run.folder


def test_maps_add_up_to_what_is_scored() -> None:
    split = splits.load("mpi3d", "extrapolation")
    rng = np.random.default_rng(0)
    indices = rng.choice(split.test, 9000, replace=False)
    predictions = split.grid.targets(indices) + rng.normal(0.1, 0.2, (len(indices), len(split.grid.sizes)))
    collected = ErrorMaps(split.grid)
    for first in range(0, len(indices), 500):
        collected.update(indices[first : first + 500], predictions[first : first + 500])
    finished = collected.finished()
    errors, values = predictions - split.grid.targets(indices), split.grid.factors(indices)
    first = 0
    for group in groups_of(split.grid):
        part = slice(first, first := first + cells_of(split.grid, group))
        assert finished.n[part].sum() == len(indices)
        total = (finished.rms[part].astype(float) ** 2 * finished.n[part, None]).sum(axis=0) / len(indices)
        assert total == pytest.approx((errors**2).mean(axis=0), rel=2e-3)
    # One cell of a pair by hand.
    group = groups_of(split.grid)[-1]
    start = first - cells_of(split.grid, group)
    place = (3, 37)
    here = (values[:, group[0]] == place[0]) & (values[:, group[1]] == place[1])
    cell = start + np.ravel_multi_index(place, [split.grid.sizes[axis] for axis in group])
    assert finished.n[cell] == here.sum() > 0
    assert finished.bias[cell].astype(float) == pytest.approx(errors[here].mean(axis=0), abs=1e-3)
    assert finished.rms[cell].astype(float) == pytest.approx(np.sqrt((errors[here] ** 2).mean(axis=0)), abs=1e-3)


def test_predictions_that_are_far_off_have_maps_too() -> None:
    grid = splits.load("celebglow", "random").grid
    collected = ErrorMaps(grid)
    collected.update(np.arange(3), np.full((3, 4), 1e60))
    assert np.isfinite(collected.finished().rms).all()


@pytest.mark.parametrize("dataset", splits.DATASETS)
@pytest.mark.parametrize("kind", splits.KINDS)
def test_the_kept_cells_have_both_sides_of_every_border(dataset: str, kind: str) -> None:
    split = splits.load(dataset, kind)
    kept = kept_values(split)
    cells = kept_cells(split.grid, kept)
    assert MOST_KEPT / 2 < len(cells) <= MOST_KEPT
    assert (np.diff(cells) > 0).all()
    for name, values in zip(split.grid.names, kept, strict=True):
        held_out = set(split.held_out.get(name, ()))
        assert tuple(sorted(set(values))) == values
        assert {0, split.grid[name].size - 1} <= set(values)
        if held_out:
            assert held_out & set(values)
            assert set(values) - held_out
            assert any((value in held_out) != (value + 1 in held_out) for value in values if value + 1 in values)
    assert {bool(test) for test in split.is_test(cells)} == {True, False}


def test_a_grid_of_many_factors_keeps_a_few_cells_and_small_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = [splits.Factor(f"f{number}", 2) for number in range(20)]
    split = splits.derive_spec("many", factors, 0.5).split("extrapolation")
    assert len(kept_cells(split.grid, kept_values(split))) == MOST_KEPT
    monkeypatch.setattr(scoring_maps, "MOST_NUMBERS", 3000)
    assert len(groups_of(split.grid)) < 20 + 190


def test_a_run_keeps_what_its_network_answers(run: Path, blocks_root: Path) -> None:
    maps = RunMaps.read(run / MAPS)
    data = harness.open("blocks", blocks_root)
    cells = kept_cells(data.spec.grid, maps.kept)
    images = torch.from_numpy(data[cells][0]).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        answers = networks.load(run)(images).numpy()
    assert maps.answers.astype(float) == pytest.approx(answers, abs=1e-3)
    scores = RunScores.read(run / "scores.json")
    assert maps.sides["test"].n[: data.spec.grid.sizes[0]].sum() == scores.n_test
    assert (maps.spec, maps.kind) == (data.spec, "extrapolation")


def test_a_run_of_before_gets_its_maps_and_keeps_its_scores(
    run: Path, blocks_root: Path, ood_data: CommandLine, tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / run.relative_to(run.parents[3])
    shutil.copytree(run, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / MAPS).unlink()
    done = ood_data("bench", "rescore", tmp_path / "runs", "--data", blocks_root, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"files": [str(folder / MAPS)], "had_maps": 0, "failed": {}}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert "error maps: 0 runs got them, 1 had them" in ood_data("bench", "rescore", folder, "--data", blocks_root).stdout


def test_other_weights_get_no_maps(run: Path, blocks_root: Path, ood_data: CommandLine, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    weights = safetensors.numpy.load_file(folder / "model.safetensors")
    safetensors.numpy.save_file({name: tensor + 1 for name, tensor in weights.items()}, folder / "model.safetensors")
    before = (folder / MAPS).read_bytes()
    failed = ood_data("bench", "rescore", folder, "--data", blocks_root, "--again")
    assert failed.returncode == 1
    assert "its weights score R²" in failed.stderr
    assert (folder / MAPS).read_bytes() == before
    assert_one_clear_line(ood_data("bench", "rescore", tmp_path / "nothing"), 2, "neither a finished run nor a folder of them")


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"kind": "composition", "spec": None},
        {"kept": [[0], [0]]},
        {"kept": [[0], [0], [0], [99]]},
        {"kind": "other"},
    ],
    ids=["format", "spec", "kept", "values", "kind"],
)
def test_a_strangers_maps_are_refused_in_a_line(run: Path, tmp_path: Path, change: dict[str, object]) -> None:
    tensors = safetensors.numpy.load_file(run / MAPS)
    with safetensors.safe_open(run / MAPS, "numpy") as file:
        about = json.loads(file.metadata()["maps"])
    safetensors.numpy.save_file(tensors, tmp_path / MAPS, {"maps": json.dumps(about | change)})
    with pytest.raises(OodDataError, match="bench rescore"):
        RunMaps.read(tmp_path / MAPS)


def test_damaged_maps_are_refused(run: Path, tmp_path: Path) -> None:
    content = (run / MAPS).read_bytes()
    for wrong in (b"", content[:-1], content.replace(b'"answers"', b'"replies"')):
        (tmp_path / MAPS).write_bytes(wrong)
        with pytest.raises(OodDataError, match="bench rescore"):
            RunMaps.read(tmp_path / MAPS)
    maps = RunMaps.read(run / MAPS)
    broken = maps.answers.copy()
    broken[0, 0] = np.nan
    replace(maps, answers=broken).write(tmp_path / MAPS)
    with pytest.raises(OodDataError, match="not finite"):
        RunMaps.read(tmp_path / MAPS)


def test_the_sampling_error_is_how_much_samples_differ() -> None:
    """Over 300 samples of 400 out of 2,000, the mean R² deviates by what each of them estimates."""
    split = splits.load("mpi3d", "extrapolation")
    rng = np.random.default_rng(0)
    population = rng.choice(split.test, 2000, replace=False)
    answers = split.grid.targets(population) + rng.normal(0, 0.3, (2000, len(split.grid.sizes))) * rng.random((2000, 1))
    means, errors = [], []
    for _ in range(300):
        chosen = rng.choice(2000, 400, replace=False)
        scorer = Scorer(split)
        scorer.update(population[chosen], answers[chosen])
        found, error = scorer.errors().r2, scorer.sampling_error(2000)
        means.append((found.mean, found.mean_excl_categorical, found.factors["x-axis"]))
        errors.append((error.mean, error.mean_excl_categorical, error.factors["x-axis"]))
        assert scorer.sampling_error(400).mean == 0
    assert np.mean(np.array(errors, dtype=float), axis=0) == pytest.approx(np.std(np.array(means, dtype=float), axis=0), rel=0.12)
