"""The models by name: what each is, how to build it, what of it is our reconstruction."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from splits.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

Family = Literal["supervised", "pretrained", "representation", "user"]
Builder = Callable[..., "nn.Module"]

# What is ours in the budget of every model of a family: nobody here has read the paper's appendix.
SUPERVISED = "steps, batch and rate"
FINE_TUNED = f"all layers are fine-tuned (only the last: model.freeze=true); images stay at 64 × 64; {SUPERVISED}"
READ_OUT = "the readout's steps"


@dataclass(frozen=True)
class Model:
    """A model that can be benched.

    Attributes:
        name: as on the command line.
        build: (in_channels, num_outputs, **options) → a module (B, C, 64, 64) float32 in [0, 1] → (B, num_outputs).
        family: supervised; pretrained; representation, trained without labels and read out by an MLP; or a user's.
        summary: what it is, in a line.
        parameters: trained parameters for 3 channels and 7 outputs, without the readout; None if not known beforehand.
        reconstruction: what is ours, as the paper leaves it open, or its appendix has it.
        quick_steps: training steps in the preset `quick`, chosen so that a run takes a slow CPU core (40 GMAC/s) about a minute.
        quick_learning_rate, quick_batch, quick_precision: in the preset `quick`.
        protocol: the version of how it is built and trained. Raised with a change that makes other results of the same settings:
            its runs of before are then not taken for done.
        later: options that were added when there were runs, their defaults being what those had.
        requires: the package of an extra, by which it is built.
        code: the files of a user's model: its module, and what that imports from its own folder.
    """

    name: str
    build: Builder
    family: Family
    summary: str
    parameters: int | None = None
    reconstruction: str = ""
    quick_steps: int = 400
    quick_learning_rate: float = 5e-4
    quick_batch: int = 64
    quick_precision: Literal["auto", "fp32"] = "auto"
    protocol: int = 1
    later: tuple[str, ...] = ()
    requires: str = ""
    code: tuple[Path, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The options that `build` takes, with their defaults."""
        parameters = list(inspect.signature(self.build).parameters.values())
        return {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in ("in_channels", "num_outputs")}

    def takes(self, option: str) -> bool:
        """Whether `build` takes an option of that name."""
        return option in self.options or any(p.kind is p.VAR_KEYWORD for p in inspect.signature(self.build).parameters.values())

    def resolve(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """All options, defaults overridden.

        Raises:
            ValueError: for an option that the model does not have, with close matches, or a value of another type than its default.
        """
        options = self.options
        for key, value in overrides.items():
            if not self.takes(key):
                raise InputError(f"{self.name} has no option model.{key}{did_you_mean(key, self.options) or ', nor any other'}")
            options[key] = _as(f"model.{key}", value, options.get(key))
        return options


def _as(key: str, value: Any, default: Any) -> Any:
    """A value of the type of an option's default, where that has one: a word would be true, and 4 hash otherwise than 4.0."""
    wanted = list if isinstance(default, tuple) else type(default)
    if wanted is float and type(value) is int:
        return float(value)
    if wanted in (bool, int, float, list) and type(value) is not wanted:
        raise InputError(f"{key}: {wanted.__name__} is expected, as its default {default!r} is one, got {value!r}")
    return value


_MODELS: dict[str, Model] = {}
MODELS: Mapping[str, Model] = MappingProxyType(_MODELS)


def register(name: str, **facts: Any) -> Callable[[Builder], Builder]:
    """Decorate a builder to make it a model; `facts` are the other attributes of `Model`.

    Raises:
        ValueError: if the name is taken.
    """

    def decorate(build: Builder) -> Builder:
        if name in _MODELS:
            raise InputError(f"a model named {name!r} is registered already, from {_MODELS[name].build.__module__}")
        _MODELS[name] = Model(name, build, **facts)
        return build

    return decorate


def families() -> Iterator[tuple[Family, list[Model]]]:
    """The registered models by family."""
    names: tuple[Family, ...] = ("supervised", "pretrained", "representation")
    for family in names:
        yield family, [model for model in _MODELS.values() if model.family == family]
