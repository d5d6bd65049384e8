"""Carry out runs, several at once: on the cores of one machine, or wherever an executor has them done. One that fails stops no other.

This is the one place that knows about executors. An executor is any `concurrent.futures.Executor`: those of SLURM and Dask are in
`harness.bench.slurm` and `harness.bench.dask`. What a task does is `carry_out`, and what came of it is in the folders of its runs, so
that a task has no result, and may be done twice, in part, or not at all.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

from harness.bench.outcome import Outcome, attempt, failed, outcome_of
from harness.bench.processes import in_processes, why_not
from harness.io.progress import Bar, progress_bar
from harness.machine import checked, jobs_of
from harness.report.tables import score_text
from harness.runs.records import FAILURE
from harness.runs.run import Run

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

TRIES = 3  # of a task, or of a run's process in it, that dies
LOOK_SECONDS = 5.0  # between looks into the folders of runs that are done elsewhere
BUSY_SECONDS = 10.0  # between tries of a run that another process is at

Pack = Callable[[Sequence[Run]], Sequence[Sequence[Run]]]  # the runs of each task
Work = TypeVar("Work")


def singly(runs: Sequence[Run]) -> Sequence[Sequence[Run]]:
    """Each run is a task."""
    return [[run] for run in runs]


def execute(
    runs: Iterable[Run],
    device: str | torch.device = "cpu",
    jobs: int | None = None,
    progress: bool = True,
    executor: Executor | None = None,
    pack: Pack = singly,
) -> list[Outcome]:
    """Execute runs; one that fails doesn't stop the others.

    Args:
        runs: whichever; those that are done cost nothing.
        device: where to compute.
        jobs: processes at the same time; None: one per core on a CPU, as small networks gain little from a second thread, else one.
            With an executor, in each task; None: one.
        progress: show a bar on stderr.
        executor: whose tasks do the runs, on machines that see the same folders; None: this machine does them.
        pack: which runs make a task of the executor's.

    Returns:
        the outcomes in the order of `runs`.

    Raises:
        InputError: for an unknown device.
    """
    runs, device = list(runs), checked(device)
    todo = [run for run in runs if run.state != "done"]
    outcomes = {run.folder: attempt(run, device) for run in runs if run.state == "done"}
    with _Bar(len(todo), progress) as bar:
        if executor is None:
            finished = _here(todo, device, jobs, bar)
        else:
            finished = _elsewhere(todo, device, jobs, bar, executor, pack)
        for position, outcome in enumerate(finished, start=1):
            outcomes[outcome.run.folder] = outcome
            result = outcome.error if outcome.scores is None else f"R² {score_text(outcome.scores.r2.mean)}"
            with bar.hidden():
                logger.info("%d/%d  %s: %s", position, len(todo), outcome.run, result)
    return [outcomes[run.folder] for run in runs]


def _here(runs: list[Run], device: str, jobs: int | None, bar: _Bar) -> Iterator[Outcome]:
    jobs = jobs_of(len(runs), device, jobs)
    if jobs > 1 and (reason := why_not()):
        logger.warning("one run at a time, as processes cannot work together here: %s (is /dev/shm writable?)", reason)
        jobs = 1
    if jobs > 1:
        yield from in_processes(runs, device, jobs, bar.at)
        return
    for run in runs:
        outcome = attempt(run, device, partial(bar.at, run.folder))
        bar.at(run.folder, 1)
        yield outcome


def submit(runs: Sequence[Run], device: str, jobs: int | None, executor: Executor, pack: Pack) -> dict[Future[None], Sequence[Run]]:
    """Hand tasks to an executor, all at once if it has a `batch`; what each holds."""
    with getattr(executor, "batch", contextlib.nullcontext)():
        return {executor.submit(carry_out, _anywhere(part), device, jobs or 1): part for part in pack(runs)}


def _anywhere(runs: Iterable[Run]) -> list[Run]:
    """The runs, with paths that hold in whichever folder a task is."""
    return [replace(run, data=run.data.absolute(), out=run.out.absolute()) for run in runs]


def carry_out(runs: list[Run], device: str, jobs: int) -> None:
    """What a task does, on whatever machine: its runs, in processes of their own, so that one that dies is not the end of the task.

    A run that another process is at is tried again: that process may be dying, with the task that had the run before.
    """
    multiprocessing.current_process().daemon = False  # as Dask's workers are, which then could have no processes
    for busy in range(TRIES):
        if busy:
            time.sleep(BUSY_SECONDS)
        runs = [outcome.run for outcome in in_processes(runs, device, jobs, tries=TRIES) if outcome.busy]
        if not runs:
            break


def _elsewhere(runs: list[Run], device: str, jobs: int | None, bar: _Bar, executor: Executor, pack: Pack) -> Iterator[Outcome]:
    """The outcomes of runs that an executor has done, each when its task ends."""
    for run in runs:
        (run.folder / FAILURE).unlink(missing_ok=True)

    def look(running: Iterable[Run]) -> None:
        for run in running:
            if run.is_done:
                bar.at(run.folder, 1)

    def is_over(run: Run) -> bool:
        return run.is_done or (run.folder / FAILURE).exists()

    for run, task in waited_for(runs, lambda left: submit(left, device, jobs, executor, pack), is_over, look):
        bar.at(run.folder, 1)
        yield _outcome(run, task)


def waited_for(
    work: Sequence[Work],
    submit: Callable[[Sequence[Work]], Mapping[Future[None], Sequence[Work]]],
    is_over: Callable[[Work], bool],
    look: Callable[[Iterable[Work]], None],
) -> Iterator[tuple[Work, Future[None]]]:
    """Pieces of work that an executor has done, each with its task, when that ends. What tasks leave undone is submitted again.

    Args:
        work: its pieces.
        submit: hands some to the executor; what each task holds.
        is_over: whether a piece is done, or has failed by itself.
        look: called now and then with what tasks hold that have not ended.
    """
    for tries in range(1, TRIES + 1):
        tasks, left = submit(work), []
        running = set(tasks)
        while running:
            ended, running = wait(running, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
            for task in ended:
                for piece in tasks[task]:
                    if not is_over(piece) and tries < TRIES:
                        left.append(piece)
                    else:
                        yield piece, task
            look(piece for task in running for piece in tasks[task])
        if not left:
            break
        work = left


def _outcome(run: Run, task: Future[None]) -> Outcome:
    """What came of a run whose task has ended and is not tried again."""
    outcome = outcome_of(run)
    return outcome if outcome.scores is not None or outcome.error else failed(run, why_left(task))


def why_left(task: Future[None]) -> str:
    """Why work is not done whose last task has ended."""
    error = "it was cancelled" if task.cancelled() else task.exception() or "another process may be at it"
    return f"{TRIES} tasks ended without it: {' '.join(str(error).split())}"


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
