"""Check the models, datasets and kinds that a user names, in milliseconds: before torch is imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from harness.data.names import stores_in
from harness.formats.catalog import command
from harness.models.names import NAMES
from splits import DATASETS
from splits.errors import InputError, did_you_mean

ALL = "all"


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
            raise InputError(f"unknown model {name!r}{did_you_mean(name, known)} (or give one of your own as module:function)")
    return tuple(dict.fromkeys(name for each in given for name in (known if each == ALL else [each])))


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
            raise InputError(f"no dataset {name!r} in {data}{did_you_mean(name, [*there, *DATASETS, ALL])}")
    return () if ALL in given else tuple(dict.fromkeys(given))
