"""A store that tasks of a cluster make in parts: how far each is, from what lies there, and who joins them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from celebglow.generate import describe
from celebglow.pipeline import CelebGlowPipeline
from celebglow.population import Population
from harness.bench import queue
from harness.bench.cluster import Cluster
from harness.bench.engine import Engine, State, Submitted, Task
from harness.bench.parts import PartQueue, Parts, make_parts, status, submit_parts
from harness.bench.queue import SubmittedTask
from harness.data.description import Description
from harness.data.manifest import Paths
from harness.data.writer import Writer
from harness.io.locks import acquire
from helpers.commands import assert_one_clear_line, invoke
from helpers.files import contents
from helpers.flows import make
from splits.errors import MissingError

SIX: dict[str, Any] = {"persons": 6, "levels": 2}
CLUSTER = Cluster(engine="slurm", workers=3)


class Held(Engine):
    """A scheduler in this process, whose tasks are done when somebody says so."""

    waiting: dict[str, Task]

    def start(self, tasks: Sequence[Task]) -> list[str]:
        ids = [f"1_{len(self.waiting) + number}" for number, _ in enumerate(tasks)]
        self.waiting.update(zip(ids, tasks, strict=True))
        return ids

    def states(self) -> dict[str, State]:
        return dict.fromkeys(self.waiting, "queued")

    def cancel(self, ids: Sequence[str]) -> None:
        for key in ids:
            self.waiting.pop(key).future.cancel()

    @classmethod
    def do(cls, key: str) -> None:
        task = cls.waiting.pop(key)
        task.call()
        task.future.set_result(None)


class Hiccup(Held):
    """A scheduler that does not answer as long as it is `silent`."""

    silent = False

    def states(self) -> dict[str, State]:
        if Hiccup.silent:
            raise MissingError("squeue: Socket timed out")
        return super().states()


class AtOnce(Held):
    """A scheduler whose tasks are over when they are handed over; the first of all does nothing, as one whose node died."""

    handed = 0

    def start(self, tasks: Sequence[Task]) -> list[str]:
        ids = super().start(tasks)
        for key in ids:
            AtOnce.handed += 1
            if AtOnce.handed == 1:
                self.waiting.pop(key).future.set_exception(MissingError("the node is gone"))
            else:
                self.do(key)
        return ids


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Held]], None]:
    """Put a scheduler in the place of all."""

    def used(kind: type[Held]) -> None:
        def engine_of(cluster: Cluster, folder: Path, submitted: Submitted = lambda tasks: None) -> Engine:
            return kind(cluster, folder, submitted)

        kind.waiting = {}
        monkeypatch.setattr(queue, "engine_of", engine_of)

    return used


@pytest.fixture
def description(pipeline: CelebGlowPipeline) -> Description:
    import torch

    return describe(Population(**SIX).checked(pipeline), pipeline, torch.device("cpu"), pipeline.sha256())


def made(part: tuple[int, int], root: Path, pipeline: CelebGlowPipeline) -> bool:
    return make(root, pipeline, part, **SIX)


def test_parts_are_handed_over_once_and_joined(
    tmp_path: Path, pipeline: CelebGlowPipeline, description: Description, use: Callable[[type[Held]], None]
) -> None:
    make(tmp_path / "one", pipeline, **SIX)
    use(Held)
    root = tmp_path / "parts"
    work = partial(made, root=root, pipeline=pipeline)
    report = submit_parts(root, description, work, CLUSTER)
    assert report.ok
    assert report.data["counts"] == {"done": 0, "running": 0, "queued": 3, "failed": 0, "left": 0}
    again = submit_parts(root, description, work, CLUSTER.model_copy(update={"workers": 5}))
    assert "handed to slurm: 0 of 3 parts" in again.lines
    Held.do("1_1")
    PartQueue(root, "celebglow").cancel("ood-data generate")
    told = status(root, "celebglow")
    assert not told.ok
    assert told.data["parts"] == {"1/3": "left", "2/3": "done", "3/3": "left"}
    assert "handed to slurm: 2 of 3 parts" in submit_parts(root, description, work, CLUSTER).lines
    for key in list(Held.waiting):
        Held.do(key)
    assert status(root, "celebglow").data["complete"]
    found = {name: data for name, data in contents(root).items() if not name.startswith(".cluster")}
    assert found == contents(tmp_path / "one")


def test_waiting_a_task_that_dies_is_tried_again(
    tmp_path: Path, pipeline: CelebGlowPipeline, description: Description, use: Callable[[type[Held]], None]
) -> None:
    use(AtOnce)
    report = submit_parts(
        tmp_path, description, partial(made, root=tmp_path, pipeline=pipeline), CLUSTER, wait=True, progress=False
    )
    assert report.data["complete"]
    assert AtOnce.handed == 4


def test_a_part_that_fails_is_told_and_forgotten_when_tried_again(
    tmp_path: Path, pipeline: CelebGlowPipeline, description: Description, use: Callable[[type[Held]], None]
) -> None:
    use(Held)

    def full(part: tuple[int, int]) -> None:
        raise OSError(28, "No space left on device")

    submit_parts(tmp_path, description, full, CLUSTER)
    for key in list(Held.waiting):
        Held.do(key)
    told = status(tmp_path, "celebglow")
    assert not told.ok
    assert set(told.data["parts"].values()) == {"failed"}
    assert "No space left on device" in told.data["failed"]["1/3"]
    report = submit_parts(tmp_path, description, full, CLUSTER)
    assert report.data["counts"]["queued"] == 3


def test_an_extension_is_done_when_it_is_made(
    tmp_path: Path, pipeline: CelebGlowPipeline, description: Description, use: Callable[[type[Held]], None]
) -> None:
    make(tmp_path, pipeline)  # three people of six

    def full(part: tuple[int, int]) -> None:
        raise OSError(28, "No space left on device")

    use(Held)
    submit_parts(tmp_path, description, full, CLUSTER)
    told = status(tmp_path, "celebglow")
    assert told.ok
    assert not told.data["complete"]
    assert told.data["parts"] == {"1/3": "done", "2/3": "queued", "3/3": "queued"}
    for key in list(Held.waiting):
        Held.do(key)
    told = status(tmp_path, "celebglow")
    assert not told.ok
    assert told.data["parts"] == {"1/3": "done", "2/3": "failed", "3/3": "failed"}
    submit_parts(tmp_path, description, partial(made, root=tmp_path, pipeline=pipeline), CLUSTER)
    for key in list(Held.waiting):
        Held.do(key)
    told = status(tmp_path, "celebglow")
    assert told.ok
    assert told.data["complete"]


def test_what_a_scheduler_said_holds_while_it_does_not_answer(
    tmp_path: Path, description: Description, use: Callable[[type[Held]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(Hiccup)
    submit_parts(tmp_path, description, print, CLUSTER)
    found = PartQueue(tmp_path, "celebglow")
    monkeypatch.setattr(Hiccup, "silent", True)
    found.look()
    assert set(found.states(3, description).values()) == {"queued"}
    assert found.silent == {"slurm": "squeue: Socket timed out"}
    assert set(status(tmp_path, "celebglow").data["parts"].values()) == {"left"}  # who has heard nothing knows nothing
    with pytest.raises(MissingError, match="timed out"):
        submit_parts(tmp_path, description, print, CLUSTER)
    monkeypatch.setattr(queue, "SILENT_SECONDS", 0)
    found.look()
    assert set(found.states(3, description).values()) == {"left"}
    monkeypatch.setattr(Hiccup, "silent", False)
    found.look()
    assert set(found.states(3, description).values()) == {"queued"}
    assert not found.silent


def test_files_that_vanish_while_status_looks_stop_nothing(
    tmp_path: Path, description: Description, use: Callable[[type[Held]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(Held)
    submit_parts(tmp_path, description, print, CLUSTER)
    found = PartQueue(tmp_path, "celebglow")
    found.failure(1, 3).write_text("{")
    told = status(tmp_path, "celebglow")
    assert told.data["failed"] == {"1/3": "reason unknown"}
    assert any(line.endswith("part 1/3: reason unknown") for line in told.lines)
    joined = [found.paths.part((1, 3))]  # is not there any more
    monkeypatch.setattr(Paths, "parts", lambda paths: joined)
    assert found.count == 3
    assert status(tmp_path, "celebglow").data["counts"]["queued"] == 2


def test_the_work_of_a_task_is_written_down_or_refused(tmp_path: Path) -> None:
    handed = dict[str, list[Any]]()
    Held.waiting = {}
    engine = Held(CLUSTER, tmp_path, handed.update)
    engine.submit(print, (1, 2), 3)
    assert handed == {"1_0": [1, 2]}
    with pytest.raises(TypeError):
        engine.submit(print)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        engine.submit(print, runs=[1])  # type: ignore[call-arg]


@pytest.mark.parametrize("part", [0, 4])
def test_parts_that_are_not_there_are_refused(part: int) -> None:
    with pytest.raises(ValueError, match="a part that is not there"):
        Parts(cluster=CLUSTER, count=3, tasks=(SubmittedTask(id="1", work=(part,)),))


def test_who_should_have_joined_the_parts_was_killed(tmp_path: Path, pipeline: CelebGlowPipeline, description: Description) -> None:
    make(tmp_path, pipeline, (1, 2), **SIX)
    with Writer(tmp_path, description, (2, 2)) as writer:
        for person in writer.missing:
            latent = pipeline.person(person, 0, 0.7)
            import torch

            values = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
            writer.publish(person, pipeline.grid(latent, values, "fp32", 16))
    found = PartQueue(tmp_path, "celebglow")
    assert found.count == 2
    assert found.states(2, description) == {1: "done", 2: "left"}
    make_parts([2], 2, partial(made, root=tmp_path, pipeline=pipeline), tmp_path)
    assert found.states(2, description) == {1: "done", 2: "done"}


def test_a_part_that_another_process_makes_is_running(
    tmp_path: Path, pipeline: CelebGlowPipeline, description: Description
) -> None:
    make(tmp_path, pipeline, (1, 2), **SIX)
    found = PartQueue(tmp_path, "celebglow")
    with acquire(found.paths.part((2, 2))):
        assert found.states(2, description) == {1: "done", 2: "running"}


def test_what_does_not_go_together_is_told_before_anything_is_read(tmp_path: Path) -> None:
    command = ["generate", "celebglow", "--out", tmp_path, "--cluster", tmp_path / "none.toml"]
    assert_one_clear_line(invoke(*command, "--part", "1/2"), 2, "neither with --part nor with --overwrite")
    assert_one_clear_line(invoke(*command, "--overwrite"), 2, "neither with --part")
    assert_one_clear_line(invoke("generate", "celebglow", "--wait"), 2, "--wait is for --cluster")
    assert_one_clear_line(invoke(*command), 2, "a cluster in TOML is expected")
    assert_one_clear_line(invoke("generate", "status", "--out", tmp_path), 1, "no parts of", "--cluster cluster.toml")
    assert not list(tmp_path.iterdir())
    assert_one_clear_line(invoke("generate", "cancel", "--out", tmp_path, "--json"), 1, "no parts of", "--cluster cluster.toml")
