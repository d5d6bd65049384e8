"""Who and what a CelebGlow shows, as plain data that is checked at once: without torch, whose import takes seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from celebglow.architecture import check_precision
from splits import Factor, FactorGrid, SplitSpec, derive_spec
from splits.errors import InputError

NAME = "celebglow"
MOST_LEVELS = 10_000
HOLD_OUT_RATIO, COMPOSITION_Q = 0.3, 0.2  # the paper's for CelebGlow


class Walkable(Protocol):
    """What a population needs to know of a flow: `celebglow.pipeline.CelebGlowPipeline` or `celebglow.info.SavedFlow`."""

    @property
    def resolution(self) -> int: ...

    @property
    def default_attributes(self) -> tuple[str, ...]: ...

    def resolve(self, name: str) -> tuple[int, float]: ...


@dataclass(frozen=True)
class Population:
    """What determines a CelebGlow, apart from the flow. The defaults are the paper's grid; its range is not known to us.

    Attributes:
        persons: how many; person 7 is the same in a population of 24 and of 1000.
        attributes: names of the flow's directions, in the order of the grid; its default ones if empty.
        levels: values per attribute, evenly spaced over `range`.
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

    def check(self) -> None:
        """Raise InputError for a value that no flow makes right, saying what was expected."""
        if self.persons < 1:
            raise InputError(f"persons must be at least 1, not {self.persons}")
        if self.levels < 2:
            raise InputError(f"levels must be at least 2, not {self.levels}: a factor with one value does not vary")
        if self.levels > MOST_LEVELS:
            raise InputError(f"levels must be at most {MOST_LEVELS:,}, not {self.levels:,}: images differ by less than one can see")
        low, high = self.range
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"range must go up from a finite number to another, not from {low} to {high}")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature must be a number of at least 0, not {self.temperature}")
        if self.seed < 0:
            raise InputError(f"seed must be at least 0, not {self.seed}")
        check_precision(self.precision)

    def checked(self, flow: Walkable) -> Population:
        """The population with the flow's attributes and resolution filled in.

        Raises:
            InputError: for a value out of its range, saying what was expected; for an attribute that the flow does not have.
        """
        self.check()
        resolution = self.resolution or flow.resolution
        if resolution < 1 or flow.resolution % resolution:
            raise InputError(f"resolution must divide the flow's {flow.resolution}, which {resolution} does not")
        attributes = self.attributes or flow.default_attributes
        if not attributes or len({flow.resolve(name)[0] for name in attributes}) < len(attributes):
            raise InputError("attributes must be named once each, and at least one")
        low, high = self.range
        return replace(self, attributes=tuple(attributes), range=(low, high), resolution=resolution)

    @property
    def axis(self) -> list[float]:
        """The attribute value of each level."""
        return [round(float(value), 6) for value in np.linspace(*self.range, self.levels)]

    @property
    def per_person(self) -> int:
        """Pictures of each person."""
        return int(self.levels ** len(self.attributes))

    def source(self) -> dict[str, Any]:
        """What of it its pictures' bytes depend on, but for how many persons there are; plain JSON, nothing of what is not said yet."""
        said: dict[str, Any] = {"levels": self.levels, "range": list(map(float, self.range))}
        said |= {"temperature": self.temperature, "seed": self.seed}
        said |= {"attributes": list(self.attributes)} if self.attributes else {}
        return said | ({} if self.resolution is None else {"resolution": self.resolution})

    def spec(self) -> SplitSpec:
        """The grid and its splits by the paper's rules."""
        factors = [Factor("person", self.persons, "categorical")]
        factors += [Factor(name, self.levels, "ordinal", tuple(self.axis)) for name in self.attributes]
        return derive_spec(
            NAME, FactorGrid(tuple(factors)), HOLD_OUT_RATIO, never_held_out=("person",), composition_q=COMPOSITION_Q
        )
