"""Watchers of a run: TensorBoard, or a function of the user's, are told the numbers of its log and its scores while they come.

They change nothing: a watcher that fails is left, and the run goes on. A run that continues opens its watchers anew and tells them what its
log has so far, so that what they were told in the end is that of a run that was never stopped.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from harness.models.lookup import function_of, is_own
from splits.errors import DependencyError, InputError, did_you_mean

if TYPE_CHECKING:
    from harness.runs.records import RunScores, RunSetup

logger = logging.getLogger(__name__)

Tell = Callable[[Mapping[str, float], int], object]  # numbers by name, at a step
Watcher = Callable[["RunSetup", Path], AbstractContextManager[Tell]]  # of a run's config.json and its folder

TENSORBOARD = "tensorboard"
EVENTS = "events.out.tfevents.*"


@contextlib.contextmanager
def tensorboard(setup: RunSetup, folder: Path) -> Iterator[Tell]:
    """Write scalars into `<folder>/tensorboard/`, in the place of those of before: `tensorboard --logdir runs/` shows all runs."""
    from torch.utils.tensorboard import SummaryWriter

    events = folder / TENSORBOARD
    for before in events.glob(EVENTS):
        before.unlink()
    with SummaryWriter(str(events)) as writer:

        def tell(values: Mapping[str, float], step: int) -> None:
            for name, value in values.items():
                writer.add_scalar(re.sub(r"[^-/\w.]", "_", name), value, step)

        yield tell


def watcher_of(name: str) -> Watcher:
    """The watcher of that name, or the user's function that `module:function` names, whose module is imported.

    Raises:
        ValueError: for an unknown name, or a function that isn't there.
        DependencyError: if what it needs is not installed.
    """
    if is_own(name):
        return function_of(name, "log")
    if name != TENSORBOARD:
        raise InputError(
            f"unknown log {name!r}{did_you_mean(name, [TENSORBOARD])} (or give a function of your own as module:function)"
        )
    if find_spec("tensorboard") is None:
        raise DependencyError(
            "the log tensorboard needs the package: pip install 'ood-data[tensorboard]', or -e '.[tensorboard]' in its checkout"
        )
    return tensorboard


def check_watchers(names: Sequence[str]) -> None:
    """Raise as `watcher_of` for a name that is none."""
    for name in names:
        watcher_of(name)


class Watched:
    """A run and its watchers; a context manager, in which they are open once the first number comes.

    Args:
        names: of the watchers.
        setup: what the run's config.json says.
        folder: of the run.
        lines: its log.jsonl.
    """

    def __init__(self, names: Sequence[str], setup: RunSetup, folder: Path, lines: Path) -> None:
        self._names, self._setup, self._folder, self._lines = names, setup, folder, lines
        self._stack = contextlib.ExitStack()
        self._open: dict[str, Tell] | None = None
        self._last: int | None = None  # step that was told

    def line(self, line: Mapping[str, Any]) -> None:
        """Tell a line that the log has since just now."""
        with self._left_if_it_fails(*self._names):
            if self._open is None:
                self._begin()  # which tells all that the log has
            else:
                self._tell(*self._of_line(line))

    def scores(self, scores: RunScores) -> None:
        """Tell the scores, at the last step: `test/r2/<factor>` and so on."""
        with self._left_if_it_fails(*self._names):
            if self._open is None:
                self._begin()
            values = {}
            for side, errors in (("test", scores), ("train", scores.train)):
                for measure in ("r2", "r2_sklearn", "mse"):
                    found = getattr(errors, measure)
                    for factor, value in {**found.factors, "mean": found.mean}.items():
                        values[f"{side}/{measure}/{factor}"] = value
            last = self._setup.config.train.steps if self._last is None else self._last
            self._tell({name: value for name, value in values.items() if value is not None}, last)

    def _begin(self) -> None:
        self._open = {}
        for name in self._names:
            with self._left_if_it_fails(name):
                watcher = watcher_of(name)(self._setup, self._folder)
                self._open[name] = watcher.__enter__()
                self._stack.push(partial(self._close, name, watcher))
        for values, step in self._logged():
            self._tell(values, step)

    def _close(self, name: str, watcher: AbstractContextManager[Tell], *failure: Any) -> None:
        with self._left_if_it_fails(name):
            watcher.__exit__(*failure)  # what it answers is left: a failure is not a watcher's to hold

    def _logged(self) -> Iterator[tuple[dict[str, float], int]]:
        if self._lines.exists():
            for number, text in enumerate(self._lines.read_bytes().splitlines(), start=1):
                try:
                    told = self._of_line(json.loads(text))
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # cut by a crash, say
                    logger.warning("%s: line %d can't be read, and is not told to a log", self._lines, number)
                else:
                    yield told

    def _of_line(self, line: Mapping[str, Any]) -> tuple[dict[str, float], int]:
        """The numbers of a line, `train/loss` and so on, and its step, counted over all phases."""
        phase = line["phase"]
        before = self._setup.config.train.steps if phase == "readout" else 0
        return {f"{phase}/{name}": value for name, value in line.items() if name not in ("phase", "step")}, before + line["step"]

    def _tell(self, values: Mapping[str, float], step: int) -> None:
        self._last = step if self._last is None else max(step, self._last)
        for name, tell in [*(self._open or {}).items()]:
            with self._left_if_it_fails(name):
                tell(values, step)

    @contextlib.contextmanager
    def _left_if_it_fails(self, *names: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk, a server that is gone: the run is worth more than its log
            logger.warning("%s: the log %s is left: %s: %s", self._folder, ", ".join(names), type(error).__name__, error)
            for name in names:
                (self._open or {}).pop(name, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: Any) -> None:
        self._stack.__exit__(*failure)
