"""What is scored, as types; their JSON is what a run's scores.json holds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from harness.io.records import Record
from splits.names import check_name

MOST = 1e150  # of a score: beyond, no mean or deviation of it is finite
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-MOST, le=MOST)]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
FactorName = Annotated[str, AfterValidator(lambda name: check_name("a factor", name))]
BaselineName = Literal["train_mean", "ood_to_mean", "clip"]


class PerFactor(Record):
    """A number per factor, and means: over all factors, and without the categorical ones. None is left out of them."""

    mean: Number | None
    mean_excl_categorical: Number | None
    factors: dict[FactorName, Number | None]


class Errors(Record):
    """Scores of n samples: R² by the benchmark's definition and scikit-learn's, and the mean squared error."""

    n: Count
    r2: PerFactor
    r2_sklearn: PerFactor
    mse: PerFactor


class DistanceError(Record):
    """Mean squared error of a factor over the n samples whose value lies so many index steps from the nearest one in train."""

    steps: Count
    factor: FactorName
    mse: Number
    n: Count


class Modularity(Record):
    """Its R² where one factor alone is held out, and the mean R² of the others."""

    ood: Number | None
    id: Number | None


class CountGroup(Record):
    """The n samples with some number of held-out values, and their mean R²."""

    n: Count
    r2: Number | None


class Groups(Record):
    """Scores of parts of the test side. None and empty for random and composition, where a held-out value alone is not test.

    Attributes:
        modularity: by the factor that alone is held out.
        by_held_out_count: by how many factors are held out, as text, since it is a key.
        by_distance: by factor and distance from train.
    """

    modularity: dict[FactorName, Modularity] | None = None
    by_held_out_count: dict[str, CountGroup] = Field(default_factory=dict)
    by_distance: tuple[DistanceError, ...] = ()


class Baseline(PerFactor):
    """The benchmark's R² of a baseline on test; on train in `train`, None in what was scored before there was that."""

    by_distance: tuple[DistanceError, ...]
    train: PerFactor | None = None
