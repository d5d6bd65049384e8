"""A dataset that a cluster makes, each task a part of it: how far the parts are, and that they are joined.

The truth is in the store: shards with a line in a manifest, a part's manifest that is held. Whoever finishes the last part joins all.
"""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from harness.bench.cluster import Cluster
from harness.bench.engine import Engine
from harness.bench.execute import BUSY_SECONDS, LOOK_SECONDS, TRIES, waited_for, why_left
from harness.bench.outcome import LOG_LINES
from harness.bench.queue import (
    FOLDER,
    UNKNOWN,
    Queue,
    Submission,
    SubmittedTask,
    WorkState,
    check_outlives,
    counted,
    in_words,
    scheduler,
    shortened,
)
from harness.data.description import Description, read_description
from harness.data.found import being_made, documents_of, done_shards, is_whole, look
from harness.data.manifest import Paths
from harness.io.locks import is_held
from harness.io.progress import Bar, move, progress_bar
from harness.runs.records import Failure
from harness.scoring.records import Count
from splits.errors import BusyError, InputError, how_many
from splits.formatting import Report

Make = Callable[[tuple[int, int]], object]  # makes part (i, n) of a store, i from 1, and joins the parts if it is the last one


class Parts(Submission):
    """A submission of parts of a store, whose numbers, from 1, are the work of its tasks.

    Attributes:
        count: how many there are in all.
        documents: of zarr's, by path inside the group, that the store is to have; {} in submissions of before.
    """

    count: Count
    documents: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _numbers_are_there(self) -> Self:
        if not all(1 <= part <= self.count for task in self.tasks for part in task.work):
            raise ValueError("a task has a part that is not there")
        return self

    @property
    def description(self) -> Description | None:
        """What the store is to hold; None if nothing says so."""
        return read_description({name: text.encode() for name, text in self.documents.items()})


