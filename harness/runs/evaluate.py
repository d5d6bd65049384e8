"""What a trained network scores on both sides of its split, and where it errs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from harness.runs.config import Config
from harness.runs.maps import SIDES, RunMaps
from harness.scoring.maps import ErrorMaps, half, kept_cells, kept_values
from harness.scoring.scores import Scorer, answers, scored
from splits import Split

if TYPE_CHECKING:
    from harness.data.dataset import Dataset

SAMPLE_SEED = 0  # of the images that are scored: the same for all runs, which are compared


@dataclass(frozen=True)
class Evaluation:
    """The scores of both sides, and the error maps."""

    test: Scorer
    train: Scorer
    maps: RunMaps


def evaluate(
    network: nn.Module, data: Dataset, split: Split, config: Config, device: torch.device, progress: Callable[[int], None]
) -> Evaluation:
    """Score a network, which is put into eval mode; `progress` is called with how many batches are done."""
    network.eval()
    settings, batches = config.score, 0

    def predict(images: torch.Tensor) -> torch.Tensor:
        nonlocal batches
        progress(batches)
        batches += 1
        outputs: torch.Tensor = network(images)
        return outputs

    maps = {side: ErrorMaps(split.grid) for side in SIDES}
    scorers = {
        side: scored(predict, data, split, side, settings.samples or None, SAMPLE_SEED, settings.batch, device, maps[side])
        for side in SIDES
    }
    kept = kept_values(split)
    cells = kept_cells(split.grid, kept)
    answered = np.concatenate([each for _, each in answers(predict, data, cells, settings.batch, device)])
    finished = {side: maps[side].finished() for side in SIDES}
    sampling = scorers["test"].sampling_error(split.counts.test)
    return Evaluation(scorers["test"], scorers["train"], RunMaps(data.spec, split.kind, finished, kept, half(answered), sampling))
