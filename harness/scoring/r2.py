"""The benchmark's R² and how a number per factor is summed up.

R² = 1 − MSE / variance, with the variance of the factor's target over the full grid, (n + 1) / (12 (n − 1)) for n values, and not, as
scikit-learn's, over the samples that are scored: on a split that holds values out the two differ widely.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splits import FactorGrid


def grid_variance(grid: FactorGrid) -> NDArray[np.float64]:
    """(F,) variance of each target over the full grid, (n + 1) / (12 (n − 1)); nan for a factor of one value."""
    sizes = np.array(grid.sizes, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.where(sizes > 1, (sizes + 1) / (12 * (sizes - 1)), np.nan)


def summarize(grid: FactorGrid, values: ArrayLike) -> dict[str, Any]:
    """{"mean", "mean_excl_categorical", "factors"} of one number per factor; nan becomes None and is left out of the means."""
    numbers = np.asarray(values, dtype=np.float64)
    ordinal = np.array([kind == "ordinal" for kind in grid.kinds])
    return {
        "mean": mean(numbers),
        "mean_excl_categorical": mean(numbers[ordinal]),
        "factors": {name: number(value) for name, value in zip(grid.names, numbers, strict=True)},
    }


def number(value: float) -> float | None:
    """The value, or None if it is nan."""
    return float(value) if np.isfinite(value) else None


def mean(values: NDArray[np.float64]) -> float | None:
    """The mean of those that are not nan, or None if all are."""
    present = values[np.isfinite(values)]
    return float(present.mean()) if len(present) else None
