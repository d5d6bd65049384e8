"""The whole CelebGlow grid, people × attribute levels, into a store: resumable, in parts, the same bytes every time."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from celebglow import card
from celebglow.pipeline import CelebGlowPipeline, exact_convolutions
from celebglow.population import NAME, Population
from harness.data.store import Description
from harness.data.writer import Writer
from harness.io.progress import progress_bar
from harness.machine import cores, keep_freed_memory

__all__ = ["Population", "describe", "generate", "generate_part"]


def describe(population: Population, pipeline: CelebGlowPipeline, device: torch.device, sha256: str) -> Description:
    """The store of a population; its source is everything that its bytes depend on."""
    assert population.resolution is not None
    channels = int(pipeline.flow.config.channels)
    source: dict[str, Any] = {
        "generator": NAME,
        "flow_sha256": sha256,  # of all of the flow's attributes, as `flow info` shows it
        **population.source(),
        "device": device.type,
        "decode": f"{pipeline.decode_path}, {population.precision}, batches of {pipeline.batch}",
        "torch": torch.__version__.split("+")[0],
    }
    return Description(
        name=NAME,
        shape=(population.persons * population.per_person, population.resolution, population.resolution, channels),
        rows=population.per_person,
        compress=False,
        spec=population.spec().to_dict(),
        source=source,
    )


def generate(
    root: str | Path,
    pipeline: CelebGlowPipeline,
    population: Population,
    device: torch.device | None = None,
    part: tuple[int, int] = (1, 1),
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> bool:
    """Make (or go on making) `<root>/celebglow.zarr`.

    Args:
        root: folder of the stores.
        pipeline: flow and directions.
        population: who and what.
        device: where to decode; CPU if None.
        part: (i, n): the i-th of n ranges of persons, for several machines.
        overwrite: remove a store that is there first.
        workers: persons decoded at the same time; all cores if None. Does not change the pictures.
        progress: show how far it is, on stderr.

    Returns:
        whether the store is complete (False: other parts are missing).

    Raises:
        ValueError: for wrong parameters, or a store made with others.
        OSError: if it cannot be written.
    """
    device = device or torch.device("cpu")
    population = population.checked(pipeline)
    sha256 = pipeline.sha256()
    pipeline = CelebGlowPipeline(pipeline.flow, pipeline.directions.select(population.attributes)).to(device)
    description = describe(population, pipeline, device, sha256)

    what = NAME if part[1] == 1 else f"{NAME} {part[0]}/{part[1]}"
    publishing = threading.Lock()

    with Writer(root, description, part, overwrite) as writer, _one_thread_each(device), exact_convolutions():
        values = torch.cartesian_prod(
            *[torch.tensor(population.axis)] * len(population.attributes)
        )  # now that there is space for it
        values = values.reshape(population.per_person, -1)  # one attribute gives no columns
        total, left = (population.per_person * len(people) for people in (writer.range, writer.missing))
        with progress_bar(what, "img", total, total - left, progress) as bar:

            def work(person: int) -> None:
                latent = pipeline.person(person, population.seed, population.temperature)
                images = pipeline.grid(latent, values, population.precision, population.resolution)
                with publishing:
                    writer.publish(person, images)
                    bar.update(population.per_person)

            # a GPU is kept busy by one worker, with another to write meanwhile
            _run(work, writer.missing, workers or (cores() if device.type == "cpu" else 2))
        return writer.finish(card.card, card.preview, card.croissant)


def generate_part(
    part: tuple[int, int], root: Path, flow: str | Path, population: Population, device: torch.device, workers: int | None
) -> bool:
    """`generate` one part, with the flow in a folder, or "bundled": what a task of a cluster calls, which has nothing loaded."""
    keep_freed_memory()
    return generate(root, CelebGlowPipeline.from_pretrained(flow), population, device, part, workers=workers, progress=False)


def _run(work: Any, items: Sequence[int], workers: int) -> None:
    """Run `work` over the items in order, a few at a time; the first failure stops the rest and is raised."""
    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[None]] = deque()
        try:
            for item in items:
                running.append(pool.submit(work, item))
                if len(running) > workers:
                    running.popleft().result()
            while running:
                running.popleft().result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


@contextlib.contextmanager
def _one_thread_each(device: torch.device) -> Iterator[None]:
    """Give each worker on the CPU one thread: persons in parallel need no barriers, threads inside one convolution do."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
