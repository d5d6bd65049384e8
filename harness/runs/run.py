"""One run, model × dataset × kind × seed, and its folder: self-contained, idempotent, resumable, with one owner at a time.

`<out>/<dataset>/<kind>/<model>/<seed>-<fingerprint>/` holds config.json, log.jsonl, checkpoint.pt while it trains,
model.safetensors, trained.pt, where a longer training continues, maps.safetensors (`harness.runs.maps`), and scores.json, written
last and atomically: a folder without it is not done.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

import harness
from harness.io.atomic import sha256
from harness.io.checkpoints import CHECKPOINT, TRAINED, Journal
from harness.io.locks import Owner, owned
from harness.machine import cores, device_name, source_commit
from harness.models import MODELS, Representation, find
from harness.models.backbones import pretrained_file
from harness.models.lookup import code_hash
from harness.runs import networks
from harness.runs.config import Config, images_of, lineage, scoring_protocol
from harness.runs.evaluate import evaluate
from harness.runs.maps import MAPS
from harness.runs.records import CONFIG, FAILURE, SCORES, Protocol, RunScores, RunSetup, Seconds, Weights
from harness.runs.trainer import RunTrainer, State, seed_all
from harness.runs.watch import Watched
from harness.scoring.baselines import baselines
from harness.scoring.maps import MOST_KEPT
from splits import Kind
from splits.errors import BusyError, InputError

if TYPE_CHECKING:
    from harness.data.dataset import Dataset

logger = logging.getLogger(__name__)

LOCK = ".lock"
PACKAGES = ("ood-data", "torch", "numpy", "timm")
RunState = Literal["done", "resumable", "new"]


@dataclass(frozen=True)
class Run:
    """One training and its scores: what, where and how.

    Attributes:
        data: folder of the stores.
        out: folder of the run folders.
        dataset, kind, model: by name.
        seed: of initialisation, batches and noise.
        config: the resolved protocol.
        fingerprint: of all that determines the result but the seed (`harness.runs.config.fingerprint`): neither of where the data lies
            nor of the device.
        watchers: names of what is told its numbers (`harness.runs.watch`): they change nothing.
    """

    data: Path
    out: Path
    dataset: str
    kind: Kind
    model: str
    seed: int
    config: Config
    fingerprint: str
    watchers: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.dataset}, {self.kind}, {self.model}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        return self.out / self.dataset / self.kind / self.model.replace(":", ".") / f"{self.seed}-{self.fingerprint}"

    @property
    def state(self) -> RunState:
        if self.is_done:
            return "done"
        return "resumable" if (self.folder / CHECKPOINT).exists() else "new"

    @property
    def is_done(self) -> bool:
        return (self.folder / SCORES).exists()

    @property
    def steps(self) -> int:
        """Training steps in all phases."""
        reads_out = self.model in MODELS and MODELS[self.model].family == "representation"
        return self.config.train.steps + (self.config.readout.steps if reads_out else 0)

    def execute(self, device: torch.device, progress: Callable[[float], None] = lambda part: None) -> RunScores:
        """Train and score, unless that is done.

        Args:
            device: where to compute.
            progress: called often, with the part of the run that is done, 0 to 1.

        Raises:
            BlockingIOError: if another process owns the folder.
            FloatingPointError: if the training diverges.
            ValueError: if the model isn't one, or answers in another shape; or if scores.json is damaged.
            WeightsMissing: if pretrained weights are neither here nor downloadable.
        """
        if self.is_done:
            self._sweep()
            return RunScores.read(self.folder / SCORES)
        if device.type == "cpu":
            torch.set_num_threads(self.config.train.threads or cores())
        data = harness.open(self.dataset, self.data)
        seed_all(self.seed)
        shape = data.images.shape[1:]
        network = networks.built(find(self.model), shape, len(data.spec.grid.sizes), self.config.model).to(device)
        self.folder.mkdir(parents=True, exist_ok=True)
        with owned(self.folder / LOCK, busy=f"{self.folder} is being run by another process") as owner:
            if not self.is_done:  # by another process, a moment ago
                self._train(network, data, device, progress, owner)
        return RunScores.read(self.folder / SCORES)

    def _train(
        self, network: torch.nn.Module, data: Dataset, device: torch.device, progress: Callable[[float], None], owner: Owner
    ) -> None:
        """Train, score and write scores.json, in a folder that no other process writes."""
        setup = self._setup(data, device)
        setup.write(self.folder / CONFIG, owner.write)
        (self.folder / FAILURE).unlink(missing_ok=True)
        if not (self.folder / CHECKPOINT).exists() and (before := self._shorter(setup)):
            try:
                Journal(self.folder, 0, owner).begin_with(before)
            except OSError as error:
                logger.warning("%s: the training begins at step 0", error)
        split = data.split(self.kind)
        meter = Meter(phases(self.config, isinstance(network, Representation), split.counts), progress)
        trainer = RunTrainer(network, data, split, self.config, self.seed, self.folder, device, meter, owner)
        with Watched(self.watchers, setup, self.folder, trainer.journal.lines) as watched:
            if self.watchers:
                trainer.journal.on_line = watched.line
            state = trainer.run()
            networks.save(trainer.network, self.folder, owner)
            scores = self._scores(trainer, state, meter, owner)
            scores.write(self.folder / SCORES, owner.write)
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
            if self.watchers:  # after that, as one that hangs should not cost the run its scores
                watched.scores(scores)

    def _shorter(self, setup: RunSetup) -> Path | None:
        """The folder of the longest training that this one continues: of the same seed and lineage, and no more steps."""
        found: list[tuple[int, Path]] = []
        for kept in self.folder.parent.glob(f"{self.seed}-*/{TRAINED}"):
            with contextlib.suppress(InputError, OSError):  # of a folder that is damaged, nothing is taken
                other = RunSetup.read(kept.with_name(CONFIG))
                if other.lineage == setup.lineage and other.config.train.steps <= self.config.train.steps:
                    found.append((other.config.train.steps, kept.parent))
        return max(found)[1] if found else None

    def _protocol(self, data: Dataset) -> Protocol:
        return Protocol(model=find(self.model).protocol, score=scoring_protocol(self.config, images_of(data)))

    def _scores(self, trainer: RunTrainer, state: State, meter: Meter, owner: Owner) -> RunScores:
        start = time.monotonic()
        evaluation = evaluate(trainer.network, trainer.data, trainer.split, self.config, trainer.device, partial(meter, "score"))
        test, train = evaluation.test, evaluation.train
        evaluation.maps.write(self.folder / MAPS, owner.write)
        errors = test.errors()
        return RunScores(
            dataset=self.dataset,
            kind=self.kind,
            model=self.model,
            seed=self.seed,
            fingerprint=self.fingerprint,
            preset=self.config.preset,
            protocol=self._protocol(trainer.data),
            steps=self.config.train.steps,
            n_test=errors.n,
            r2=errors.r2,
            r2_sklearn=errors.r2_sklearn,
            mse=errors.mse,
            train=train.errors(),
            reference=baselines(trainer.split),
            **dict(test.groups()),
            seconds=Seconds(train=round(state.seconds, 2), score=round(time.monotonic() - start, 2)),
            images_per_second=round(state.images / max(state.seconds, 1e-9), 1),
            device=device_name(trainer.device),
        )

    def _setup(self, data: Dataset, device: torch.device) -> RunSetup:
        height, width, channels = data.images.shape[1:]
        model = find(self.model)
        return RunSetup(
            dataset=self.dataset,
            kind=self.kind,
            model=self.model,
            seed=self.seed,
            images=len(data),
            image_shape=(height, width, channels),
            source=data.store.source,
            config=self.config,
            code=code_hash(model.code),
            protocol=self._protocol(data),
            lineage=lineage(self.config, model, images_of(data)),
            weights=weights_of(self.model, self.config.model),
            versions=_versions(),
            commit=source_commit(),
            device=device_name(device),
        )

    def _sweep(self) -> None:
        """Remove what a process leaves that was killed after it wrote the scores."""
        if not any((self.folder / name).exists() for name in (CHECKPOINT, LOCK)):
            return
        with contextlib.suppress(BusyError, OSError), owned(self.folder / LOCK, busy=""):
            (self.folder / CHECKPOINT).unlink(missing_ok=True)


@cache
def _versions() -> dict[str, str]:
    """The versions of Python and packages: they are looked for once in a process, which takes longer than a small run may."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return versions


