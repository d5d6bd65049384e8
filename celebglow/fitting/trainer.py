"""Train a Glow on a set of images: likelihood, EMA, held-out bits per dimension, resumable at any moment."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from celebglow.fitting.augmentation import TrainingImages
from celebglow.fitting.config import NO_AUGMENTATION, TrainingConfig
from celebglow.fitting.images import LabelledImages
from celebglow.glow import Glow
from celebglow.info import check_training
from harness.io.atomic import write_atomically
from harness.io.checkpoints import Journal, interrupted_between_steps
from harness.io.pictures import picture_of, png
from harness.io.progress import Bar, progress_bar
from harness.io.replacing import replacing_folder
from splits.errors import InputError, NumericalError

logger = logging.getLogger(__name__)

INIT_IMAGES = 256  # for the data-dependent initialisation
VALIDATION_IMAGES = 1000  # at most: a hundred steps of training should take longer than judging them
INIT_STREAM = 2**40  # where the initialisation's random stream lies, beyond any step


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Warm-up, constant, linear decay."""
    rise = (step + 1) / max(1, config.warmup)
    fall = (config.steps - step) / max(1, config.decay * config.steps)
    return config.lr * min(1.0, rise, fall)


def _none_to_train_on(data: LabelledImages) -> str:
    """Say why all images would be held out."""
    people = len(np.unique(data.columns["person"])) if "person" in data.columns else None
    count, what = (people, "people") if people is not None else (len(data.images), "pictures")
    if count < 2:
        return f"{what} found: {count}; at least 2 are needed, one to train on and one to hold out"
    return f"{what} found: {count}; none of them is left to train on: lower `held_out`"


