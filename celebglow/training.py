"""Train a Glow on a set of images: likelihood, EMA, held-out bits per dimension, resumable at any moment."""

from __future__ import annotations

import copy
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from celebglow.glow import Glow
from celebglow.images import NO_AUGMENTATION, Augmentation, Batches, LabelledImages

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
INIT_IMAGES = 256  # for the data-dependent initialisation
INIT_STREAM = 2**40  # where the initialisation's random stream lies, beyond any step


@dataclass(frozen=True)
class TrainingConfig:
    """What determines a training, apart from the images."""

    flow: dict[str, Any] = field(default_factory=dict)  # arguments of `Glow`
    augmentation: Augmentation = field(default_factory=Augmentation)
    steps: int = 6000
    batch: int = 64
    lr: float = 1e-3
    warmup: int = 200  # steps of linear warm-up
    decay: float = 0.4  # the last part of the steps, over which the rate falls to zero
    ema: float = 0.999
    clip: float = 100.0  # of the gradient's norm, for bits per dimension
    held_out: float = 0.05  # part of the people kept for validation
    balance: str | None = None  # a column, see LabelledImages.balanced_weights
    precision: str = "fp32"  # or "bf16": of the coupling networks
    seed: int = 0


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Warm-up, constant, linear decay."""
    rise = (step + 1) / max(1, config.warmup)
    fall = (config.steps - step) / max(1, config.decay * config.steps)
    return config.lr * min(1.0, rise, fall)


class Trainer:
    """A training and its folder: ``flow/`` (the averaged weights, at the end), log.jsonl, samples.png, checkpoint.pt.

    Every step draws from its own random stream (seed, step), so that a resumed training repeats an unbroken one.

    Args:
        data: images; resolution and crop come from the config.
        config: everything else that matters.
        out: the folder; a checkpoint in it is continued.
        device: where to compute.

    Raises:
        ValueError: if ``out`` holds a training with another config.
    """

    def __init__(self, data: LabelledImages, config: TrainingConfig, out: Path, device: torch.device) -> None:
        self.config, self.out, self.device = config, out, device
        held_out = data.held_out(config.held_out, config.seed)
        resolution = int(config.flow.get("resolution", 64))
        aug = config.augmentation
        landmarks = data.landmarks
        self.batches = Batches(data.images[~held_out], None if landmarks is None else landmarks[~held_out], resolution, aug)
        plain = Batches(data.images[held_out], None, resolution, replace(NO_AUGMENTATION, crop=aug.crop))
        self.validation = plain(torch.arange(len(plain)), self._generator(INIT_STREAM))
        weights = data.balanced_weights(config.balance)[~held_out]
        self.cumulative = torch.from_numpy(np.cumsum(weights / weights.sum()))
        torch.manual_seed(config.seed)
        self.flow = Glow(**config.flow).to(device)
        if device.type == "cpu":  # channels last is what its convolutions are fast in
            self.flow = self.flow.to(memory_format=torch.channels_last)
        self.flow.set_coupling_dtype(torch.bfloat16 if config.precision == "bf16" else None)
        self.average = copy.deepcopy(self.flow).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.flow.parameters(), lr=config.lr, fused=True)
        self.step = 0
        out.mkdir(parents=True, exist_ok=True)
        if (out / CHECKPOINT).exists():
            self._restore()
        else:
            batch = self._batch(INIT_STREAM, INIT_IMAGES)
            self.flow.initialize(batch)
            self.average.load_state_dict(self.flow.state_dict())

    def run(self, save_every: float = 300.0, log_every: int = 100, progress: bool = True) -> Glow:
        """Train to the last step and save the averaged flow; returns it.

        Args:
            save_every: seconds between checkpoints.
            log_every: steps between the log's lines and validations.
            progress: show a bar on stderr.

        Raises:
            FloatingPointError: if the loss is not finite; the last checkpoint stays.
        """
        config = self.config
        saved, started, losses = time.monotonic(), time.monotonic(), []
        bar = tqdm(total=config.steps, initial=self.step, unit="step", disable=not progress, dynamic_ncols=True)
        with bar:
            while self.step < config.steps:
                losses.append(self._train_step())
                self.step += 1
                bar.update()
                if self.step % log_every == 0 or self.step == config.steps:
                    loss = float(torch.stack(losses).mean())
                    if not math.isfinite(loss):
                        raise FloatingPointError(
                            f"the loss became {loss} before step {self.step}: lower --lr; {self.out} keeps the last checkpoint"
                        )
                    rate = len(losses) * config.batch / (time.monotonic() - started)
                    self._log(loss, rate, bar)
                    losses, started = [], time.monotonic()
                if time.monotonic() - saved > save_every:
                    self._save()
                    saved = time.monotonic()
        self._save()
        self.average.save_pretrained(self.out / "flow")
        return self.average

    def _generator(self, stream: int) -> torch.Generator:
        entropy = np.random.SeedSequence([self.config.seed, stream]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(entropy >> 1))

    def _batch(self, stream: int, count: int) -> Tensor:
        generator = self._generator(stream)
        draws = torch.rand(count, generator=generator, dtype=torch.float64)
        indices = torch.searchsorted(self.cumulative, draws).clamp(max=len(self.batches) - 1)
        images = self.batches(indices, generator).to(self.device)
        noise = torch.rand(images.shape, generator=generator).to(self.device)
        return self.flow.preprocess(images) + noise / self.flow.bins

    def _train_step(self) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        loss = self.flow.bits_per_dim(self._batch(self.step, self.config.batch)).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.flow.parameters(), self.config.clip)
        self.optimizer.step()
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.flow.parameters()), 1 - decay)
        return loss.detach()

    @torch.no_grad()
    def _validate(self) -> float:
        generator = self._generator(INIT_STREAM + 1)
        images = self.validation.to(self.device)
        noise = torch.rand(images.shape, generator=generator).to(self.device)
        return float(self.average.bits_per_dim(self.average.preprocess(images) + noise / self.flow.bins).mean())

    def _log(self, loss: float, rate: float, bar: tqdm[Any]) -> None:
        held_out = self._validate()
        line = {"step": self.step, "bits_per_dim": loss, "held_out": held_out, "images_per_second": rate}
        with (self.out / LOG).open("a") as file:
            file.write(json.dumps(line) + "\n")
        bar.set_postfix_str(f"{loss:.3f} bits/dim, held out {held_out:.3f}")
        if self.step % 500 == 0 or self.step == self.config.steps:
            sample_sheet(self.average, self._generator(INIT_STREAM + 2)).save(self.out / "samples.png")

    def _save(self) -> None:
        state = {
            "config": asdict(self.config),
            "step": self.step,
            "flow": self.flow.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        partial = self.out / (CHECKPOINT + ".partial")
        torch.save(state, partial)
        partial.replace(self.out / CHECKPOINT)

    def _restore(self) -> None:
        state = torch.load(self.out / CHECKPOINT, map_location=self.device, weights_only=True)
        ours = json.loads(json.dumps(asdict(self.config)))
        theirs = json.loads(json.dumps(state["config"]))
        # how long to train may be changed along the way; what is learned may not
        free = {"steps", "decay", "lr"}
        if changed := [name for name in ours if name not in free and ours[name] != theirs[name]]:
            raise ValueError(f"{self.out} holds a training with another {', '.join(changed)}; choose another folder")
        self.flow.load_state_dict(state["flow"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        logger.info("continuing %s from step %d", self.out, self.step)


@torch.no_grad()
def sample_sheet(flow: Glow, generator: torch.Generator, temperature: float = 0.7, side: int = 8) -> Image.Image:
    """side x side samples of a flow as one picture."""
    images = flow.sample(side * side, temperature, generator).cpu()
    channels, size = images.shape[1], images.shape[2]
    sheet = images.reshape(side, side, channels, size, size).permute(0, 3, 1, 4, 2).reshape(side * size, side * size, channels)
    return Image.fromarray(sheet.squeeze(2).numpy() if channels == 1 else sheet.numpy())


def read_log(out: Path) -> Iterator[dict[str, float]]:
    """The lines of a training's log."""
    with (out / LOG).open() as file:
        yield from map(json.loads, file)
