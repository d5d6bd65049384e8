"""What `--set` takes: every key of a model's protocol, with its value, its type and a word about it."""

from __future__ import annotations

import inspect
import textwrap
import typing
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

from harness.models import find
from harness.runs.config import Preset
from harness.runs.presets import override_value, resolve
from splits.errors import InputError, shown
from splits.formatting import Report, wrapped_table

WORDS = {
    "train.steps": "training steps",
    "train.batch": "images, or pairs of them, a step",
    "train.learning_rate": "of Adam",
    "train.betas": "of Adam",
    "train.normalize": "images by the statistics of train, or not at all",
    "train.precision": "auto: bf16 where the hardware has it",
    "train.compile": "with torch.compile",
    "train.threads": "CPU threads of a run",
    "train.log_every": "steps between lines of the log",
    "train.checkpoint_seconds": "between checkpoints",
    "train.keep_state": "of the optimizer, for a longer run to continue",
    "readout.steps": "of the MLP that reads factors out of latents",
    "readout.batch": "images a step",
    "readout.learning_rate": "of Adam",
    "score.samples": "images scored of test and of train each; 0: all",
    "score.batch": "images scored at once",
}


def settings_of(name: str, preset: Preset, overrides: Iterable[str] = ()) -> Report:
    """Every setting of a model under a preset, and under overrides of it.

    Raises:
        InputError: for an unknown model, key or value.
    """
    model = find(name)
    config = resolve(model, preset, overrides)
    entries = []
    for section in fields(config):
        part = getattr(config, section.name)
        if is_dataclass(part) and (section.name != "readout" or model.family == "representation"):
            hints = typing.get_type_hints(type(part))
            for entry in fields(part):
                key = f"{section.name}.{entry.name}"
                entries.append((key, getattr(part, entry.name), _type(hints[entry.name]), WORDS[key]))
    for key, value in config.model.items():
        what = f"an option of {name}, see below" + ("" if _written(value) else "; this value can be replaced, but not written")
        entries.append((f"model.{key}", value, "any" if value is None else type(value).__name__, what))
    rows = [
        ("key", preset, "type", "what it is"),
        *((key, _written(value) or shown(value), kind, what) for key, value, kind, what in entries),
    ]
    options = f"{name}'s options: {' '.join((inspect.getdoc(model.build) or 'its builder says nothing of them').split())}"
    summary = textwrap.wrap(f"{name}: {model.summary}", 80)
    lines = (*summary, *wrapped_table(rows), *(textwrap.wrap(options, 80) if config.model else ()))
    data = [{"key": key, "value": value, "type": kind, "what": what} for key, value, kind, what in entries]
    return Report(lines, {"model": name, "preset": preset, "settings": data})


def _written(value: Any) -> str:
    """A value as `--set` takes it, "" if it takes no such value."""
    try:
        return override_value(value)
    except InputError:
        return ""


def _type(hint: Any) -> str:
    """`int`, `float, float`, or the choices `fp32|bf16`."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return "|".join(arguments)
    return ", ".join(argument.__name__ for argument in arguments) if arguments else str(hint.__name__)
