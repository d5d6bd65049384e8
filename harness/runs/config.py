"""The protocol of a run as plain data: presets, overrides, and a hash of everything that determines the result."""

from __future__ import annotations

import hashlib
import json
import tomllib
import types
import typing
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal

import torch

from harness.machine import has_bf16
from harness.models import Model
from splits.errors import InputError, did_you_mean

Precision = Literal["auto", "fp32", "bf16"]
Preset = Literal["quick", "paper"]
PRESETS: tuple[Preset, ...] = ("quick", "paper")


@dataclass(frozen=True)
class Training:
    """Of the network. Adam without decay; 200,000 steps of 64 images or pairs at 1e-4 are the paper's for un- and weakly supervised
    models, and our reconstruction for supervised ones."""

    steps: int = 200_000
    batch: int = 64  # images, or pairs of them
    learning_rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    normalize: Literal["none", "train"] = "none"  # images by the mean and deviation per channel of the train images; ours
    precision: Precision = "fp32"  # auto: bf16 where the hardware has it
    compile: bool = False
    threads: int = 1  # CPU threads of a run; several runs go at once instead
    log_every: int = 100  # steps
    checkpoint_seconds: float = 5.0


@dataclass(frozen=True)
class Readout:
    """Of the MLP that regresses factors from a representation's latents; its budget is our reconstruction."""

    steps: int = 50_000
    batch: int = 64
    learning_rate: float = 1e-4


@dataclass(frozen=True)
class Scoring:
    samples: int = 0  # at most so many images of test and of train are scored, a seeded sample; 0: all of both
    batch: int = 256


@dataclass(frozen=True)
class Config:
    """Everything about a run but its dataset, kind, model and seed. `model` has the options of the model's builder."""

    preset: Preset
    model: dict[str, Any] = field(default_factory=dict)
    train: Training = field(default_factory=Training)
    readout: Readout = field(default_factory=Readout)
    score: Scoring = field(default_factory=Scoring)

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data


# What does not change the result, and so not the hash.
OF_NO_CONSEQUENCE = {"train": ("log_every", "checkpoint_seconds")}


def resolve(model: Model, preset: Preset, overrides: Iterable[str] = (), device: torch.device | None = None) -> Config:
    """The config of a model under a preset, with "key.key=value" overrides (TOML values; what isn't TOML is a string).

    `device` is where it will run, the CPU if None: train.precision=auto becomes what is fast there.

    Raises:
        ValueError: for an unknown key, with close matches, or a value of another type.
    """
    config = Config(preset)
    if preset == "quick":
        config = replace(
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
    options: dict[str, Any] = {}
    for override in overrides:
        key, value = parse_override(override)
        section, _, name = key.partition(".")
        if section == "model" and name:
            options[name] = value
            continue
        known = [
            f"{f.name}.{g.name}" for f in fields(config) if is_dataclass(getattr(config, f.name)) for g in _fields(config, f.name)
        ]
        if key not in known:
            raise InputError(f"unknown setting {key!r}{did_you_mean(key, [*known, 'model.…'])}")
        part = getattr(config, section)
        config = replace(config, **{section: replace(part, **{name: _typed(key, value, typing.get_type_hints(type(part))[name])})})
    train = config.train
    if train.precision == "auto":
        train = replace(train, precision="bf16" if has_bf16(device or torch.device("cpu")) else "fp32")
    return replace(config, train=train, model=model.resolve(options))


def parse_override(text: str) -> tuple[str, Any]:
    """ "train.steps=500" → ("train.steps", 500).

    Raises:
        ValueError: if there is no = in it.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"a setting such as train.steps=500 is expected, got {text!r}")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def fingerprint(config: Config, model: Model, store: dict[str, Any]) -> str:
    """8 hex digits of the config, the dataset's images (`store`: what its attributes say) and the code of a user's model."""
    data = config.to_dict()
    for section, names in OF_NO_CONSEQUENCE.items():
        for name in names:
            del data[section][name]
    return hashlib.sha256(json.dumps([data, store, code_hash(model)], sort_keys=True).encode()).hexdigest()[:8]


def code_hash(model: Model) -> str:
    """SHA-256 of the code of a user's model, "" for a reference model."""
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in model.code]
    return hashlib.sha256("".join(hashes).encode()).hexdigest() if hashes else ""


def _fields(config: Config, section: str) -> tuple[Any, ...]:
    return fields(getattr(config, section))


def _typed(key: str, value: Any, wanted: Any) -> Any:
    """The value as that type, whole numbers as floats where those are wanted."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is Literal:
        if value in arguments:
            return value
        raise InputError(f"{key}: {' or '.join(map(repr, arguments))} is expected, got {value!r}")
    if origin is tuple and isinstance(value, list) and len(value) == len(arguments):
        return tuple(_typed(key, each, kind) for each, kind in zip(value, arguments, strict=True))
    if wanted is float and type(value) is int:
        return float(value)
    if isinstance(wanted, type) and not isinstance(wanted, types.GenericAlias) and type(value) is wanted:
        least = 1 if key.endswith((".batch", ".log_every")) else 0
        if wanted is not bool and isinstance(value, int | float) and value < least:
            raise InputError(f"{key}: a number of at least {least} is expected, got {value}")
        return value
    raise InputError(f"{key}: {getattr(wanted, '__name__', wanted)} is expected, got {value!r}")
