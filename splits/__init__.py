"""What is train and what is test: the splits of Schott et al. (ICLR 2022), and anyone's, as data.

    split = splits.load("mpi3d", "composition")
    split.train, split.test                            # int64 indices into the row-major grid
    split.grid.targets(split.test)                     # (n, F) float64 in [0, 1]

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