def weights_of(model: str, options: Mapping[str, Any]) -> Weights | None:
    """The pretrained weights that a model starts from, None if it has none."""
    file = pretrained_file(model, options.get("weights"))
    if file is None:
        return None
    of_hub = file.parent.parent.name == "snapshots"  # of the hub's cache, whose folders are called by commits
    return Weights(name=file.name, sha256=sha256(file), revision=file.parent.name if of_hub else "")


def phases(config: Config, readout: bool, counts: tuple[int, int]) -> dict[str, int]:
    """Steps of each phase of training, and batches that are scored, each about a step's work.

    Args:
        config: of the run.
        readout: whether the model is a representation.
        counts: images of train and of test.
    """
    limit = config.score.samples or max(counts)
    scored = (*(min(count, limit) for count in counts), min(sum(counts), MOST_KEPT))
    score = sum(-(-count // config.score.batch) for count in scored)
    return {"train": config.train.steps, "readout": config.readout.steps if readout else 0, "score": score}


class Meter:
    """Tells which part of a run is done, from the steps of its phases."""

    def __init__(self, phases: Mapping[str, int], progress: Callable[[float], None]) -> None:
        self.phases, self.progress = phases, progress

    def __call__(self, phase: str, step: int) -> None:
        names = list(self.phases)
        before = sum(self.phases[name] for name in names[: names.index(phase)])
        self.progress(min(1.0, (before + step) / max(1, sum(self.phases.values()))))
