"""Which runs a bench consists of: models × datasets × kinds of split × seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import harness
from harness.bench.names import MOST_RUNS, count_seeds, datasets_named, models_named, nothing_in
from harness.data.verify import overview
from harness.formats.catalog import command
from harness.models import MODELS, Model, find
from harness.runs.config import fingerprint, images_of
from harness.runs.presets import Settings, parse_override, resolve
from harness.runs.run import Run
from splits import DATASETS, KINDS, Kind
from splits.errors import InputError, MissingError
from splits.vocabulary import kinds_named

if TYPE_CHECKING:
    from harness.data.dataset import Dataset

QUICK = Settings()


@dataclass(frozen=True)
class Gap:
    """Something that has no runs.

    Attributes:
        state: "absent", a dataset that is not there; "unfinished", a store that is not whole; "impossible", a split that a grid
            can't have.
        dataset: by name.
        kind: of the split that is impossible, else None.
        reason: why; of an absent dataset, the command that gets it.
        asked: whether it was asked for, so that the bench isn't done without it.
    """

    state: Literal["absent", "unfinished", "impossible"]
    dataset: str
    kind: Kind | None
    reason: str
    asked: bool

    def __str__(self) -> str:
        return self.dataset if self.kind is None else f"{self.dataset}, {self.kind}"


@dataclass(frozen=True)
class Plan:
    """What a bench will do.

    Attributes:
        runs: in the order in which they start.
        gaps: what has none.
    """

    runs: tuple[Run, ...]
    gaps: tuple[Gap, ...] = ()

    @property
    def refused(self) -> tuple[Gap, ...]:
        """What was asked for and has no run."""
        return tuple(gap for gap in self.gaps if gap.asked)

    def watched(self, watchers: Sequence[str]) -> Plan:
        """The same runs, with watchers: "tensorboard", or functions of one's own as module:function."""
        return replace(self, runs=tuple(replace(run, watchers=tuple(watchers)) for run in self.runs))


class Shelf:
    """The stores in a folder, each looked at and opened once, however many plans are made from them."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._opened: dict[str, Dataset] = {}

    @cached_property
    def stores(self) -> dict[str, dict[str, Any]]:
        """What `overview` says of each, by name."""
        return {store["name"]: store for store in overview(self.data)}

    def open(self, name: str) -> Dataset:
        if name not in self._opened:
            self._opened[name] = harness.open(name, self.data)
        return self._opened[name]


def plan(
    models: str | Sequence[str],
    data: str | Path,
    out: str | Path,
    *,
    datasets: str | Sequence[str] = (),
    kinds: str | Sequence[str] = (),
    seeds: int | Sequence[int] = 1,
    settings: Settings = QUICK,
    shelf: Shelf | None = None,
) -> Plan:
    """Every run of models × datasets × kinds × seeds.

    Args:
        models: names, "all", or module:function; or one of them.
        data: folder of the stores.
        out: folder of the run folders.
        datasets: names; all that are in `data` if none, or "all".
        kinds: all that a dataset has if none, or "all".
        seeds: their number, for 0 … seeds − 1, or the seeds themselves.
        settings: the protocol.
        shelf: of `data`, where several plans are made.

    Raises:
        ValueError: for an unknown model, dataset, kind or setting, or more than `MOST_RUNS` runs.
        FileNotFoundError: if there is no whole dataset at all.
    """
    data, out = Path(data), Path(out)
    models, datasets, kinds = ([names] if isinstance(names, str) else names for names in (models, datasets, kinds))
    chosen = kinds_named(kinds)
    count = count_seeds(seeds)
    names = models_named(models, MODELS)
    found = _overridden(names, settings.overrides)
    configs = {name: resolve(model, settings.preset, overrides, settings.device) for name, (model, overrides) in found.items()}
    shelf = shelf or Shelf(data)
    there, gaps = _datasets(shelf, datasets)
    opened = {name: shelf.open(name) for name in there}
    splits, impossible = _splits(opened, chosen)
    _check_count(len(names), len(splits), count)
    images = {dataset: images_of(opened[dataset]) for dataset in there}
    fingerprints = {
        (dataset, name): fingerprint(configs[name], found[name][0], images[dataset]) for dataset in there for name in names
    }
    runs = (
        Run(data, out, dataset, kind, name, seed, configs[name], fingerprints[dataset, name])
        for seed in (range(seeds) if isinstance(seeds, int) else dict.fromkeys(seeds))  # a whole table of one seed before the next
        for dataset, kind in splits
        for name in names
    )
    return Plan(tuple(runs), (*gaps, *impossible))


def _check_count(models: int, splits: int, seeds: int) -> None:
    if (count := models * splits * seeds) > MOST_RUNS:
        raise InputError(
            f"models: {models}, splits: {splits}, seeds: {seeds:,}, and so {count:,} runs; at most {MOST_RUNS:,} are expected of one "
            "bench: ask for fewer"
        )


def _datasets(shelf: Shelf, given: Sequence[str]) -> tuple[list[str], list[Gap]]:
    """The wanted datasets that are whole, and a gap for each other one; without names, all on the shelf are wanted."""
    data, stores = shelf.data, shelf.stores
    names = datasets_named(given, data, stores)
    wanted = names or tuple(stores)
    gaps = [Gap("absent", name, None, command(name, data), asked=bool(names)) for name in names or DATASETS if name not in stores]
    unfinished = [
        Gap("unfinished", name, None, stores[name]["damage"] or "repeat the command that makes it, and it continues", asked=True)
        for name in stores
        if name in wanted and not stores[name]["complete"]
    ]
    if not names and not stores:
        raise MissingError(nothing_in(data))
    if not names and len(unfinished) == len(stores):
        raise MissingError("; ".join(f"{gap} in {data} is not whole: {gap.reason}" for gap in unfinished))
    return [name for name in wanted if name in stores and stores[name]["complete"]], [*gaps, *unfinished]


def _splits(opened: Mapping[str, Dataset], kinds: Sequence[Kind]) -> tuple[list[tuple[str, Kind]], list[Gap]]:
    """(dataset, kind) of the splits of those kinds, all if none, that the datasets have; and those that they can't have."""
    splits, gaps = [], []
    for name, data in opened.items():
        for kind in kinds or KINDS:
            if kind in data.spec.kinds:
                splits.append((name, kind))
            else:
                gaps.append(Gap("impossible", name, kind, data.spec.impossible.get(kind, "its spec has none"), bool(kinds)))
    return splits, gaps


def _overridden(names: Sequence[str], overrides: Sequence[str]) -> dict[str, tuple[Model, list[str]]]:
    """Each model with its overrides: an option that only some of several models have is for those."""
    models = {name: find(name) for name in names}

    def is_for(model: Model, override: str) -> bool:
        section, _, option = parse_override(override)[0].partition(".")
        return section != "model" or model.takes(option) or not any(other.takes(option) for other in models.values())

    return {name: (model, [override for override in overrides if is_for(model, override)]) for name, model in models.items()}
