"""Which samples of many are taken, where not all are."""

from __future__ import annotations

from typing import SupportsIndex

import numpy as np
from numpy.typing import NDArray

from splits.errors import InputError, shown


def sample(indices: NDArray[np.int64], limit: int | None, seed: int) -> NDArray[np.int64]:
    """The indices, at most `limit` of them, drawn without replacement by `seed`, in their order; all of them if None.

    Raises:
        ValueError: for a limit below 1, or a seed below 0.
    """
    if limit is not None and not (isinstance(limit, SupportsIndex) and limit >= 1):
        raise InputError(f"limit: a number of samples, at least 1, is expected, or None for all, got {shown(limit)}")
    if not (isinstance(seed, SupportsIndex) and seed >= 0):
        raise InputError(f"seed: a whole number of at least 0 is expected, got {shown(seed)}")
    if limit is None or limit >= len(indices):
        return indices
    return np.sort(np.random.default_rng(seed).choice(indices, limit, replace=False))
