"""What comes of a run: its scores, or an error, which its folder keeps."""

from __future__ import annotations

import contextlib
import logging
import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.io.failures import in_words
from harness.machine import lacking
from harness.models import find
from harness.models.lookup import is_own
from harness.runs.records import FAILURE, SCORES, Failure, RunScores
from harness.runs.run import Run
from splits.errors import BusyError, InputError, OodDataError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

LOG_LINES = 30  # of a traceback that are kept


@dataclass(frozen=True)
class Outcome:
    """A run and its scores, or why it has none.

    Attributes:
        run: whichever.
        scores: None if it has none.
        error: why, in a line; "" if it has.
        defect: whether that is nothing that a user can cause.
        busy: whether another process is at it, which may still end it.
    """

    run: Run
    scores: RunScores | None
    error: str = ""
    defect: bool = False
    busy: bool = False


def attempt(run: Run, device: str | torch.device, progress: Callable[[float], None] = lambda part: None) -> Outcome:
    """Execute one run and keep its error, also in its folder."""
    code: tuple[Path, ...] = ()
    try:
        code = find(run.model).code
        return Outcome(run, run.execute(device, progress))
    except BusyError as error:
        return Outcome(run, None, str(error), busy=True)
    except (Exception, SystemExit) as error:  # whatever a user's model raises, the other runs go on
        logger.debug("%s", run, exc_info=True)
        text, defect = _told(run, error, code)
        return failed(run, text, traceback.format_exception(error), defect)


def _told(run: Run, error: BaseException, code: tuple[Path, ...]) -> tuple[str, bool]:
    """An error in a line, and whether it is a defect; `code`: the files of a user's model."""
    text = " ".join((in_words(error) if isinstance(error, OSError) else str(error)).split())
    where = next((frame for frame in reversed(traceback.extract_tb(error.__traceback__)) if Path(frame.filename) in code), None)
    if where is not None:  # in the user's code
        return f"{type(error).__name__}: {text} ({where.filename}:{where.lineno})", False
    if lack := lacking(error):
        return f"{lack}; run the same command again to continue it, perhaps with fewer `jobs`", False
    if isinstance(error, OodDataError | OSError):
        return text, False
    whose = f"a mistake in your {run.model}, or a defect" if is_own(run.model) else "a defect, please report it"
    return f"{whose}: {type(error).__name__}: {text}", True


def failed(run: Run, error: str, log: Sequence[str] = (), defect: bool = False) -> Outcome:
    """The outcome of a run without scores, which its folder keeps too, if it can."""
    lines = tuple("".join(log).splitlines()[-LOG_LINES:])
    with contextlib.suppress(OSError):
        run.folder.mkdir(parents=True, exist_ok=True)
        Failure(error=error, machine=socket.gethostname(), log=lines).write(run.folder / FAILURE)
    return Outcome(run, None, error, defect)


def outcome_of(run: Run) -> Outcome:
    """What came of a run, as its folder tells: neither scores nor an error, if it was not carried out."""
    try:
        if run.is_done:
            return Outcome(run, RunScores.read(run.folder / SCORES))
        failure = Failure.read(run.folder / FAILURE)
        return Outcome(run, None, f"{failure.error} (on {failure.machine})")
    except FileNotFoundError:
        return Outcome(run, None)
    except (InputError, OSError) as error:
        return Outcome(run, None, str(error))