class Trainer:
    """A training and its folder: `flow/` (the averaged weights, at the end), log.jsonl, samples.png, checkpoint.pt.

    Every step draws from its own random stream (seed, step), so that a resumed training repeats an unbroken one.

    Args:
        data: images; resolution and crop come from the config.
        config: everything else that matters.
        out: the folder; a checkpoint in it is continued.
        device: where to compute.
        save_every: seconds between checkpoints, at least.

    Raises:
        ValueError: if `out` holds a training with another config, or a flow that was not trained there.
    """

    def __init__(
        self, data: LabelledImages, config: TrainingConfig, out: Path, device: torch.device, save_every: float = 30.0
    ) -> None:
        config.check()
        check_training(out)
        self.config, self.out, self.device = config, out, device
        self.images = hashlib.sha256(np.ascontiguousarray(data.images).data).hexdigest()
        held_out = data.held_out(config.held_out, config.seed)
        if held_out.all():
            raise InputError(_none_to_train_on(data))
        resolution = int(config.flow.get("resolution", 64))
        aug = config.augmentation
        self.batches = TrainingImages(data.images, data.landmarks, resolution, aug, np.flatnonzero(~held_out))
        judged = np.flatnonzero(held_out)
        if len(judged) > VALIDATION_IMAGES:
            judged = np.sort(np.random.default_rng(config.seed).choice(judged, VALIDATION_IMAGES, replace=False))
        plain = TrainingImages(data.images, None, resolution, replace(NO_AUGMENTATION, crop=aug.crop), judged)
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
        self.journal = Journal(out, save_every)
        if not self.journal.restore(self._take, device):
            batch = self._batch(INIT_STREAM, INIT_IMAGES)
            self.flow.initialize(batch)
            self.average.load_state_dict(self.flow.state_dict())

    def run(self, log_every: int = 100, progress: bool = True) -> Glow:
        """Train to the last step and save the averaged flow; returns it.

        Args:
            log_every: steps between the log's lines and validations.
            progress: show how far it is, on stderr.

        Raises:
            FloatingPointError: if the loss is not finite; the last checkpoint stays.
            KeyboardInterrupt: once a checkpoint is saved.
        """
        config = self.config
        started, losses = time.monotonic(), []
        with progress_bar("train", "steps", config.steps, self.step, progress) as bar, interrupted_between_steps() as interrupted:
            while self.step < config.steps:
                losses.append(self._train_step())
                self.step += 1
                bar.update()
                if self.step % log_every == 0 or self.step == config.steps:
                    loss = float(torch.stack(losses).mean())
                    rate = len(losses) * config.batch / (time.monotonic() - started)
                    self._log(loss, rate, bar)
                    losses, started = [], time.monotonic()
                if interrupted() or self.journal.due():
                    self._save()
                if interrupted():
                    raise KeyboardInterrupt
        self._save()
        with replacing_folder(self.out / "flow") as partial:
            self.average.save_pretrained(partial)
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
        try:  # before the step: what is not finite never gets into the weights, nor into a checkpoint
            torch.nn.utils.clip_grad_norm_(self.flow.parameters(), self.config.clip, error_if_nonfinite=True)
        except RuntimeError as error:
            raise NumericalError(
                f"the loss is {float(loss.detach())} or its gradient is not finite at step {self.step}: lower `lr`; "
                f"{self.out} keeps the last checkpoint"
            ) from error
        self.optimizer.step()
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.flow.parameters()), 1 - decay)
        return loss.detach()

    @torch.no_grad()
    def _validate(self) -> float:
        generator = self._generator(INIT_STREAM + 1)
        total = 0.0
        for part in self.validation.split(INIT_IMAGES):
            noise = torch.rand(part.shape, generator=generator).to(self.device)
            x = self.average.preprocess(part.to(self.device)) + noise / self.flow.bins
            total += float(self.average.bits_per_dim(x).sum())
        return total / len(self.validation)

    def _log(self, loss: float, rate: float, bar: Bar) -> None:
        held_out = self._validate()
        line = {"step": self.step, "bits_per_dim": loss, "held_out": held_out, "images_per_second": rate}
        self.journal.log(line)
        bar.set_postfix_str(f"{loss:.3f} bits/dim, held out {held_out:.3f}")
        if self.step % 500 == 0 or self.step == self.config.steps:
            write_atomically(self.out / "samples.png", png(sample_sheet(self.average, self._generator(INIT_STREAM + 2))))

    def _save(self) -> None:
        self.journal.save(
            {
                "config": asdict(self.config) | {"images": self.images},
                "step": self.step,
                "flow": self.flow.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
        )

    def _take(self, saved: dict[str, Any]) -> None:
        """Continue from what `_save` saved."""
        ours = _flat(asdict(self.config)) | {"images": self.images[:8]}
        theirs = _flat(saved["config"]) | {"images": saved["config"]["images"][:8]}
        # how long to train may be changed along the way; what is learned may not
        free = {"steps", "decay", "lr"}
        if changed := [
            f"{name} is {theirs.get(name)} there, {value} here"
            for name, value in ours.items()
            if name not in free and value != theirs.get(name)
        ]:
            raise InputError(f"{self.out} holds a training with other parameters ({'; '.join(changed)}): choose another folder")
        self.flow.load_state_dict(saved["flow"])
        self.average.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.step = saved["step"]
        logger.info("continuing %s from step %d", self.out, self.step)


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """A config without nesting, {"flow.resolution": 64, …}, its tuples as lists, as a checkpoint has them."""
    plain = json.loads(json.dumps(config))
    nested = {f"{name}.{key}": entry for name, value in plain.items() if isinstance(value, dict) for key, entry in value.items()}
    return {name: value for name, value in plain.items() if not isinstance(value, dict)} | nested


@torch.no_grad()
def sample_sheet(flow: Glow, generator: torch.Generator, temperature: float = 0.7, side: int = 8) -> Image.Image:
    """A picture of side × side samples of a flow."""
    images = flow.sample(side * side, temperature, generator).cpu()
    channels, size = images.shape[1], images.shape[2]
    sheet = images.reshape(side, side, channels, size, size).permute(0, 3, 1, 4, 2).reshape(side * size, side * size, channels)
    return picture_of(sheet.numpy())
