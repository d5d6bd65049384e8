"""Carry out runs, several at once on the cores of one machine: one that fails, or a process that dies, stops no other."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from harness.io.failures import in_words
from harness.io.progress import Bar, progress_bar
from harness.machine import cores, keep_freed_memory, lacking
from harness.models import find
from harness.models.lookup import is_own
from harness.report.tables import score_text
from harness.runs.records import RunScores
from harness.runs.run import Run
from splits.errors import OodDataError

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.5  # between a run's messages about its progress


@dataclass(frozen=True)
class Outcome:
    """A run and its scores, or why it has none; `defect`: that is nothing that a user can cause."""

    run: Run
    scores: RunScores | None
    error: str = ""
    defect: bool = False


def execute(
    runs: Iterable[Run], device: str | torch.device = "cpu", jobs: int | None = None, progress: bool = True
) -> list[Outcome]:
    """Execute runs; one that fails doesn't stop the others.

    Args:
        runs: whichever; those that are done cost nothing.
        device: where to compute.
        jobs: processes at the same time; None: one per core on a CPU, as small networks gain little from a second thread, else one.
        progress: show a bar on stderr.

    Returns:
        the outcomes in the order of `runs`.
    """
    runs, device = list(runs), torch.device(device)
    todo = [run for run in runs if run.state != "done"]
    jobs = jobs_of(len(todo), device, jobs)
    if jobs > 1 and (reason := _no_processes()):
        logger.warning("one run at a time, as processes cannot work together here: %s (is /dev/shm writable?)", reason)
        jobs = 1
    outcomes = {run.folder: attempt(run, device) for run in runs if run.state == "done"}
    with _Bar(len(todo), progress) as bar:
        finished = _in_processes(todo, device, jobs, bar) if jobs > 1 else _in_turn(todo, device, bar)
        for position, outcome in enumerate(finished, start=1):
            outcomes[outcome.run.folder] = outcome
            result = outcome.error if outcome.scores is None else f"R² {score_text(outcome.scores.r2.mean)}"
            with bar.hidden():
                logger.info("%d/%d  %s: %s", position, len(todo), outcome.run, result)
    return [outcomes[run.folder] for run in runs]


def jobs_of(runs: int, device: torch.device, jobs: int | None) -> int:
    """How many runs go at the same time, of so many: `jobs`, or one per core on a CPU, else one; at least one."""
    return min(jobs or (cores() if device.type == "cpu" else 1), max(runs, 1))


def _no_processes() -> str:
    """Why several processes cannot work together here, which takes semaphores of the system's; "" if they can."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError) as error:  # which names no file; ImportError where there are none at all
        return str(error)
    return ""


def attempt(run: Run, device: torch.device, progress: Callable[[float], None] = lambda part: None) -> Outcome:
    """Execute one run and keep its error."""
    code: tuple[Path, ...] = ()
    try:
        code = find(run.model).code
        return Outcome(run, run.execute(device, progress))
    except (Exception, SystemExit) as error:  # whatever a user's model raises, the other runs go on
        logger.debug("%s", run, exc_info=True)
        text = " ".join((in_words(error) if isinstance(error, OSError) else str(error)).split())
        where = next((frame for frame in reversed(traceback.extract_tb(error.__traceback__)) if Path(frame.filename) in code), None)
        if where is not None:  # in the user's code
            return Outcome(run, None, f"{type(error).__name__}: {text} ({where.filename}:{where.lineno})")
        if lack := lacking(error):
            return Outcome(run, None, f"{lack}; run the same command again to continue it, perhaps with fewer `jobs`")
        if isinstance(error, OodDataError | OSError):
            return Outcome(run, None, text)
        whose = f"a mistake in your {run.model}, or a defect" if is_own(run.model) else "a defect, please report it"
        return Outcome(run, None, f"{whose}: {type(error).__name__}: {text}", defect=True)


