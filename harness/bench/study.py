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
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PrivateAttr, ValidationError

import splits
from harness.bench.names import ALL, MOST_RUNS, check_asked, count_seeds, models_named
from harness.bench.written import Strict, read
from harness.runs.config import Preset
from harness.runs.presets import Settings, override_value
from splits import KINDS
from splits.errors import InputError, how_many, shown
from splits.mistakes import dotted, in_our_words
from splits.vocabulary import kinds_named

if TYPE_CHECKING:
    import torch

    from harness.bench.plan import Gap, Plan

Names = Annotated[tuple[str, ...], Field(max_length=1000)]
Value = bool | int | float | str | list[Any]


# What pydantic adds to the place of a mistake in one of several types: what no key is called, and what one may be.
BRANCH = re.compile(r"constrained-\w+|(tuple|list)\[.*\]")
UNION = re.compile(r"bool|int|float|str")
SEEDS = "a number of seeds, or a list such as [0, 3], is expected"
VALUE = "a boolean, a number, a string or a list is expected"


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

    def overrides(self, study: Study) -> Iterator[tuple[str, ...]]:
        """What `--set` would be told for each point of the grid: the group's settings before those of its study."""
        for point in self.combinations():
            settings = {**study.settings, **self.settings, **point}
            yield tuple(f"{key}={override_value(value)}" for key, value in settings.items())


class Study(Shared):
    """Groups of runs, and what they share.

    Attributes:
        runs: the groups.
        data, out: folders of the stores and of the runs, where the command names no others.
        cluster: the file of the cluster that makes the runs, where the command names no other; see `harness.bench.cluster`.
    """

    runs: tuple[Group, ...] = Field(min_length=1)
    data: str | None = None
    out: str | None = None
    cluster: str | None = None
    _file: str = PrivateAttr("the study")  # that it was read from

    def path(self, name: str | None) -> Path | None:
        """A path that the study names: relative paths begin where its file is."""
        return None if name is None else Path(self._file).parent / name

    @contextmanager
    def in_group(self, number: int) -> Iterator[None]:
        """Say of mistakes in which group they are."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self._file}: runs[{number}]: {error}") from error

    def check(self, data: Path) -> None:
        """Raise InputError, naming its group, for a name or a setting that no run can have: before torch is imported.

        What the options of a model may be, only `plan_study` sees.
        """
        for number, group in enumerate(self.runs):
            with self.in_group(number):
                for overrides in group.overrides(self):
                    datasets, kinds = group.datasets or self.datasets or (), group.kinds or self.kinds or ()
                    check_asked(group.models, datasets, kinds, group.seeds or self.seeds or 1, overrides, data)


def read_study(path: Path) -> Study:
    """The study in a TOML file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no study, with a line for each mistake.
    """
    study = read(path, "a study", Study, _mistakes)
    study._file = str(path)
    return study


def _mistakes(error: ValidationError) -> list[str]:
    """A line for each place where something is wrong."""
    found: dict[str, str] = {}
    for details in error.errors(include_url=False):
        place = [part for part in details["loc"] if not BRANCH.fullmatch(str(part))]
        one_of_several = place[-1:] != [*details["loc"][-1:]]  # pydantic says of each what it lacks to be that one
        while details["type"] != "extra_forbidden" and len(place) > 1 and UNION.fullmatch(str(place[-1])):
            place.pop()
            one_of_several = True
        keys = (Group if "runs" in place else Study).model_fields
        what = f"{SEEDS if place[-1:] == ['seeds'] else VALUE}, got {shown(details['input'])}" if one_of_several else ""
        found.setdefault(dotted(place) or "the file", what or in_our_words(details, keys))
    # Of groups that are wrong in themselves, pydantic also says that there is none.
    return [f"{place}: {what}" for place, what in found.items() if not any(other.startswith(f"{place}[") for other in found)]


def plan_study(study: Study, data: Path, out: Path, device: str | torch.device | None = None) -> Plan:
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
    from harness.bench.plan import Plan, Shelf, plan

    shelf = Shelf(data)
    plans: list[Plan] = []
    for number, group in enumerate(study.runs):
        for overrides in group.overrides(study):
            with study.in_group(number):
                planned = plan(
                    group.models,
                    data,
                    out,
                    datasets=group.datasets or study.datasets or (),
                    kinds=group.kinds or study.kinds or (),
                    seeds=group.seeds or study.seeds or 1,
                    settings=Settings(group.preset or study.preset or "quick", overrides, device),
                    shelf=shelf,
                )
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


def runs_of_absent(study: Study, plan: Plan) -> str:
    """Say how many runs a study would have of the datasets that are not there, by their specs; "" if they are all there."""
    found: dict[str, int] = {}
    for dataset in dict.fromkeys(gap.dataset for gap in plan.gaps if gap.state == "absent"):
        possible = splits.load_spec(dataset).kinds
        for group in study.runs:
            datasets = group.datasets or study.datasets or (ALL,)
            kinds = kinds_named(group.kinds or study.kinds or ()) or KINDS
            if dataset in datasets or ALL in datasets:
                seeds = count_seeds(group.seeds or study.seeds or 1)
                models = len(models_named(group.models)) * len(list(group.combinations()))
                found[dataset] = found.get(dataset, 0) + models * seeds * len(set(kinds) & set(possible))
    each = ", ".join(f"{dataset} {count:,}" for dataset, count in found.items())
    return f"{how_many(sum(found.values()), 'run')} more if these were there: {each}" if found else ""


def _merged(gaps: Iterator[Gap]) -> tuple[Gap, ...]:
    """Each gap once, asked for if any group asked for it."""
    found: dict[str, Gap] = {}
    for gap in gaps:
        before = found.get(str(gap), gap)
        found[str(gap)] = replace(gap, asked=gap.asked or before.asked)
    return tuple(found.values())
