"""The protocol of a run as plain data, and a hash of everything that determines the result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.models import Model
from harness.models.lookup import code_hash

if TYPE_CHECKING:
    from harness.data.dataset import Dataset

Precision = Literal["auto", "fp32", "bf16"]
Preset = Literal["quick", "paper"]


@dataclass(frozen=True)
class Training:
    """Of the network. Adam without decay; 200,000 steps of 64 images or pairs at 1e-4 are the paper's for un- and weakly supervised
    models, and our reconstruction for supervised ones."""

    steps: int = 200_000
    batch: int = 64  # images, or pairs of them
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    normalize: Literal["none", "train"] = "none"  # images by the mean and deviation per channel of the train images; ours
    precision: Precision = "fp32"  # auto: bf16 where the hardware has it
    compile: bool = False
    threads: int = 1  # CPU threads of a run; several runs go at once instead
    log_every: int = 100  # steps
    checkpoint_seconds: float = 5.0


@dataclass(frozen=True)
class Readout:
    """Of the MLP that regresses factors from a representation's latents; its budget is our reconstruction."""

    steps: int = 50_000
    batch: int = 64
    learning_rate: float = 1e-4


@dataclass(frozen=True)
class Scoring:
    samples: int = 0  # at most so many images of test and of train are scored, a seeded sample; 0: all of both
    batch: int = 256


@dataclass(frozen=True)
class Config:
    """Everything about a run but its dataset, kind, model and seed. `model` has the options of the model's builder."""

    preset: Preset
    model: dict[str, Any] = field(default_factory=dict)
    train: Training = field(default_factory=Training)
    readout: Readout = field(default_factory=Readout)
    score: Scoring = field(default_factory=Scoring)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data


# What does not change the result, and so not the hash.
OF_NO_CONSEQUENCE = {"train": ("log_every", "checkpoint_seconds")}


def fingerprint(config: Config, model: Model, images: dict[str, Any]) -> str:
    """8 hex digits of the config, the dataset's images (see `images_of`) and the code of a user's model."""
    data = config.to_dict()
    for section, names in OF_NO_CONSEQUENCE.items():
        for name in names:
            del data[section][name]
    return hashlib.sha256(json.dumps([data, images, code_hash(model.code)], sort_keys=True).encode()).hexdigest()[:8]


def images_of(data: Dataset) -> dict[str, Any]:
    """What a dataset's images are, wherever they lie: how many, their grid and splits, what they were made from."""
    return {"images": len(data), "spec": data.store.spec, "source": data.store.source}