class _Bar:
    """How many runs are done and how long the rest takes. Every run counts the same: their steps cost from a millisecond to a second.

    The clock starts with the first step, and steps of before an interruption don't count as fast ones.
    """

    def __init__(self, runs: int, shown: bool) -> None:
        form = "{percentage:3.0f}% |{bar}| {n:.1f} of {total} runs, {elapsed} gone, {remaining} to go"
        on_terminal = shown and sys.stderr is not None and sys.stderr.isatty()
        self._shown = shown
        self._bar: Bar = (
            tqdm(total=runs, smoothing=0, dynamic_ncols=True, bar_format=form)
            if on_terminal
            else progress_bar("bench", "runs", runs, shown=shown)
        )
        self._lock = threading.Lock()
        self._done: dict[Path, float] = {}

    def at(self, folder: Path, done: float) -> None:
        """A part of a run is done."""
        if not self._shown:
            return
        with self._lock:
            first = folder not in self._done
            if not self._done and isinstance(self._bar, tqdm):
                self._bar.start_t = self._bar.last_print_t = time.time()
            self._done[folder] = max(done, self._done.get(folder, 0.0))
            if first and done < 1 and isinstance(self._bar, tqdm):
                self._bar.initial += done
            self._bar.update(sum(self._done.values()) - self._bar.n)

    def hidden(self) -> contextlib.AbstractContextManager[None]:
        """Hide the bar while something else is written."""
        mode: contextlib.AbstractContextManager[None] = tqdm.external_write_mode()
        return mode

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__(None, None, None)


def _in_turn(runs: list[Run], device: torch.device, bar: _Bar) -> Iterator[Outcome]:
    for run in runs:
        outcome = attempt(run, device, partial(bar.at, run.folder))
        bar.at(run.folder, 1)
        yield outcome


def _in_processes(runs: list[Run], device: torch.device, jobs: int, bar: _Bar) -> Iterator[Outcome]:
    """One process that dies takes a pool with it. Which of its runs was at fault isn't known until there is but one process."""
    most = jobs
    while runs:
        jobs, broken = min(jobs, len(runs)), []
        for run, outcome in _in_pool(runs, device, jobs, bar):
            if outcome is None:
                broken.append(run)
                continue
            bar.at(run.folder, 1)
            yield outcome
        runs = sorted(broken, key=runs.index)
        if runs and jobs == 1:
            bar.at(runs[0].folder, 1)
            yield Outcome(
                runs.pop(0), None, "its process died, perhaps for lack of memory: run the same command again to continue it"
            )
            jobs = most
        elif runs:
            jobs //= 2
            logger.warning("a process died, perhaps for lack of memory: going on with %d at a time", jobs)


def _in_pool(runs: list[Run], device: torch.device, jobs: int, bar: _Bar) -> Iterator[tuple[Run, Outcome | None]]:
    """The runs as they end; None for those that were running or waiting when a process died."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()

    def listen() -> None:
        while True:
            bar.at(*queue.get())

    # Never written to from here, and not waited for: a worker that was killed may hold the queue's lock for ever.
    threading.Thread(target=listen, daemon=True).start()
    level = logging.getLogger().level
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker, initargs=(queue, level))
    try:
        futures = {pool.submit(_work, run, device): run for run in runs}
        for future in as_completed(futures):
            try:
                yield futures[future], future.result()
            except BrokenProcessPool:
                yield futures[future], None
    except BaseException:
        for process in list(pool._processes.values()):
            process.terminate()  # a run continues from its checkpoint
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_queue: Any = None


def _start_worker(queue: Any, level: int) -> None:
    global _queue
    _queue = queue
    logging.basicConfig(level=logging.DEBUG if level <= logging.DEBUG else logging.WARNING, format="%(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    keep_freed_memory()
    sys.stdout = sys.stderr  # what a user's model prints
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)  # killed without a word: a worker must not go on by itself

    threading.Thread(target=follow, daemon=True).start()


def _work(run: Run, device: torch.device) -> Outcome:
    last = time.monotonic()

    def report(done: float) -> None:
        nonlocal last
        if time.monotonic() - last > REPORT_SECONDS:
            last = time.monotonic()
            with contextlib.suppress(OSError):
                _queue.put((run.folder, done))

    return attempt(run, device, report)
