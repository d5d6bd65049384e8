"""One run, model × dataset × kind × seed, and its folder: self-contained, idempotent, resumable, with one owner at a time.

``<out>/<dataset>/<kind>/<model>/<seed>-<hash of config, images and code>/`` holds config.json, log.jsonl, checkpoint.pt while it
trains, model.safetensors, and scores.json, written last and atomically: a folder without it is not done. Who runs it holds .lock.
"""

from __future__ import annotations

import contextlib
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors.torch
import torch
from torch import nn

import harness
from harness.io.atomic import write_atomically
from harness.io.locks import locked
from harness.machine import cores, device_name
from harness.models import Model, find
from harness.runs.config import Config, code_hash, fingerprint
from harness.runs.trainer import CHECKPOINT, Progress, State, Trainer, channels_last, normalized, seed_all
from harness.scoring.baselines import references
from harness.scoring.scores import scored
from splits import KINDS
from splits.errors import InputError, MissingError

if TYPE_CHECKING:
    from harness.data.dataset import Dataset

FORMAT = 1
REQUIRED = ("dataset", "kind", "model", "seed", "preset", "steps", "n_test", "r2", "train", "reference")  # of scores.json
SCORES, CONFIG, WEIGHTS, LOCK = "scores.json", "config.json", "model.safetensors", ".lock"
PACKAGES = ("ood-data", "torch", "numpy", "timm")


@dataclass(frozen=True)
class Run:
    """What is to be trained and scored.

    Attributes:
        data: folder of the stores.
        out: folder of the run folders.
        dataset, kind, model: by name.
        seed: of initialisation, batches and noise.
        config: the resolved protocol.
    """

    data: Path
    out: Path
    dataset: str
    kind: str
    model: str
    seed: int
    config: Config

    def __str__(self) -> str:
        return f"{self.dataset}, {self.kind}, {self.model}, seed {self.seed}"

    @cached_property
    def folder(self) -> Path:
        """Depends on everything that determines the result, and neither on where the data lies nor on the device."""
        data = harness.open(self.dataset, self.data)
        images = {"images": len(data), "spec": data.store.spec, "source": data.store.source}
        digest = fingerprint(self.config, find(self.model), images)
        return self.out / self.dataset / self.kind / self.model.replace(":", ".") / f"{self.seed}-{digest}"

    @property
    def state(self) -> str:
        """done, resumable or new."""
        if (self.folder / SCORES).exists():
            return "done"
        return "resumable" if (self.folder / CHECKPOINT).exists() else "new"

    @property
    def steps(self) -> int:
        """Training steps in all phases."""
        return self.config.train.steps + (self.config.readout.steps if find(self.model).family == "representation" else 0)

    @cached_property
    def phases(self) -> dict[str, int]:
        """Steps of each phase of training, and batches that are scored, each about a step's work."""
        config, counts = self.config, harness.open(self.dataset, self.data).split(self.kind).counts
        limit = config.score.samples or max(counts)
        score = sum(-(-min(count, limit) // config.score.batch) for count in counts)
        return {"train": config.train.steps, "readout": self.steps - config.train.steps, "score": score}

    def done(self, phase: str, step: int) -> float:
        """Which part of the run is done, 0 to 1, at that step of a phase."""
        before = sum(self.phases[name] for name in list(self.phases)[: list(self.phases).index(phase)])
        return min(1.0, (before + step) / max(1, sum(self.phases.values())))

    def execute(self, device: torch.device, progress: Progress = lambda phase, done, total: None) -> dict[str, Any]:
        """Train and score, unless that is done; returns what scores.json has.

        Raises:
            BlockingIOError: if another process owns the folder.
            FloatingPointError: if the training diverges.
            ValueError: if the model isn't one, or answers in another shape.
            WeightsMissing: if pretrained weights can't be had.
        """
        if self.state == "done":
            return read_scores(self.folder)
        if device.type == "cpu":
            torch.set_num_threads(self.config.train.threads or cores())
        data = harness.open(self.dataset, self.data)
        split = data.split(self.kind)
        seed_all(self.seed)
        network = _built(find(self.model), data.images.shape[1:], len(split.grid.sizes), self.config.model).to(device)
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / LOCK, busy=f"{self.folder} is being run by another process"):
            if self.state == "done":  # by another process, a moment ago
                return read_scores(self.folder)
            write_atomically(self.folder / CONFIG, json.dumps(self._describe(data, device), indent=1).encode())
            trainer = Trainer(network, data, split, self.config, self.seed, self.folder, device, progress)
            state = trainer.run()
            # Copies, as safetensors takes no two names for the same memory, which is what tied weights are.
            state_dict = trainer.network.state_dict()
            tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state_dict.items()}
            write_atomically(self.folder / WEIGHTS, safetensors.torch.save(tensors))
            scores = self._score(trainer, state, device, progress)
            write_atomically(self.folder / SCORES, json.dumps(scores, indent=1, allow_nan=False).encode())
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
        return scores

    def _score(self, trainer: Trainer, state: State, device: torch.device, progress: Progress) -> dict[str, Any]:
        network = trainer.network.eval()
        start, scored_batches = time.monotonic(), 0

        def predict(images: torch.Tensor) -> torch.Tensor:
            nonlocal scored_batches
            progress("score", scored_batches, self.phases["score"])
            scored_batches += 1
            outputs: torch.Tensor = network(images)
            return outputs

        settings = self.config.score
        test, train = (
            scored(predict, trainer.data, trainer.split, side, settings.samples or None, self.seed, settings.batch, device)
            for side in ("test", "train")
        )
        errors, train_errors = test.errors(), train.errors()
        return {
            "format": FORMAT,
            "dataset": self.dataset,
            "kind": self.kind,
            "model": self.model,
            "seed": self.seed,
            "preset": self.config.preset,
            "steps": self.config.train.steps,
            "n_test": errors.pop("n"),
            **errors,
            "train": train_errors,
            "reference": references(trainer.split),
            **test.groups(),
            "seconds": {"train": round(state.seconds, 2), "score": round(time.monotonic() - start, 2)},
            "images_per_second": round(state.images / max(state.seconds, 1e-9), 1),
            "device": device_name(device),
        }

    def _describe(self, data: Dataset, device: torch.device) -> dict[str, Any]:
        """config.json."""
        versions = {"python": platform.python_version()}
        for package in PACKAGES:
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[package] = metadata.version(package)
        return {
            "dataset": self.dataset,
            "kind": self.kind,
            "model": self.model,
            "seed": self.seed,
            "images": len(data),
            "image_shape": list(data.images.shape[1:]),
            "source": data.store.source,
            "config": self.config.to_dict(),
            "code": code_hash(find(self.model)),
            "versions": versions,
            "device": device_name(device),
        }


