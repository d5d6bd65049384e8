"""The whole CelebGlow grid, persons x attribute levels, into a store: resumable, in parts, the same bytes every time."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from celebglow import card
from celebglow.pipeline import PRECISIONS, CelebGlowPipeline, exact_convolutions
from harness.data.store import Description
from harness.data.writer import Writer
from harness.machine import cores
from splits import Factor, FactorGrid, SplitSpec, derive_spec
from splits.errors import InputError

NAME = "celebglow"
HOLD_OUT_RATIO, COMPOSITION_Q = 0.3, 0.2  # the paper's for CelebGlow


@dataclass(frozen=True)
class Population:
    """What determines a CelebGlow, apart from the flow. The defaults are the paper's grid; its range is not known to us.

    Attributes:
        persons: how many; person 7 is the same in a population of 24 and of 1000.
        attributes: names of the flow's directions, in the order of the grid; its default ones if empty.
        levels: values per attribute, evenly spaced over ``range``.
        range: the attribute values at the ends.
        temperature: standard deviation of the persons' latents.
        resolution: of the pictures; the flow's if None.
        seed: another seed, other persons.
        precision: "fp32" or "bf16" of the decoding.
    """

    persons: int = 1000
    attributes: tuple[str, ...] = ()
    levels: int = 6
    range: tuple[float, float] = (-1.0, 1.0)
    temperature: float = 0.7
    resolution: int | None = None
    seed: int = 0
    precision: str = "fp32"

    def checked(self, pipeline: CelebGlowPipeline) -> Population:
        """With the flow's attributes and resolution filled in.

        Raises:
            ValueError: for a value out of its range, saying what was expected.
        """
        resolution = self.resolution or pipeline.resolution
        if self.persons < 1:
            raise InputError(f"persons must be at least 1, not {self.persons}")
        if self.levels < 2:
            raise InputError(f"levels must be at least 2, not {self.levels}: a factor with one value does not vary")
        low, high = self.range
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise InputError(f"range must go up from a finite number to another, not from {low} to {high}")
        if not (np.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature must be a number of at least 0, not {self.temperature}")
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, not {self.seed}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {self.precision!r}")
        if resolution < 1 or pipeline.resolution % resolution:
            raise InputError(f"resolution must divide the flow's {pipeline.resolution}, which {resolution} does not")
        attributes = self.attributes or pipeline.default_attributes
        return Population(
            self.persons, tuple(attributes), self.levels, (low, high), self.temperature, resolution, self.seed, self.precision
        )

    @property
    def axis(self) -> list[float]:
        """The attribute value of each level."""
        return [round(float(value), 6) for value in np.linspace(*self.range, self.levels)]

    @property
    def per_person(self) -> int:
        return int(self.levels ** len(self.attributes))

    def spec(self) -> SplitSpec:
        """The grid and its splits by the paper's rules."""
        factors = [Factor("person", self.persons, "categorical")]
        factors += [Factor(name, self.levels, "ordinal", tuple(self.axis)) for name in self.attributes]
        return derive_spec(
            NAME, FactorGrid(tuple(factors)), HOLD_OUT_RATIO, never_held_out=("person",), composition_q=COMPOSITION_Q
        )


def describe(population: Population, pipeline: CelebGlowPipeline, device: torch.device, sha256: str) -> Description:
    """The store of a population; its source is everything that its bytes depend on."""
    assert population.resolution is not None
    channels = int(pipeline.flow.config.channels)
    source: dict[str, Any] = {
        "generator": NAME,
        "flow_sha256": sha256,  # of all of the flow's attributes, as `flow info` shows it
        "attributes": list(population.attributes),
        "levels": population.levels,
        "range": list(population.range),
        "temperature": population.temperature,
        "resolution": population.resolution,
        "seed": population.seed,
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
    """Make (or go on making) ``<root>/celebglow.zarr``.

    Args:
        root: folder of the stores.
        pipeline: flow and directions.
        population: who and what.
        device: where to decode; CPU if None.
        part: (i, n): the i-th of n ranges of persons, for several machines.
        overwrite: remove a store that is there first.
        workers: persons decoded at the same time; all cores if None. Does not change the pictures.
        progress: show a bar on stderr.

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

    def make(person: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        latent = pipeline.person(person, population.seed, population.temperature)
        return pipeline.grid(latent, values, population.precision, population.resolution)

    with Writer(root, description, part, overwrite) as writer, _one_thread_each(device), exact_convolutions():
        missing = writer.missing
        values = torch.tensor(list(itertools.product(population.axis, repeat=len(population.attributes))))
        total = len(writer.range) * population.per_person
        bar = tqdm(
            total=total,
            initial=total - len(missing) * population.per_person,
            unit="img",
            desc="celebglow" if part[1] == 1 else f"celebglow {part[0]}/{part[1]}",
            disable=not progress,
            dynamic_ncols=True,
        )
        publishing = threading.Lock()

        def work(person: int) -> None:
            images = make(person)
            with publishing:
                writer.publish(person, images)
                bar.update(population.per_person)

        with bar:
            # a GPU is kept busy by one worker, with another to write meanwhile
            _run(work, missing, workers or (cores() if device.type == "cpu" else 2))
        return writer.finish(card.card, card.preview)


def _run(work: Any, items: Sequence[int], workers: int) -> None:
    """Run ``work`` over the items in order, a few at a time; the first failure stops the rest and is raised."""
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
    """On the CPU, give each worker one thread: persons in parallel need no barriers, threads inside one convolution do."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