class PartQueue(Queue[Parts]):
    """The parts of a store that were submitted.

    Args:
        root: folder of the stores.
        name: of the store.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.paths = Paths(root, name)
        super().__init__(root / FOLDER / name, Parts)

    @property
    def nothing(self) -> str:
        name = self.paths.name
        return f"no parts of {self.paths.group} were submitted: `ood-data generate {name} … --cluster cluster.toml` does"

    def open(self) -> list[Parts]:
        description = self.description
        return [] if description is not None and self._is_whole(description) else self.submissions

    def _is_whole(self, description: Description) -> bool:
        return self.paths.group.exists() and is_whole(self.paths, description, documents_of(self.paths, description))

    @property
    def description(self) -> Description | None:
        """What the store will hold: what it is being made into, or what was asked for last, if that is more; None if nothing says so."""
        there = being_made(self.paths) or read_description(self.paths.documents())
        asked = self.submissions[-1].description if self.submissions else None
        if asked is None or asked.name != self.paths.name or (there is not None and there.shape[0] >= asked.shape[0]):
            return there
        return asked

    @property
    def count(self) -> int | None:
        """The number of parts that the store is being made in: of those that were begun, or are queued; None if it is not."""
        begun = [path for path in self.paths.parts() if self.paths.is_begun(path) or is_held(path)]
        if begun:
            return int(begun[0].stem.rpartition("-of-")[2])
        return next(
            (each.count for each in reversed(self.submissions) if any(self.has(each, task.id) for task in each.tasks)), None
        )

    def states(self, count: int, description: Description | None) -> dict[int, WorkState]:
        """How far each part is, of so many parts of the store that is described; None: nothing says yet what it will be."""
        whole, done = False, set[int]()
        if description is not None and self.paths.group.exists():
            whole = self._is_whole(description)
            done = set(done_shards(self.paths, description, look(self.paths, description).entries))
        states = {part: self._state(part, count, description, done) for part in range(1, count + 1)}
        if whole:
            return dict.fromkeys(states, "done")
        if set(states.values()) == {"done"}:  # whoever should have joined them was killed
            states[count] = "queued" if self._is_queued(count, count) else "left"
        return states

    def _state(self, part: int, count: int, description: Description | None, done: set[int]) -> WorkState:
        if is_held(self.paths.part((part, count))):
            return "running"
        if description is not None and done.issuperset(description.shards_of((part, count))):
            return "done"
        if self.failure(part, count).exists():
            return "failed"
        return "queued" if self._is_queued(part, count) else "left"

    def _is_queued(self, part: int, count: int) -> bool:
        submissions = (each for each in self.submissions if each.count == count)
        return any(part in task.work and self.has(each, task.id) for each in submissions for task in each.tasks)

    def why(self, part: int, count: int) -> tuple[str, str]:
        """Why a part failed, and where, as far as its file tells, which may be gone meanwhile, or damaged."""
        try:
            failure = Failure.read(self.failure(part, count))
            return failure.error, f"{failure.error} (on {failure.machine})"
        except (InputError, OSError):
            return UNKNOWN, UNKNOWN

    def failure(self, part: int, count: int) -> Path:
        """The file that keeps why a part failed."""
        return _failure(self.folder, part, count)

    def report(self, count: int, description: Description | None) -> Report:
        """How far the parts are. Not ok if one has failed, or is neither done nor queued."""
        states = self.states(count, description)
        counts = counted(states.values())
        failures = {part: self.why(part, count) for part, state in states.items() if state == "failed"}
        lines = [f"{self.paths.group}, {in_words(counts, 'part')}"]
        lines += shortened(f"failed: part {part}/{count}: {where}" for part, (_, where) in failures.items())
        if counts["left"] or counts["failed"]:
            lines.append(f"what is left or failed is submitted again by the same command; the logs of tasks are in {self.folder}")
        lines += [f"{reason}: what is queued there is counted as left" for reason in self.silent.values()]
        data = {
            "store": str(self.paths.group),
            "complete": counts["done"] == count,
            "counts": counts,
            "parts": {f"{part}/{count}": state for part, state in states.items()},
            "failed": {f"{part}/{count}": error for part, (error, _) in failures.items()},
        }
        return Report(tuple(lines), data, not counts["failed"] and not counts["left"])


def status(root: Path, name: str) -> Report:
    """How far the parts of a store are that were submitted; see `PartQueue.report`."""
    queue = PartQueue(root, name)
    queue.check_any()
    return queue.report(queue.count or queue.submissions[-1].count, queue.description)


def make_parts(parts: Sequence[int], count: int, make: Make, folder: Path) -> None:
    """What a task does, on whatever machine. A part that fails keeps why in `folder`, and stops no other.

    A part that another process is at is tried again: that process may be dying, with the task that had the part before.
    """
    for part in parts:
        for busy in range(TRIES):
            if busy:
                time.sleep(BUSY_SECONDS)
            try:
                make((part, count))
            except BusyError:
                continue
            except Exception as error:
                text = " ".join(str(error).split()) or type(error).__name__
                _fail(folder, part, count, text, "".join(traceback.format_exception(error)))
            break


def submit_parts(
    root: Path, description: Description, make: Make, cluster: Cluster, wait: bool = False, progress: bool = True
) -> Report:
    """Hand the parts of a store that are neither done nor queued nor running to a cluster, as many as it has workers.

    Args:
        root: folder of the stores.
        description: what the store will hold.
        make: can be pickled, and holds on every machine.
        cluster: where.
        wait: until the store is whole, or cannot be made.
        progress: show how far it is, on stderr, when waiting.

    Returns:
        how far the parts are.

    Raises:
        ValueError: if a store of other parameters is there, or for a cluster that ends with the command, unless that waits.
        OSError: if a scheduler does not answer.
    """
    if not wait:
        check_outlives(cluster)
    queue = PartQueue(root, description.name)
    count = queue.count or min(cluster.workers, description.shards)
    order = _Order(queue, description, make, cluster, count)
    if not wait:
        todo = order.left()
        order.submit(todo)
        line = f"handed to {scheduler(cluster)}: {len(todo)} of {how_many(count, 'part')}"
        queue.read()
        report = queue.report(count, description).with_line(line)
        return report.with_line(f"ood-data generate status --out {root} says how far they are")
    with progress_bar(description.name, "img", description.shape[0], shown=progress) as bar:
        for _ in range(TRIES):  # a second time, if who should have joined the parts was killed
            if not (todo := order.left()):
                break
            for part, task in waited_for(todo, order.submit, order.is_over, lambda _: order.look(bar)):
                order.settle(part, task)
            order.wait_for_others(bar)
    queue.read()
    return queue.report(count, description)


class _Order:
    """The parts of a store that a cluster is to make; see `submit_parts`."""

    def __init__(self, queue: PartQueue, description: Description, make: Make, cluster: Cluster, count: int) -> None:
        self.queue, self.description, self.make, self.count = queue, description, make, count
        self.engine: Engine = queue.engine(cluster, self._document)

    def _document(self, tasks: Mapping[str, list[int]], reached: Cluster) -> Parts:
        submitted = tuple(SubmittedTask(id=key, work=tuple(parts)) for key, parts in tasks.items())
        documents = {name: text.decode() for name, text in self.description.metadata().items()}
        return Parts(cluster=reached, tasks=submitted, count=self.count, documents=documents)

    def states(self) -> dict[int, WorkState]:
        return self.queue.states(self.count, self.description)

    def left(self) -> list[int]:
        """The parts that are neither done nor queued nor running. What they failed of before is forgotten."""
        left = [part for part, state in self.states().items() if state in ("failed", "left")]
        for part in left:
            self.queue.failure(part, self.count).unlink(missing_ok=True)
        return left

    def submit(self, parts: Iterable[int]) -> dict[Future[None], list[int]]:
        folder = self.engine.folder
        with self.engine.batch():
            return {self.engine.submit(make_parts, [part], self.count, self.make, folder): [part] for part in parts}

    def is_over(self, part: int) -> bool:
        return self.queue.failure(part, self.count).exists() or self.states()[part] == "done"

    def look(self, bar: Bar) -> None:
        """Move a bar to what is done."""
        if self.queue.paths.group.exists():
            done = done_shards(self.queue.paths, self.description, look(self.queue.paths, self.description).entries)
            move(bar, sum(len(self.description.rows_of(shard)) for shard in done), self.description.shape[0])

    def settle(self, part: int, task: Future[None]) -> None:
        """Keep why a part is not made that is not tried again."""
        if not self.is_over(part) and not is_held(self.queue.paths.part((part, self.count))):
            _fail(self.engine.folder, part, self.count, why_left(task))

    def wait_for_others(self, bar: Bar) -> None:
        """Wait for parts that were queued or running before."""
        self.queue.read()
        while set(self.queue.states(self.count, self.description).values()) & {"queued", "running"}:
            time.sleep(LOOK_SECONDS)
            self.queue.look()
            self.look(bar)


def _failure(folder: Path, part: int, count: int) -> Path:
    return folder / f"{part}-of-{count}.failure"


def _fail(folder: Path, part: int, count: int, error: str, log: str = "") -> None:
    lines = tuple(log.splitlines()[-LOG_LINES:])
    Failure(error=error, machine=socket.gethostname(), log=lines).write(_failure(folder, part, count))
