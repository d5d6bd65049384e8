"""Which runs a bench consists of: models × datasets × kinds of split × seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

import harness
from harness.bench.names import nothing_in
from harness.data.store import overview
from harness.formats.catalog import command
from harness.models import MODELS, Model, find
from harness.runs.config import Preset, parse_override, resolve
from harness.runs.run import Run
from splits import DATASETS, KINDS
from splits.errors import InputError, MissingError, did_you_mean


@dataclass(frozen=True)
class Plan:
    """What a bench is to do.

    Attributes:
        runs: in the order in which they start.
        absent: datasets that were asked for by name and are not there, with the command that gets each.
        unfinished: stores that were asked for, by name or with all, and are not whole, with what to do.
        also: well-known datasets that are not there, though nobody asked for them.
        impossible: (dataset, kind, reason) that a grid can't have.
        kinds_named: whether kinds were asked for by name.
    """

    runs: tuple[Run, ...]
    absent: dict[str, str]
    unfinished: dict[str, str]
    also: dict[str, str]
    impossible: tuple[tuple[str, str, str], ...]
    kinds_named: bool = False

    @property
    def refused(self) -> dict[str, str]:
        """What was asked for by name and has no run, with the reason or what to do."""
        impossible = {f"{dataset}, {kind}": reason for dataset, kind, reason in self.impossible} if self.kinds_named else {}
        return self.absent | self.unfinished | impossible


def plan(
    models: Sequence[str],
    data: Path,
    out: Path,
    datasets: Sequence[str] = (),
    kinds: Sequence[str] = (),
    seeds: int | Sequence[int] = 1,
    preset: Preset = "quick",
    overrides: Sequence[str] = (),
    device: torch.device | None = None,
) -> Plan:
    """Every run of models × datasets × kinds × seeds.

    Args:
        models: names, "all", or module:function.
        data: folder of the stores.
        out: folder of the run folders.
        datasets: names; all that are in `data` if none.
        kinds: all that a dataset has if none.
        seeds: their number, for 0 … seeds − 1, or the seeds themselves.
        preset, overrides, device: see `harness.runs.config.resolve`.

    Raises:
        ValueError: for an unknown model, dataset, kind or setting.
        FileNotFoundError: if there is no whole dataset at all.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"unknown kind of split {kind!r}{did_you_mean(kind, KINDS)}")
    seeds = tuple(dict.fromkeys(range(seeds) if isinstance(seeds, int) else seeds))
    if not seeds or min(seeds) < 0:
        raise InputError(f"at least one seed is expected, and none below 0, got {', '.join(map(str, seeds)) or 'none'}")
    datasets, kinds = tuple(dict.fromkeys(datasets)), tuple(dict.fromkeys(kinds))
    names = list(dict.fromkeys(name for given in models for name in (MODELS if given == "all" else [given])))
    configs = {name: resolve(model, preset, chosen, device) for name, (model, chosen) in _overridden(names, overrides).items()}
    stores = {store["name"]: store for store in overview(data)}
    there = [name for name, store in stores.items() if store["complete"]]
    for name in datasets:
        if name not in (*stores, *DATASETS):
            raise InputError(f"no dataset {name!r} in {data}{did_you_mean(name, [*stores, *DATASETS])}")
    wanted = list(datasets) or there
    unfinished = {
        store["name"]: store["damage"] or "run the command that makes it again, and it continues"
        for store in stores.values()
        if not store["complete"] and (not datasets or store["name"] in datasets)
    }
    absent = {name: command(name, data) for name in wanted if name not in stores}
    also = {name: command(name, data) for name in DATASETS if not datasets and name not in stores}
    if not wanted and unfinished:
        raise MissingError("; ".join(f"{name} in {data} is not whole: {reason}" for name, reason in unfinished.items()))
    if not wanted:
        raise MissingError(nothing_in(data))
    runs, impossible = [], []
    for dataset in (name for name in wanted if name in there):
        spec = harness.open(dataset, data).spec
        for kind in kinds or KINDS:
            if kind not in spec.kinds:
                impossible.append((dataset, kind, spec.impossible.get(kind, "its spec has none")))  # type: ignore[call-overload]
                continue
            runs += [Run(data, out, dataset, kind, name, seed, configs[name]) for name in names for seed in seeds]
    runs.sort(key=lambda run: run.seed)  # a whole table of one seed before the next
    return Plan(tuple(runs), absent, unfinished, also, tuple(impossible), bool(kinds))


def _overridden(names: Sequence[str], overrides: Sequence[str]) -> dict[str, tuple[Model, list[str]]]:
    """Each model with its overrides: an option that only some of several models have is for those."""
    models = {name: find(name) for name in names}

    def is_for(model: Model, override: str) -> bool:
        section, _, option = parse_override(override)[0].partition(".")
        return section != "model" or model.takes(option) or not any(other.takes(option) for other in models.values())

    return {name: (model, [override for override in overrides if is_for(model, override)]) for name, model in models.items()}
