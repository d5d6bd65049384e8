"""Training, readable in one sitting: batches → loss → Adam, logged, checkpointed on a timer, resumed to the same result.

Step i draws its batch and its noise from (seed, i), so that a resumed training repeats an unbroken one exactly.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from harness.io.checkpoints import CHECKPOINT, TRAINED, Journal, interrupted_between_steps
from harness.io.locks import Owner
from harness.models import Representation
from harness.models.backbones import Normalized
from harness.runs.config import Config
from harness.scoring.sampling import sample
from splits import Split
from splits.errors import InputError, NumericalError

if TYPE_CHECKING:
    from harness.data.dataset import Dataset

STATISTICS_IMAGES = 10_000
Progress = Callable[[str, int], None]  # phase, steps done
Losses = dict[str, Tensor]


@dataclass
class State:
    """The point where a training is; saved and restored as a whole."""

    phase: int = 0
    step: int = 0
    seconds: float = 0.0  # spent on steps, over all interruptions
    images: int = 0
    totals: Losses = field(default_factory=dict)  # of the losses since the last line of the log
    logged: int = 0  # the step of that line


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One optimisation: of which parameters, by which loss, on which batches from step i on."""

    name: str
    steps: int
    learning_rate: float
    parameters: list[nn.Parameter]
    loss: Callable[..., Losses]
    batches: Callable[[int], Iterator[tuple[Tensor, ...]]]
    images_per_step: int
    autocast: bool


