"""Check what a user asks a bench for, models, datasets, kinds, seeds, settings: in milliseconds, before torch is imported, which takes
seconds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from harness.data.names import stores_in
from harness.formats.catalog import command
from harness.models import NAMES
from harness.models.lookup import code_of, is_own
from harness.runs.presets import check_overrides
from splits import DATASETS
from splits.errors import InputError, MissingError, did_you_mean, shown
from splits.vocabulary import kinds_named

ALL = "all"
MOST_RUNS = 100_000  # of one plan: it is kept, shown and looked up whole
LARGEST_SEED = 2**63 - 1  # a run's records have no larger number


def check_asked(
    models: Sequence[str],
    datasets: Sequence[str],
    kinds: Sequence[str],
    seeds: int | Sequence[int],
    overrides: Sequence[str],
    data: Path,
) -> None:
    """Check all that can be checked without torch; a user's model is looked for, and none of its code is run.

    Raises:
        InputError: for what no bench can be asked for.
        MissingError: if there is no dataset at all.
    """
    for name in models_named(models):
        if is_own(name):
            code_of(name)
    kinds_named(kinds)
    count_seeds(seeds)
    check_overrides(overrides)
    if not datasets_named(datasets, data) and not stores_in(data):
        raise MissingError(nothing_in(data))


def models_named(given: Sequence[str], known: Collection[str] = NAMES) -> tuple[str, ...]:
    """Each model once; "all" stands for those of `known`.

    Args:
        given: names, "all", or module:function of the user's own, which is not looked at here.
        known: the names of models.

    Raises:
        InputError: for an unknown name, with the close ones.
    """
    for name in given:
        if name != ALL and ":" not in name and name not in known:
            if name.endswith(".py"):
                raise InputError(f"a model of your own is module:function: did you mean {Path(name).stem}:build?")
            if Path(f"{name}.py").is_file():
                raise InputError(f"unknown model {name!r}: of {name}.py, which is here, name the function too, {name}:build")
            raise InputError(f"unknown model {name!r}{did_you_mean(name, known)} (or give one of your own as module:function)")
    return tuple(dict.fromkeys(name for each in given for name in (known if each == ALL else [each])))


def count_seeds(seeds: int | Sequence[int]) -> int:
    """How many seeds there are: so many, or each of a list once.

    Raises:
        InputError: for none, more than a bench can have, or one that no run can have.
    """
    listed = (0,) if isinstance(seeds, int) else seeds
    count = seeds if isinstance(seeds, int) else len(set(seeds))
    if count < 1 or min(listed) < 0:
        raise InputError(f"at least one seed is expected, and none below 0, got {seeds}")
    if max(listed) > LARGEST_SEED:
        raise InputError(f"seeds are at most {LARGEST_SEED:,}, got {shown(max(listed))}")
    if count > MOST_RUNS:
        raise InputError(f"seeds: {shown(count)}; at most {MOST_RUNS:,} runs are expected of one bench: ask for fewer")
    return count


def nothing_in(data: Path) -> str:
    """Say that a folder holds no store, and what to do."""
    return f"no dataset in {data}: give the folder of your datasets with `data`, or make one: {command('celebglow', data)}"


def datasets_named(given: Sequence[str], data: Path, stores: Collection[str] | None = None) -> tuple[str, ...]:
    """Each dataset once; none if "all" is among them: all that are in `data`.

    Args:
        given: names, or "all".
        data: folder of the stores.
        stores: the names of those that are in it; looked up if None.

    Raises:
        InputError: for a name that is neither there nor a well-known dataset's, with the close ones.
    """
    there = stores_in(data) if stores is None else stores
    for name in given:
        if name not in (*there, *DATASETS, ALL):
            raise InputError(f"no dataset {name!r} in {data}{did_you_mean(name, dict.fromkeys([*there, *DATASETS, ALL]))}")
    return () if ALL in given else tuple(dict.fromkeys(given))
