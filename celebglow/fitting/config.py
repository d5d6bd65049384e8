"""What determines the attribute directions of a flow, as plain data that is checked at once: without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from splits.errors import InputError

RESERVED = ("person", "seed", "temperature", "precision", "output_type")  # arguments of the pipeline


@dataclass(frozen=True)
class DirectionsConfig:
    """How directions are fitted: which columns of the table, on which images, and what is done to them.

    Attributes:
        attributes: name of each attribute to the column that it is in.
        controls: columns to hold fixed besides.
        strengths: factors on the directions' lengths, by attribute.
        fit_on: column to the value that marks the images of the fit; without it, ``held_out`` of the people are kept out.
        held_out: part of the people kept to judge the directions.
        center_crop: side in pixels of the central square of each picture file; as large as it can be if None.
        crop: central part of each picture, as read, that is used.
        shrink: leave out coefficients whose t-statistic is within it.
        decorrelated: whether the directions are mixed so that each changes its own attribute only.
        whole: attributes that show outside the face, as hair does.
        half: store the weights in half precision.
        seed: of the held-out people.
    """

    attributes: Mapping[str, str]
    controls: tuple[str, ...] = ()
    strengths: Mapping[str, float] = field(default_factory=dict)
    fit_on: Mapping[str, str] = field(default_factory=dict)
    held_out: float = 0.2
    center_crop: int | None = None
    crop: float = 1.0
    shrink: float = 1.0
    decorrelated: bool = True
    whole: tuple[str, ...] = ()
    half: bool = True
    seed: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that have to be there."""
        return (*self.attributes.values(), *self.controls, *self.fit_on)

    def check(self) -> None:
        """Raise InputError for names and numbers that no flow and no table make right."""
        if not self.attributes:
            raise InputError("name at least one attribute to walk in `attributes`")
        if taken := [name for name in self.attributes if name in RESERVED or not name.isidentifier()]:
            raise InputError(f"an attribute cannot be called {taken[0]!r}: a name is expected, and not {', '.join(RESERVED)}")
        for option, names in (("strengths", self.strengths), ("whole", self.whole)):
            for name in names:
                if name not in self.attributes:
                    raise InputError(f"`{option}` names {name!r}, which `attributes` does not")
        for name, factor in self.strengths.items():
            if not math.isfinite(factor) or factor == 0:
                raise InputError(f"`strengths` {name}: a number other than 0 is expected, not {factor}")
        if not 0 < self.held_out < 1:
            raise InputError(f"`held_out` must lie between 0 and 1, not at {self.held_out}")
        if not 0 < self.crop <= 1:
            raise InputError(f"`crop` must be above 0 and at most 1, not {self.crop}")
        if not (math.isfinite(self.shrink) and self.shrink >= 0):
            raise InputError(f"`shrink` must be a number of at least 0, not {self.shrink}")
