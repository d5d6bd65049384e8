"""Make the config of a run of a preset and a user's overrides; without torch, so that a wrong value is answered at once."""

from __future__ import annotations

import json
import math
import tomllib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from harness.machine import has_bf16
from harness.runs.config import OF_NO_CONSEQUENCE, PRESETS_OF_BEFORE, Config, Preset
from splits import toml
from splits.errors import InputError, did_you_mean, shown

if TYPE_CHECKING:
    import torch

    from harness.models.registry import Model

PRESETS: tuple[Preset, ...] = typing.get_args(Preset)
AT_LEAST_ONE = (".batch", ".log_every")
BELOW = {"train.betas": 1}
LARGEST = 2**63  # of a whole number


@dataclass(frozen=True)
class Settings:
    """What a user says about the protocol of runs.

    Attributes:
        preset: "quick", minutes on a CPU core, or "full", the protocol as far as it is known; "paper" was its name before.
        overrides: of the preset, as "train.steps=500".
        device: where the runs will be, the CPU if None: train.precision=auto becomes what is fast there.
    """

    preset: Preset = "quick"
    overrides: tuple[str, ...] = ()
    device: str | torch.device | None = None


def resolve(model: Model, preset: str, overrides: Iterable[str] = (), device: str | torch.device | None = None) -> Config:
    """The config of a model under a preset, with "key.key=value" overrides (TOML values; what isn't TOML is a string).

    Args:
        model: its options, and its budget in the preset "quick".
        preset, overrides, device: see `Settings`.

    Raises:
        ValueError: for an unknown key, with close matches, or a value of another type.
    """
    named = PRESETS_OF_BEFORE.get(preset, preset)
    if named not in PRESETS:
        raise InputError(f"unknown preset {preset!r}; known: {', '.join(PRESETS)}")
    config = _quick(model) if named == "quick" else Config(named)
    options: dict[str, Any] = {}
    for override in overrides:
        key, value = parse_override(override)
        section, _, name = key.partition(".")
        if section == "model" and name:
            options[name] = value
        else:
            config = _overridden(config, key, value)
    train = config.train
    if train.precision == "auto":
        train = replace(train, precision="bf16" if has_bf16(device or "cpu") else "fp32")
    return replace(config, train=train, model=model.resolve(options))


def check_overrides(overrides: Iterable[str]) -> None:
    """Check the keys and values of overrides, but for those of models' options, which a model's builder has.

    Raises:
        InputError: as `resolve`.
    """
    config = Config("full")
    for override in overrides:
        key, value = parse_override(override)
        if not key.startswith("model."):
            config = _overridden(config, key, value)


def is_plain(model: Model, config: Config) -> bool:
    """Whether a config is its preset, but for what does not change the protocol: precision, threads, batch of scoring, logging."""
    preset = resolve(model, config.preset)
    train = replace(
        config.train,
        precision=preset.train.precision,
        threads=preset.train.threads,
        **{name: getattr(preset.train, name) for name in OF_NO_CONSEQUENCE["train"]},
    )
    return replace(config, train=train, score=replace(config.score, batch=preset.score.batch)) == preset


def parse_override(text: str) -> tuple[str, Any]:
    """ "train.steps=500" → ("train.steps", 500).

    Raises:
        ValueError: if there is no = in it.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"a setting such as train.steps=500 is expected, got {text[:80]!r}")
    try:
        found = tomllib.loads(f"value = {value}")["value"]
        json.dumps(found)  # as it is kept with a run
    except (ValueError, RecursionError, TypeError):  # no TOML, a number of thousands of digits, brackets without end; a date
        return key.strip(), value.strip()
    return key.strip(), found


def override_value(value: Any) -> str:
    """A value as `parse_override` reads it: words without quotes, where they are not taken for something else.

    Raises:
        ValueError: for what can't be written, such as None.
    """
    if isinstance(value, str) and value and parse_override(f"key={value}") == ("key", value):
        return value
    try:
        return toml.value(value)
    except TypeError:
        raise InputError(f"{shown(value)} can't be written as a setting: TOML has nothing like it") from None


def _quick(model: Model) -> Config:
    config = Config("quick")
    return replace(
        config,
        train=replace(
            config.train,
            steps=model.quick_steps,
            batch=model.quick_batch,
            learning_rate=model.quick_learning_rate,
            precision=model.quick_precision,
        ),
        readout=replace(config.readout, steps=1000, learning_rate=1e-3),
        score=replace(config.score, samples=1000),
    )


def _overridden(config: Config, key: str, value: Any) -> Config:
    """The config with another value of "section.name"."""
    sections = {f.name: getattr(config, f.name) for f in fields(config) if is_dataclass(getattr(config, f.name))}
    known = [f"{section}.{f.name}" for section, part in sections.items() for f in fields(part)]
    if key not in known:
        raise InputError(f"unknown setting {key[:80]!r}{did_you_mean(key, [*known, 'model.…'])}")
    section, _, name = key.partition(".")
    part = sections[section]
    typed = _typed(key, value, typing.get_type_hints(type(part))[name])
    return replace(config, **{section: replace(part, **{name: typed})})


def _typed(key: str, value: Any, wanted: Any) -> Any:
    """The value as that type, whole numbers as floats where those are wanted."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Literal:
        if value in arguments:
            return value
        raise _unexpected(key, " or ".join(map(repr, arguments)), value)
    if origin is tuple and isinstance(value, list) and len(value) == len(arguments):
        return tuple(_typed(key, each, kind) for each, kind in zip(value, arguments, strict=True))
    if wanted is float and type(value) is int:
        value = float(value) if abs(value) < LARGEST else math.inf  # which is refused below
    if isinstance(wanted, type) and not isinstance(wanted, types.GenericAlias) and type(value) is wanted:
        least = 1 if key.endswith(AT_LEAST_ONE) else 0
        below = BELOW.get(key, LARGEST if wanted is int else math.inf)
        if isinstance(value, int | float) and wanted is not bool and not least <= value < below:  # nor nan
            also = f" and below {below}" if value >= least else ""
            raise _unexpected(key, f"a number of at least {least}{also}", value)
        return value
    raise _unexpected(key, getattr(wanted, "__name__", str(wanted)), value)


def _unexpected(key: str, wanted: str, value: Any) -> InputError:
    shown = repr(value) if not isinstance(value, int) or abs(value) < LARGEST else "one of many digits"
    return InputError(f"{key}: {wanted} is expected, got {shown if len(shown) <= 80 else shown[:79] + '…'}")
