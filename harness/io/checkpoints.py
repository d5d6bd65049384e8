"""A training's folder: a checkpoint that is replaced, a log that grows, and both in agreement after any interruption."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from harness.io.atomic import write_atomically
from harness.io.locks import Owner
from splits.errors import DamagedError, InputError, OodDataError

if TYPE_CHECKING:
    import torch

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"
TRAINED = "trained.pt"  # a checkpoint that is kept: where a longer training continues
SAVING_SHARE = 20  # a checkpoint waits until training took so many times as long as the last one


class Journal:
    """The files checkpoint.pt and log.jsonl in a folder: whoever continues from the checkpoint finds the log as it was then.

    Args:
        folder: of the training.
        every: seconds between checkpoints, at least.
        owner: of the folder, where another process may want to be it.

    Attributes:
        on_line: called with each line, once the log has it.
    """

    def __init__(self, folder: Path, every: float, owner: Owner | None = None) -> None:
        self._owner = owner
        self._write = write_atomically if owner is None else owner.write
        self.folder, self.checkpoint, self.lines = folder, folder / CHECKPOINT, folder / LOG
        self.every = every
        self.on_line: Callable[[dict[str, Any]], None] = lambda line: None
        self._saved, self._cost = time.monotonic(), 0.0

    def restore(self, take: Callable[[dict[str, Any]], None], device: torch.device) -> bool:
        """Let `take` continue from the saved state, if there is one, and remove from the log what came later; returns whether.

        Raises:
            ValueError: if the checkpoint is damaged, or `take` can't continue from it.
        """
        if not self.checkpoint.exists():
            self._cut(0)
            return False
        import torch  # here, as who only asks for the names of the files needs none

        try:
            saved = torch.load(self.checkpoint, map_location=device, weights_only=True)
            take(saved)
            self._cut(saved["log_bytes"] if "log_bytes" in saved else self._bytes_up_to(saved["step"]))
        except (OodDataError, OSError, MemoryError):
            raise
        except Exception as error:  # whatever a damaged file makes the readers raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            if isinstance(error, pickle.UnpicklingError):  # then torch's advice is to run what is in the file
                reason = "it is damaged, or not a checkpoint"
            raise InputError(f"can't continue from {self.checkpoint}, delete it to start again: {reason}") from error
        return True

    def log(self, line: dict[str, Any]) -> None:
        """Add a line."""
        if self._owner is not None:
            self._owner.check()
        with self.lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.on_line(line)

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self._saved >= max(self.every, SAVING_SHARE * self._cost)

    def save(self, state: dict[str, Any], name: str = CHECKPOINT) -> None:
        """Make `state`, tensors and plain values, what an interrupted training continues from; or keep it under another name."""
        import torch

        start = time.monotonic()
        buffer = io.BytesIO()
        size = self.lines.stat().st_size if self.lines.exists() else 0
        torch.save(state | {"log_bytes": size}, buffer)
        self._write(self.folder / name, buffer.getvalue())
        self._saved = time.monotonic()
        self._cost = self._saved - start

    def begin_with(self, other: Path) -> None:
        """Let this training continue where the one in another folder ended: its kept state, and its log as it was then.

        Raises:
            OSError: if that state is damaged.
        """
        import torch

        kept, lines = (other / TRAINED).read_bytes(), other / LOG
        try:
            torch.load(io.BytesIO(kept), map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged file makes the reader raise
            raise DamagedError(f"{other / TRAINED} is damaged") from error
        self._write(self.lines, lines.read_bytes() if lines.exists() else b"")
        self._write(self.checkpoint, kept)

    def _cut(self, size: int) -> None:
        if self.lines.exists():
            with self.lines.open("r+b") as file:
                file.truncate(min(size, self.lines.stat().st_size))  # longer, it would be filled with zeros

    def _bytes_up_to(self, step: int) -> int:
        """The bytes of the whole lines up to a step: older checkpoints of flows don't say how long the log was."""
        size = 0
        if self.lines.exists():
            for line in self.lines.read_bytes().splitlines(keepends=True):
                if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                    break
                size += len(line)
        return size


@contextlib.contextmanager
def interrupted_between_steps() -> Iterator[Callable[[], bool]]:
    """A Ctrl-C is only noted, for the training to save when its step is whole; a second one interrupts at once.

    Yields:
        a function that says whether there was one. Always False where Python doesn't handle Ctrl-C: in another thread, or where a
        program ignores it or handles it in its own way.
    """
    noted = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted
        noted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
