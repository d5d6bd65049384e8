"""One run, model × dataset × kind × seed, and its folder: self-contained, idempotent, resumable, with one owner at a time.

`<out>/<dataset>/<kind>/<model>/<seed>-<fingerprint>/` holds config.json, log.jsonl, checkpoint.pt while it trains,
model.safetensors, trained.pt, where a longer training continues, maps.safetensors (`harness.runs.maps`), and scores.json, written
last and atomically: a folder without it is not done.

What a run is, is known without torch; `harness.runs.execution` carries it out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.io.checkpoints import CHECKPOINT
from harness.io.locks import owned
from harness.models import MODELS
from harness.runs.config import Config
from harness.runs.records import SCORES, RunScores
from splits import Kind
from splits.errors import BusyError

if TYPE_CHECKING:
    import torch

LOCK = ".lock"
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

    def execute(self, device: str | torch.device, progress: Callable[[float], None] = lambda part: None) -> RunScores:
        """Train and score, unless that is done.

        Args:
            device: where to compute.
            progress: called often, with the part of the run that is done, 0 to 1.

        Raises:
            ValueError: if scores.json is damaged; and what `harness.runs.execution.execute` raises.
        """
        if self.is_done:
            self._sweep()
        else:
            from harness.runs.execution import execute  # torch

            execute(self, device, progress)
        return RunScores.read(self.folder / SCORES)

    def _sweep(self) -> None:
        """Remove what a process leaves that was killed after it wrote the scores."""
        if not any((self.folder / name).exists() for name in (CHECKPOINT, LOCK)):
            return
        with contextlib.suppress(BusyError, OSError), owned(self.folder / LOCK, busy=""):
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
