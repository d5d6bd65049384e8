"""What is train and what is test: the splits of Schott et al. (ICLR 2022), and anyone's, as data.

>>> split = load("mpi3d", "composition")
>>> split.counts
Counts(train=287712, test=749088)
>>> split.test[:3]  # int64 indices into the row-major grid
array([246, 247, 248])
>>> split.grid.targets(split.test).shape  # float64 in [0, 1]
(749088, 7)

Importing this costs milliseconds: numpy is imported when a name that needs it is first used, pydantic when a spec other than the
shipped ones is read, matplotlib to plot, pyarrow to write parquet.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from splits.errors import SpecError
from splits.vocabulary import DATASETS, KINDS, Kind

if TYPE_CHECKING:
    from splits.catalog import load, load_spec, select, spec_from_dict
    from splits.grid import Factor, FactorGrid
    from splits.rules import HeldOutRule, RandomRule
    from splits.spec import SplitSpec, derive_spec
    from splits.split import Counts, Split

_PLACES = {
    "Counts": "split",
    "Factor": "grid",
    "FactorGrid": "grid",
    "HeldOutRule": "rules",
    "RandomRule": "rules",
    "Split": "split",
    "SplitSpec": "spec",
    "derive_spec": "spec",
    "load": "catalog",
    "load_spec": "catalog",
    "select": "catalog",
    "spec_from_dict": "catalog",
}

__all__ = [
    "DATASETS",
    "KINDS",
    "Counts",
    "Factor",
    "FactorGrid",
    "HeldOutRule",
    "Kind",
    "RandomRule",
    "SpecError",
    "Split",
    "SplitSpec",
    "derive_spec",
    "load",
    "load_spec",
    "select",
    "spec_from_dict",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"splits.{_PLACES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
