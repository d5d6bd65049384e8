"""Finished runs that nothing was trained for: their answers are a function of the truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import splits
from harness.runs.maps import MAPS, SIDES, RunMaps
from harness.runs.records import SCORES, Protocol, RunScores, Seconds
from harness.scoring.baselines import baselines
from harness.scoring.maps import ErrorMaps, half, kept_cells, kept_values
from harness.scoring.scores import Scorer, sample

Answer = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def write_run(
    runs: Path, dataset: str, kind: splits.Kind, model: str, answer: Answer, fingerprint: str = "0123abcd", seed: int = 0
) -> Path:
    """The folder of a run, in `runs`, whose network answers `answer(targets)` (n, F), scored on 1,000 samples of each side."""
    spec = splits.load_spec(dataset)
    split = spec.split(kind)
    scorers, sides = {}, {}
    for side in SIDES:
        scorer, maps = Scorer(split), ErrorMaps(split.grid)
        chosen = sample(split.test if side == "test" else split.train, 1000, 0)
        answers = answer(split.grid.targets(chosen))
        scorer.update(chosen, answers)
        maps.update(chosen, answers)
        scorers[side], sides[side] = scorer, maps.finished()
    test = scorers["test"]
    errors = test.errors()
    kept = kept_values(split)
    cells = kept_cells(split.grid, kept)
    folder = runs / dataset / kind / model / f"{seed}-{fingerprint}"
    folder.mkdir(parents=True)
    sampling = test.sampling_error(split.counts.test)
    RunMaps(spec, kind, sides, kept, half(answer(split.grid.targets(cells))), sampling).write(folder / MAPS)
    lines = [{"phase": "train", "step": step, "loss": 1 / step, "seconds": 1.0} for step in range(100, 1000, 100)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    RunScores(
        dataset=dataset,
        kind=kind,
        model=model,
        seed=seed,
        fingerprint=fingerprint,
        preset="full",
        protocol=Protocol(model=1, score=2),
        steps=900,
        n_test=errors.n,
        r2=errors.r2,
        r2_sklearn=errors.r2_sklearn,
        mse=errors.mse,
        train=scorers["train"].errors(),
        reference=baselines(split),
        **dict(test.groups()),
        seconds=Seconds(train=1.0, score=1.0),
        images_per_second=1.0,
        device="cpu",
    ).write(folder / SCORES)
    return folder


def named(scores: RunScores, name: str) -> RunScores:
    """Scores whose model, and whose factor "shape", have another name: one that no reader of scores would take."""
    factors = {name if factor == "shape" else factor: value for factor, value in scores.r2.factors.items()}
    numbers = scores.r2.model_copy(update={"factors": factors})
    reference = {key: each.model_copy(update={"factors": factors}) for key, each in scores.reference.items()}
    change = {"r2": numbers, "r2_sklearn": numbers, "mse": numbers, "train": scores.train.model_copy(update={"r2": numbers})}
    return scores.model_copy(update=change | {"model": name, "reference": reference})