class RunTrainer:
    """Trains a network on the train side of a split, in a folder: log.jsonl, and checkpoint.pt, which is continued if it is there.

    Args:
        network: (B, C, 64, 64) in [0, 1] → (B, F), on `device`; a `Representation` is trained by its own loss, then read out.
        data: the dataset.
        split: of it; nothing outside `split.train` is looked at.
        config: the protocol.
        seed: of batches and noise.
        folder: of the run.
        device: where to compute.
        progress: called at every step.
        owner: of the folder.
    """

    def __init__(
        self,
        network: nn.Module,
        data: Dataset,
        split: Split,
        config: Config,
        seed: int,
        folder: Path,
        device: torch.device,
        progress: Progress = lambda phase, done: None,
        owner: Owner | None = None,
    ) -> None:
        self.network, self.data, self.split, self.config = network, data, split, config
        self.seed, self.device, self.progress = seed, device, progress
        self.journal = Journal(folder, config.train.checkpoint_seconds, owner)
        self.train = split.train
        # An uncompressed store is mapped, so that several runs share its pages.
        self.place = "auto" if data.store.compressed else "mapped"
        self.state = State()

    def run(self) -> State:
        """Train to the end.

        Raises:
            FloatingPointError: if the loss is not finite; the last checkpoint stays.
            KeyboardInterrupt: once a checkpoint is saved.
            ValueError: if there is a checkpoint that can't be continued.
        """
        if self.config.train.normalize == "train":
            self._normalize()
        channels_last(self.network)
        self._resumed: dict[str, Any] | None = None  # state of the optimizer
        self.journal.restore(self._take, self.device)
        phases = [self._first_phase, self._readout_phase] if isinstance(self.network, Representation) else [self._first_phase]
        for number, make in enumerate(phases):
            if number < self.state.phase:
                continue
            phase = make()
            optimizer = torch.optim.Adam(phase.parameters, phase.learning_rate, betas=self.config.train.betas, fused=True)
            if self._resumed is not None:
                optimizer.load_state_dict(self._resumed)
                self._resumed = None
            self._optimize(phase, optimizer)
            if number == 0 and self.config.train.keep_state:
                self._save(optimizer, TRAINED)
            self.state.phase, self.state.step, self.state.logged = number + 1, 0, 0
            self._save(None)  # the end of a phase is worth a checkpoint
        return self.state

    def _optimize(self, phase: Phase, optimizer: torch.optim.Optimizer) -> None:
        config, state = self.config.train, self.state
        loss_of = torch.compile(phase.loss) if config.compile and phase.autocast else phase.loss
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=phase.autocast and config.precision == "bf16")
        self.network.train()
        clock = time.monotonic()
        with interrupted_between_steps() as interrupted:
            for batch in itertools.islice(phase.batches(state.step), phase.steps - state.step):
                seed_all(noise_seed(self.seed, state.phase, state.step))
                with autocast:
                    losses = loss_of(*batch)
                optimizer.zero_grad()
                losses["loss"].backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                state.step += 1
                state.images += phase.images_per_step
                state.totals = {name: state.totals.get(name, 0) + value.detach() for name, value in losses.items()}
                now = time.monotonic()
                state.seconds, clock = state.seconds + now - clock, now
                if state.step % config.log_every == 0 or state.step == phase.steps:
                    self._log(phase)
                self.progress(phase.name, state.step)
                if interrupted() or self.journal.due():
                    self._save(optimizer)
                    clock = time.monotonic()
                if interrupted():
                    raise KeyboardInterrupt

    def _first_phase(self) -> Phase:
        """Train the whole network by squared error, or a representation by its own loss."""
        config, network = self.config.train, self.network
        batches = self.data.batches(
            self.train,
            config.batch,
            seed=self.seed,
            device=self.device,
            drop_last=len(self.train) >= config.batch,
            place=self.place,
        )
        train = partial(Phase, name="train", steps=config.steps, learning_rate=config.learning_rate, autocast=True)
        if isinstance(network, Representation):
            parameters = [p for name, p in network.named_parameters() if not name.startswith("readout.")]
            sampler = network.pairs(self.split)
            if sampler is None:

                def alone(images: Tensor, targets: Tensor) -> Losses:
                    return network.loss(images)

                return train(parameters=parameters, loss=alone, batches=batches.steps, images_per_step=config.batch)

            def pairs(start: int) -> Iterator[tuple[Tensor, ...]]:
                return batches.pairs(sampler, start)

            return train(parameters=parameters, loss=network.loss, batches=pairs, images_per_step=2 * config.batch)

        def squared_error(images: Tensor, targets: Tensor) -> Losses:
            return {"loss": (network(images).float() - targets).square().sum(1).mean()}

        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        return train(parameters=parameters, loss=squared_error, batches=batches.steps, images_per_step=config.batch)

    def _readout_phase(self) -> Phase:
        """Train the readout by squared error, on the frozen encoder's latents of train images, computed once."""
        config, network = self.config.readout, self.network
        assert isinstance(network, Representation)
        indices = sample(self.train, max(config.steps, 1) * config.batch, self.seed)
        latents, targets = self._latents(indices)

        def batches(start: int) -> Iterator[tuple[Tensor, ...]]:
            for step in itertools.count(start):
                rows = np.random.default_rng([self.seed, step]).integers(len(indices), size=config.batch)
                chosen = torch.from_numpy(rows).to(self.device)
                yield latents[chosen], targets[chosen]

        def squared_error(z: Tensor, y: Tensor) -> Losses:
            return {"loss": (network.readout(z) - y).square().sum(1).mean()}

        return Phase(
            name="readout",
            steps=config.steps,
            learning_rate=config.learning_rate,
            parameters=list(network.readout.parameters()),
            loss=squared_error,
            batches=batches,
            images_per_step=0,
            autocast=False,
        )

    def _latents(self, indices: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """(n, z) and (n, F), on the device."""
        network = self.network
        assert isinstance(network, Representation)
        network.eval()
        batches = self.data.batches(indices, self.config.score.batch, shuffle=False, device=self.device, place=self.place)
        with torch.no_grad():
            latents = torch.cat([network.encode(images) for images, _ in batches])
        return latents, batches.targets

    def _normalize(self) -> None:
        """Show the network images by the statistics of train."""
        indices = sample(self.train, STATISTICS_IMAGES, 0)
        batches = self.data.batches(indices, self.config.score.batch, shuffle=False, place=self.place)
        pixels = torch.cat([images.double().transpose(0, 1).flatten(1) for images, _ in batches], dim=1)
        mean, std = pixels.mean(1).tolist(), pixels.std(1, correction=0).clamp(min=1e-3).tolist()
        self.network = normalized(self.network, mean, std).to(self.device)

    def _log(self, phase: Phase) -> None:
        config, state = self.config.train, self.state
        count = state.step - state.logged
        means = {name: float(total) / count for name, total in state.totals.items()}
        state.totals, state.logged = {}, state.step
        if not np.isfinite(means["loss"]):
            raise NumericalError(
                f"the loss is not finite within the {count} steps up to {state.step:,} of {phase.name}: "
                f"try a smaller learning rate than {phase.learning_rate} (`overrides` {phase.name}.learning_rate=…), "
                "or look for a division by 0 or a logarithm in a model of your own"
                f"{', or train.precision=fp32' if phase.autocast and config.precision == 'bf16' else ''}"
            )
        line = {"phase": phase.name, "step": state.step, **means, "seconds": round(state.seconds, 2)}
        self.journal.log(line)

    def _save(self, optimizer: torch.optim.Optimizer | None, name: str = CHECKPOINT) -> None:
        self.journal.save(
            {
                "state": vars(self.state),
                "network": self.network.state_dict(),
                "optimizer": optimizer.state_dict() if optimizer is not None else None,
            },
            name,
        )

    def _take(self, saved: dict[str, Any]) -> None:
        """Continue from what `_save` saved."""
        self.state = State(**saved["state"])
        self.network.load_state_dict(saved["network"])
        self._resumed = saved["optimizer"]


def seed_all(seed: int) -> None:
    """Seed, by a number below 2³², whatever a model may draw from: torch, and for users' models numpy and random."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (the one that others use)
    random.seed(seed)


def noise_seed(seed: int, phase: int, step: int) -> int:
    """The seed of a step's noise, below 2³²: a hash, because torch's CPU generator ignores all other bits."""
    return int(np.random.SeedSequence([seed, phase, step]).generate_state(1)[0])


def normalized(network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """The network, shown images by these statistics per channel; a representation reconstructs them as they are.

    Raises:
        ValueError: for a pretrained network.
    """
    if isinstance(network, Normalized):
        raise InputError("train.normalize=train: a pretrained network has the normalisation that it was trained with")
    if not isinstance(network, Representation):
        return Normalized(network, mean, std)
    network.encoder = Normalized(network.encoder, mean, std)
    return network


def channels_last(network: nn.Module) -> None:
    """The layout in which images come and convolutions are fast; group convolutions have weights of more than four dimensions."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
