"""Carry out a run: train its network, score it, and leave in its folder what `harness.runs.run` says."""

from __future__ import annotations

import contextlib
import logging
import platform
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache, partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import harness
from harness.io.atomic import sha256
from harness.io.checkpoints import CHECKPOINT, TRAINED, Journal
from harness.io.locks import Owner, owned
from harness.machine import cores, device_name, source_commit
from harness.models import Representation, find
from harness.models.lookup import code_hash
from harness.models.weights import pretrained_file
from harness.runs import networks
from harness.runs.config import Config, images_of, lineage, scoring_protocol
from harness.runs.evaluate import evaluate
from harness.runs.maps import MAPS
from harness.runs.records import CONFIG, FAILURE, SCORES, Protocol, RunScores, RunSetup, Seconds, Weights
from harness.runs.run import LOCK, Run
from harness.runs.trainer import RunTrainer, State, seed_all
from harness.runs.watch import Watched
from harness.scoring.baselines import baselines
from harness.scoring.maps import MOST_KEPT
from splits.errors import InputError

if TYPE_CHECKING:
    from harness.data.dataset import Dataset

logger = logging.getLogger(__name__)

PACKAGES = ("ood-data", "torch", "numpy", "timm")


def execute(run: Run, device: str | torch.device, progress: Callable[[float], None]) -> None:
    """Train a run and score it, unless another process did that a moment ago.

    Args:
        run: whichever.
        device: where to compute.
        progress: called often, with the part of the run that is done, 0 to 1.

    Raises:
        BlockingIOError: if another process owns the folder.
        FloatingPointError: if the training diverges.
        ValueError: if the model isn't one, or answers in another shape.
        WeightsMissing: if pretrained weights are neither here nor downloadable.
    """
    device = torch.device(device)
    if device.type == "cpu":
        torch.set_num_threads(run.config.train.threads or cores())
    data = harness.open(run.dataset, run.data)
    seed_all(run.seed)
    shape = data.images.shape[1:]
    network = networks.built(find(run.model), shape, len(data.spec.grid.sizes), run.config.model).to(device)
    run.folder.mkdir(parents=True, exist_ok=True)
    with owned(run.folder / LOCK, busy=f"{run.folder} is being run by another process") as owner:
        if not run.is_done:
            _train(run, network, data, device, progress, owner)


def _train(
    run: Run, network: torch.nn.Module, data: Dataset, device: torch.device, progress: Callable[[float], None], owner: Owner
) -> None:
    """Train, score and write scores.json, in a folder that no other process writes."""
    setup = _setup(run, data, device)
    setup.write(run.folder / CONFIG, owner.write)
    (run.folder / FAILURE).unlink(missing_ok=True)
    if not (run.folder / CHECKPOINT).exists() and (before := _shorter(run, setup)):
        try:
            Journal(run.folder, 0, owner).begin_with(before)
        except OSError as error:
            logger.warning("%s: the training begins at step 0", error)
    split = data.split(run.kind)
    meter = Meter(phases(run.config, isinstance(network, Representation), split.counts), progress)
    trainer = RunTrainer(network, data, split, run.config, run.seed, run.folder, device, meter, owner)
    with Watched(run.watchers, setup, run.folder, trainer.journal.lines) as watched:
        if run.watchers:
            trainer.journal.on_line = watched.line
        state = trainer.run()
        networks.save(trainer.network, run.folder, owner)
        scores = _scores(run, trainer, state, meter, owner)
        scores.write(run.folder / SCORES, owner.write)
        (run.folder / CHECKPOINT).unlink(missing_ok=True)
        if run.watchers:  # after that, as one that hangs should not cost the run its scores
            watched.scores(scores)


def _shorter(run: Run, setup: RunSetup) -> Path | None:
    """The folder of the longest training that this one continues: of the same seed and lineage, and no more steps."""
    found: list[tuple[int, Path]] = []
    for kept in run.folder.parent.glob(f"{run.seed}-*/{TRAINED}"):
        with contextlib.suppress(InputError, OSError):  # of a folder that is damaged, nothing is taken
            other = RunSetup.read(kept.with_name(CONFIG))
            if other.lineage == setup.lineage and other.config.train.steps <= run.config.train.steps:
                found.append((other.config.train.steps, kept.parent))
    return max(found)[1] if found else None


def _protocol(run: Run, data: Dataset) -> Protocol:
    return Protocol(model=find(run.model).protocol, score=scoring_protocol(run.config, images_of(data)))


def _scores(run: Run, trainer: RunTrainer, state: State, meter: Meter, owner: Owner) -> RunScores:
    start = time.monotonic()
    evaluation = evaluate(trainer.network, trainer.data, trainer.split, run.config, trainer.device, partial(meter, "score"))
    test, train = evaluation.test, evaluation.train
    evaluation.maps.write(run.folder / MAPS, owner.write)
    errors = test.errors()
    return RunScores(
        dataset=run.dataset,
        kind=run.kind,
        model=run.model,
        seed=run.seed,
        fingerprint=run.fingerprint,
        preset=run.config.preset,
        protocol=_protocol(run, trainer.data),
        steps=run.config.train.steps,
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
        finished=datetime.now(UTC).replace(microsecond=0),
    )


def _setup(run: Run, data: Dataset, device: torch.device) -> RunSetup:
    height, width, channels = data.images.shape[1:]
    model = find(run.model)
    return RunSetup(
        dataset=run.dataset,
        kind=run.kind,
        model=run.model,
        seed=run.seed,
        images=len(data),
        image_shape=(height, width, channels),
        source=data.store.source,
        config=run.config,
        code=code_hash(model.code),
        protocol=_protocol(run, data),
        lineage=lineage(run.config, model, images_of(data)),
        weights=weights_of(run.model, run.config.model),
        versions=_versions(),
        commit=source_commit(),
        device=device_name(device),
    )


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