def load(folder: str | Path) -> nn.Module:
    """The trained network of a finished run, in eval mode on the CPU: (B, C, R, R) float32 in [0, 1] → (B, F) in [0, 1].

    Raises:
        FileNotFoundError: if the run isn't finished.
        ValueError: if a model of the user's own can't be imported, or its code is not what was trained.
    """
    folder = Path(folder)
    if not (folder / SCORES).exists():
        raise MissingError(f"{folder} has no {SCORES}: it is no run, or an unfinished one, which the same bench finishes")
    scores, described = read_scores(folder), json.loads((folder / CONFIG).read_bytes())
    if "image_shape" not in described:
        raise InputError(f"{folder / CONFIG} is of an older version, which kept no image_shape")
    model, config = find(described["model"]), described["config"]
    if code_hash(model) != described["code"]:
        files = ", ".join(map(str, model.code))
        raise InputError(f"{model.name} is not the code that was trained in {folder} ({files} changed since): bench again")
    options = config["model"] | ({"weights": None} if model.family == "pretrained" else {})
    _, _, channels = shape = described["image_shape"]
    network = _built(model, shape, len(scores["r2"]["factors"]), options)
    if config["train"]["normalize"] == "train":
        network = normalized(network, [0.0] * channels, [1.0] * channels)  # the statistics are among the weights
    network.load_state_dict(safetensors.torch.load_file(folder / WEIGHTS))
    channels_last(network)  # as it was scored, to the bit
    return network.eval()


def _built(model: Model, image_shape: Sequence[int], num_outputs: int, options: dict[str, Any]) -> nn.Module:
    """The network, untrained, once it has shown that it takes the images and answers as it should."""
    height, width, channels = image_shape
    network = model.build(channels, num_outputs, **options)
    if not isinstance(network, nn.Module):
        raise InputError(f"{model.name} is to return a torch.nn.Module, not {type(network).__name__}")
    with torch.no_grad():  # also gives lazy layers their shapes
        outputs = network.eval()(torch.zeros(2, channels, height, width))
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (2, num_outputs):
        got = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise InputError(
            f"{model.name} is to answer (B, {num_outputs}) to images (B, {channels}, {height}, {width}), got {got} for B = 2"
        )
    return network


def read_scores(folder: Path) -> dict[str, Any]:
    """The scores.json of a run.

    Raises:
        ValueError: if it is not one of this format.
    """
    path = folder / SCORES
    try:
        scores = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}): delete the folder and bench again") from error
    if not isinstance(scores, dict) or scores.get("format") != FORMAT:
        raise InputError(f"{path} is not of format {FORMAT}: delete the folder and bench again")
    if missing := [key for key in REQUIRED if key not in scores]:
        raise InputError(f"{path} has no {', '.join(missing)}: delete the folder and bench again")
    if scores["kind"] not in KINDS:
        raise InputError(f"{path} is of no known kind of split ({scores['kind']!r}): delete the folder and bench again")
    return scores
