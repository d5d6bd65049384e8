"""Studies: many runs, written down in a TOML file.

A study has groups of runs, `[[runs]]`, and what they share above them::

    preset = "full"
    seeds = 3
    datasets = ["all"]

    [[runs]]
    models = ["mlp", "cnn"]
    settings = { "train.steps" = 10000 }

    [[runs]]
    models = ["beta-vae"]
    grid = { "model.beta" = [1, 2, 4, 6, 8, 16] }
"""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.bench.names import MOST_RUNS
from harness.bench.plan import Gap, Plan, plan
from harness.io.records import explained
from harness.runs.config import Preset
from harness.runs.presets import Settings, override_value
from splits.errors import InputError, MissingError

MOST_BYTES = 2**20  # of a study
Names = Annotated[tuple[str, ...], Field(max_length=1000)]
Value = bool | int | float | str | list[Any]


class Strict(BaseModel):
    """Typed and frozen; a key that is not known is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Shared(Strict):
    """What a group of runs may say for itself, and a study for all its groups.

    Attributes:
        datasets, kinds: by name; all that there are if none, or "all".
        seeds: their number, or the seeds themselves.
        preset: "quick" or "full".
        settings: as `--set` takes them: {"train.steps": 500}.
    """

    datasets: Names | None = None
    kinds: Names | None = None
    seeds: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=0)], ...] | None = None
    preset: Preset | None = None
    settings: dict[str, Value] = Field(default_factory=dict)


class Group(Shared):
    """Runs of some models: one for each combination of the values in `grid`, {"model.beta": [1, 4]}."""

    models: Names = Field(min_length=1)
    grid: dict[str, list[Value]] = Field(default_factory=dict)

    def combinations(self) -> Iterator[dict[str, Value]]:
        """Settings of each point of the grid; {} alone where there is none."""
        for values in itertools.product(*self.grid.values()):
            yield dict(zip(self.grid, values, strict=True))


class Study(Shared):
    """Groups of runs, and what they share.

    Attributes:
        runs: the groups.
        data, out: folders of the stores and of the runs, where the command names no others.
    """

    runs: tuple[Group, ...] = Field(min_length=1)
    data: str | None = None
    out: str | None = None


def read_study(path: Path) -> Study:
    """The study in a TOML file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no study; in a line that says where and what is wrong.
    """
    if not path.is_file():
        raise MissingError(f"{path} is not a file: a study in TOML is expected")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes: a study of at most {MOST_BYTES:,} is expected")
    try:
        return Study.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise InputError(f"{path}: {explained(error)}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error


def plan_study(study: Study, data: Path, out: Path, device: torch.device | None = None) -> Plan:
    """Every run of a study: a whole table of one seed before the next; in it, the groups of one split before those of the next.

    Args:
        study: of `read_study`.
        data: folder of the stores.
        out: folder of the run folders.
        device: where the runs will be; see `harness.runs.presets.Settings`.

    Raises:
        ValueError: for an unknown model, dataset, kind or setting, the same run twice, or more than `MOST_RUNS` runs.
        FileNotFoundError: if there is no whole dataset at all.
    """
    plans = []
    for number, group in enumerate(study.runs, start=1):
        for point in group.combinations():
            settings = {**study.settings, **group.settings, **point}
            overrides = tuple(f"{key}={override_value(value)}" for key, value in settings.items())
            try:
                planned = plan(
                    group.models,
                    data,
                    out,
                    datasets=group.datasets or study.datasets or (),
                    kinds=group.kinds or study.kinds or (),
                    seeds=group.seeds or study.seeds or 1,
                    settings=Settings(group.preset or study.preset or "quick", overrides, device),
                )
            except InputError as error:
                raise InputError(f"runs {number} of the study: {error}") from error
            plans.append(planned)
            if sum(len(each.runs) for each in plans) > MOST_RUNS:
                raise InputError(f"the study has more than {MOST_RUNS:,} runs: divide it")
    runs = [run for each in plans for run in each.runs]
    if len({run.folder for run in runs}) < len(runs):
        twice = next(run for number, run in enumerate(runs) if run.folder in {other.folder for other in runs[:number]})
        raise InputError(f"the study has the same run twice: {twice}")
    splits = {(run.dataset, run.kind): None for run in runs}
    order = {split: number for number, split in enumerate(splits)}
    seeds = {seed: number for number, seed in enumerate(dict.fromkeys(run.seed for run in runs))}
    runs.sort(key=lambda run: (seeds[run.seed], order[run.dataset, run.kind]))
    return Plan(tuple(runs), _merged(gap for each in plans for gap in each.gaps))


def _merged(gaps: Iterator[Gap]) -> tuple[Gap, ...]:
    """Each gap once, asked for if any group asked for it."""
    found: dict[str, Gap] = {}
    for gap in gaps:
        before = found.get(str(gap), gap)
        found[str(gap)] = replace(gap, asked=gap.asked or before.asked)
    return tuple(found.values())
