"""Carry out runs in processes of this machine: one that dies stops no other."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from harness.bench.outcome import Outcome, attempt, failed
from harness.machine import keep_freed_memory
from harness.runs.run import Run

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.5  # between a run's messages about its progress
Report = Callable[[Path, float], None]  # a run's folder, and the part of the run that is done


def why_not() -> str:
    """Why several processes cannot work together here, which takes semaphores of the system's; "" if they can."""
    try:
        multiprocessing.get_context("spawn").Lock()
    except (OSError, ImportError) as error:  # which names no file; ImportError where there are none at all
        return str(error)
    return ""


def in_processes(
    runs: list[Run], device: str, jobs: int, report: Report = lambda folder, part: None, tries: int = 1
) -> Iterator[Outcome]:
    """The outcomes of runs, as they end.

    One process that dies takes a pool with it. Which of its runs was at fault isn't known until there is but one process.

    Args:
        runs: whichever.
        device: where to compute.
        jobs: processes at the same time.
        report: told how far each run is.
        tries: how often a run's process may die, alone, until the run is given up.
    """
    most, deaths = jobs, Counter[Path]()
    while runs:
        jobs, broken = min(jobs, len(runs)), []
        for run, outcome in _in_pool(runs, device, jobs, report):
            if outcome is None:
                broken.append(run)
                continue
            report(run.folder, 1)
            yield outcome
        runs = sorted(broken, key=runs.index)
        if not runs:
            break
        if jobs > 1:
            jobs //= 2
            logger.warning("a process died, perhaps for lack of memory: going on with %d at a time", jobs)
            continue
        deaths[runs[0].folder] += 1
        if deaths[runs[0].folder] == tries:
            run, jobs = runs.pop(0), most
            report(run.folder, 1)
            times = f" {tries} times" if tries > 1 else ""
            yield failed(run, f"its process died{times}, perhaps for lack of memory: run the same command again to continue it")


def _in_pool(runs: list[Run], device: str, jobs: int, report: Report) -> Iterator[tuple[Run, Outcome | None]]:
    """The runs as they end; None for those that were running or waiting when a process died."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()

    def listen() -> None:
        while True:
            report(*queue.get())

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


def _work(run: Run, device: str) -> Outcome:
    last = time.monotonic()

    def report(done: float) -> None:
        nonlocal last
        if time.monotonic() - last > REPORT_SECONDS:
            last = time.monotonic()
            with contextlib.suppress(OSError):
                _queue.put((run.folder, done))

    return attempt(run, device, report)
