"""The benchmark's R², and means of a number per factor.

R² = 1 − MSE / variance, with the variance of the factor's target over the full grid, (n + 1) / (12 (n − 1)) for n values, and not, as
scikit-learn's, over the samples that are scored: on a split that holds values out the two differ widely.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.scoring.records import PerFactor
from splits import FactorGrid


def grid_variance(grid: FactorGrid) -> NDArray[np.float64]:
    """(F,) variance of each target over the full grid, (n + 1) / (12 (n − 1)); nan for a factor of one value."""
    sizes = np.array(grid.sizes, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.where(sizes > 1, (sizes + 1) / (12 * (sizes - 1)), np.nan)


def per_factor(grid: FactorGrid, values: ArrayLike) -> PerFactor:
    """One number per factor (F,) with its means; what is not finite becomes None."""
    numbers = np.asarray(values, dtype=np.float64)
    ordinal = np.array([kind == "ordinal" for kind in grid.kinds])
    return PerFactor(
        mean=finite_mean(numbers),
        mean_excl_categorical=finite_mean(numbers[ordinal]),
        factors={name: finite(value) for name, value in zip(grid.names, numbers, strict=True)},
    )


def finite(value: float) -> float | None:
    """The value, or None if it is not finite."""
    return float(value) if np.isfinite(value) else None


def finite_mean(values: NDArray[np.float64]) -> float | None:
    """The mean of those that are finite, or None if none is."""
    present = values[np.isfinite(values)]
    return float(present.mean()) if len(present) else None
