"""The protocol of a run as plain data, without torch, and a hash of everything that determines the result."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.models.lookup import code_hash

if TYPE_CHECKING:
    from harness.data.dataset import Dataset
    from harness.models.registry import Model

Precision = Literal["auto", "fp32", "bf16"]
Preset = Literal["quick", "full"]
PRESETS_OF_BEFORE: dict[str, Preset] = {"paper": "full"}


@dataclass(frozen=True)
class Training:
    """Training of the network, by Adam without decay. 200,000 steps of 64 images or pairs at 1e-4 are the default of an adaptation of the
    paper's supplementary code (soft_tpr) for un- and weakly supervised models, and ours for supervised ones."""

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
    keep_state: bool = True  # of the optimizer, so that a run of more steps continues from a finished one


@dataclass(frozen=True)
class Readout:
    """How the MLP that regresses factors from a representation's latents is trained; its budget is our reconstruction."""

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
OF_NO_CONSEQUENCE = {"train": ("log_every", "checkpoint_seconds", "keep_state")}


def fingerprint(config: Config, model: Model, images: dict[str, Any]) -> str:
    """8 hex digits of the config, the versions of the protocol, the dataset's images (see `images_of`) and a user's model's code."""
    data = config.to_dict()
    for section, names in OF_NO_CONSEQUENCE.items():
        for name in names:
            del data[section][name]
    # Runs of before there were versions are of version 1, had no later option, and called the preset `full` otherwise.
    if config.preset == "full":
        data["preset"] = "paper"
    data["model"] = {
        name: value for name, value in data["model"].items() if name not in model.later or value != model.options[name]
    }
    versions = {"model": model.protocol, "score": scoring_protocol(config, images)}
    data |= {"protocol": later} if (later := {name: version for name, version in versions.items() if version > 1}) else {}
    return _hash([data, images, code_hash(model.code)])[:8]


def lineage(config: Config, model: Model, images: dict[str, Any]) -> str:
    """The hash of all that determines a training but its seed and its length: what the longer of two continues from the shorter."""
    data = config.to_dict()
    training = {name: value for name, value in data["train"].items() if name not in ("steps", *OF_NO_CONSEQUENCE["train"])}
    return _hash([data["model"], training, model.protocol, images, code_hash(model.code)])


def scoring_protocol(config: Config, images: dict[str, Any]) -> int:
    """The version of what is scored and how: 2 where a sample is, the same for all seeds, where each drew its own in 1; 1 where all is."""
    return 2 if 0 < config.score.samples < images["images"] else 1


def _hash(data: list[Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def images_of(data: Dataset) -> dict[str, Any]:
    """What a dataset's images are, wherever they lie: how many, their grid and splits, what they were made from."""
    return {"images": len(data), "spec": data.store.spec, "source": data.store.source}
