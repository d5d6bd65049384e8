"""Finished runs that nothing was trained for: their answers are a function of the truth."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

import splits
from harness.formats.dsprites import render_bits
from harness.runs.config import Config, Training
from harness.runs.maps import MAPS, SIDES, RunMaps
from harness.runs.records import CONFIG, SCORES, Protocol, RunScores, RunSetup, Seconds
from harness.scoring.baselines import baselines
from harness.scoring.maps import ErrorMaps, half, kept_cells, kept_values
from harness.scoring.sampling import sample
from harness.scoring.scores import Scorer

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


def write_network(folder: Path, options: dict[str, object] | None = None, normalize: Literal["none", "train"] = "none") -> None:
    """The config and the weights of a run of dSprites in `folder`, of `write_run`: drawn so that all of them matter to the answers."""
    import safetensors.torch

    from harness.models import find
    from harness.runs.networks import WEIGHTS
    from harness.runs.trainer import normalized

    scores = RunScores.read(folder / SCORES)
    model = find(scores.model)
    resolved = model.resolve(options or {})
    torch.manual_seed(0)
    network = model.build(1, len(scores.r2.factors), **resolved)
    if normalize == "train":
        network = normalized(network, [0.04], [0.2])
    lively(network)
    images = torch.from_numpy(pictures(np.random.default_rng(0).integers(0, len(splits.load_spec("dsprites").grid), 64)))
    last = [
        module
        for module in network.modules()
        if isinstance(module, torch.nn.Linear) and module.out_features == len(scores.r2.factors)
    ][-1]
    with torch.no_grad():  # the answers as far apart as the truth is
        network.train()(images)  # a batch norm learns its statistics
        answers = network.eval()(images)
        last.weight.mul_((0.3 / answers.std(dim=0))[:, None])
        last.bias.mul_(0.3 / answers.std(dim=0))
        last.bias.add_(0.5 - network(images).mean(dim=0))
    safetensors.torch.save_file(
        {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}, folder / WEIGHTS
    )
    config = Config(preset="full", model=resolved, train=Training(normalize=normalize))
    run = {name: getattr(scores, name) for name in ("dataset", "kind", "model", "seed", "protocol", "device")}
    RunSetup(**run, images=737_280, image_shape=(64, 64, 1), source={}, config=config, code="", versions={}).write(folder / CONFIG)


def lively(network: torch.nn.Module) -> None:
    """Draw weights anew by which signals neither fade nor grow (He et al., 2015), and biases; a spatial transformer turns a little."""
    from torch import nn

    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("localisation.") and parameter.shape[0] == 6:
                parameter.add_(0.05 * torch.randn_like(parameter))
            elif parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, nonlinearity="relu")
            else:
                parameter.normal_(0, 0.1)


def pictures(cells: NDArray[np.int64]) -> NDArray[np.float32]:
    """(B, 1, 64, 64): the pictures of cells of dSprites."""
    poses = splits.load_spec("dsprites").grid.factors(cells)
    bits = [render_bits(*pose)[tuple(place)] for pose, place in zip(poses[:, :3].tolist(), poses[:, 3:].tolist(), strict=True)]
    return np.unpackbits(np.stack(bits), axis=2)[:, None].astype(np.float32)


def named(scores: RunScores, name: str) -> RunScores:
    """Scores whose model, and whose factor "shape", have another name: one that no reader of scores would take."""
    factors = {name if factor == "shape" else factor: value for factor, value in scores.r2.factors.items()}
    numbers = scores.r2.model_copy(update={"factors": factors})
    reference = {key: each.model_copy(update={"factors": factors}) for key, each in scores.reference.items()}
    change = {"r2": numbers, "r2_sklearn": numbers, "mse": numbers, "train": scores.train.model_copy(update={"r2": numbers})}
    return scores.model_copy(update=change | {"model": name, "reference": reference})
