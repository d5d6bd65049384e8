"""What is train and what is test: the splits of Schott et al. (ICLR 2022), and anyone's, as data.

>>> split = load("mpi3d", "composition")
>>> split.counts
Counts(train=287712, test=749088)
>>> split.test[:3]  # int64 indices into the row-major grid
array([246, 247, 248])
>>> split.grid.targets(split.test).shape  # float64 in [0, 1]
(749088, 7)

Importing this needs numpy only: pydantic is imported when a spec other than the shipped ones is read, matplotlib to plot,
pyarrow to write parquet.
"""

from splits.catalog import DATASETS, load, load_spec, select, spec_from_dict
from splits.errors import SpecError
from splits.grid import Factor, FactorGrid
from splits.rules import KINDS, HeldOutRule, Kind, RandomRule
from splits.spec import SplitSpec, derive_spec
from splits.split import Counts, Split

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
