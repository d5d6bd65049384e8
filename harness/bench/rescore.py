"""Error maps of runs that were finished before there were any, from their weights. Their scores stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

import harness
from harness.io.locks import owned
from harness.models import find
from harness.runs import networks
from harness.runs.config import fingerprint, images_of
from harness.runs.evaluate import evaluate
from harness.runs.execution import Meter, phases
from harness.runs.maps import MAPS
from harness.runs.records import CONFIG, SCORES, RunScores, RunSetup
from harness.runs.run import LOCK
from splits.errors import InputError, NumericalError

# How far the mean R² on test may lie from what is in scores.json: another processor rounds in another order, which moved it by less
# than 1e-4; other weights move it by far more.
TOLERANCE = 1e-3


def rescore(
    folder: Path,
    data: Path,
    device: torch.device,
    trust_code: bool = False,
    progress: Callable[[float], None] = lambda part: None,
) -> Path:
    """Write the error maps of a finished run; returns their file.

    Args:
        folder: of the run.
        data: folder of the stores.
        device: where to compute.
        trust_code: run the code of a user's model.
        progress: called often, with the part that is done, 0 to 1.

    Raises:
        FileNotFoundError: if the run is not finished, or the dataset not in `data`.
        ValueError: if the images in `data` are not those that it was trained on, or the network can't be loaded.
        ArithmeticError: if the weights do not score what scores.json says.
        BlockingIOError: if another process owns the folder.
    """
    network = networks.load(folder, trust_code).to(device)
    scores, setup = RunScores.read(folder / SCORES), RunSetup.read(folder / CONFIG)
    dataset = harness.open(setup.dataset, data)
    if fingerprint(setup.config, find(setup.model), images_of(dataset)) != scores.fingerprint:
        raise InputError(
            f"{folder} is not of the {setup.dataset} in {data}, or not of today's protocol: the same images, splits and version are expected"
        )
    split = dataset.split(setup.kind)
    meter = Meter({"score": phases(setup.config, False, split.counts)["score"]}, progress)
    with owned(folder / LOCK, busy=f"{folder} is being written by another process") as owner:
        found = evaluate(network, dataset, split, setup.config, device, lambda done: meter("score", done))
        mean = found.test.errors().r2.mean
        if mean is None or scores.r2.mean is None or abs(mean - scores.r2.mean) > TOLERANCE * max(1, abs(scores.r2.mean)):
            raise NumericalError(
                f"{folder}: its weights score R² {mean}, and its scores.json says {scores.r2.mean}: nothing is written"
            )
        found.maps.write(folder / MAPS, owner.write)
    return folder / MAPS
