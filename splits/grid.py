"""The grid of factors of variation that a dataset enumerates, row-major: the last factor varies fastest."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, SupportsIndex, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from splits.errors import InputError, did_you_mean, how_many, listed
from splits.names import check_name, check_text

FactorKind = Literal["categorical", "ordinal"]


@dataclass(frozen=True)
class Factor:
    """One factor of variation.

    Attributes:
        name: unique within its grid.
        size: how many values it takes; their indices are 0 … size − 1.
        kind: "ordinal", or "categorical" where the order of the values means nothing.
        values: what the indices stand for, or None.

    Raises:
        ValueError: for what can't be a name (`splits.names`), a size below 1, an unknown kind, values that are not `size` in number, or
            one that no line can show.
    """

    name: str
    size: int
    kind: FactorKind = "ordinal"
    values: tuple[str | int | float, ...] | None = None

    def __post_init__(self) -> None:
        check_name("a factor", self.name)
        if self.size < 1:
            raise InputError(f"factor {self.name!r}: a size of at least 1 is expected, got {self.size}")
        if self.kind not in get_args(FactorKind):
            raise InputError(f"factor {self.name!r}: unknown kind {self.kind!r}{did_you_mean(self.kind, get_args(FactorKind))}")
        if self.values is not None and len(self.values) != self.size:
            raise InputError(f"factor {self.name!r}: its size is {self.size}, but it has {how_many(len(self.values), 'value')}")
        for value in self.values or ():
            if isinstance(value, str):
                check_text(f"factor {self.name!r}", value)

    def label(self, index: int) -> str:
        """The value at `index` for people: its name where values have names, else the index."""
        return str(index) if self.values is None else str(self.values[index])

    def indices(self, value: object) -> NDArray[np.int64]:
        """The indices, ascending, of a value's name or index, of a list of them, or in a slice.

        Raises:
            ValueError: for what is no value of it.
        """
        if isinstance(value, slice):
            return np.arange(self.size)[value]
        if isinstance(value, Sequence | np.ndarray | range) and not isinstance(value, str):
            return np.unique(np.concatenate([np.empty(0, np.int64), *(self.indices(each) for each in value)]))
        names = {str(name): index for index, name in enumerate(self.values or ())}
        if isinstance(value, str):
            if value not in names:
                raise InputError(f"{self.name} has no value {value!r}{did_you_mean(value, names)}")
            return np.array([names[value]])
        index = operator.index(value) if isinstance(value, SupportsIndex) else -1
        if not 0 <= index < self.size:
            raise InputError(f"{self.name} has the values 0 to {self.size - 1}, and not {value!r}")
        return np.array([index])


@dataclass(frozen=True)
class FactorGrid:
    """Every combination of the values of F factors, numbered row-major from 0 to `len(grid)` − 1.

    >>> grid = FactorGrid((Factor("shape", 3, "categorical"), Factor("size", 6)))
    >>> len(grid)
    18
    >>> grid.factors(7)
    array([1, 1])
    >>> grid.index([1, 1])
    np.int64(7)
    >>> grid.targets([0, 7, 17])
    array([[0. , 0. ],
           [0.5, 0.2],
           [1. , 1. ]])

    Raises:
        ValueError: without factors, for a name used twice, or for more combinations than int64 can number.
    """

    factors_of_variation: tuple[Factor, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "factors_of_variation", tuple(self.factors_of_variation))
        if not self.names:
            raise InputError("a grid has at least one factor")
        repeated = sorted(name for name, times in Counter(self.names).items() if times > 1)
        if repeated:
            raise InputError(f"each factor has a name of its own, but these are used twice: {listed(repeated)}")
        if math.prod(self.sizes) > np.iinfo(np.int64).max:
            sizes = " × ".join(map(str, self.sizes)) if len(self.sizes) < 10 else f"{len(self.sizes):,} factors'"
            raise InputError(f"a grid of {sizes} combinations is too large to number")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(factor.name for factor in self.factors_of_variation)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        return tuple(factor.size for factor in self.factors_of_variation)

    @cached_property
    def kinds(self) -> tuple[FactorKind, ...]:
        return tuple(factor.kind for factor in self.factors_of_variation)

    @cached_property
    def values(self) -> tuple[tuple[str | int | float, ...] | None, ...]:
        return tuple(factor.values for factor in self.factors_of_variation)

    def __len__(self) -> int:
        return math.prod(self.sizes)

    def __iter__(self) -> Iterator[Factor]:
        return iter(self.factors_of_variation)

    def __getitem__(self, name: str) -> Factor:
        """The factor called `name`; ValueError with close matches if there is none."""
        return self.factors_of_variation[self.axis(name)]

    def axis(self, name: str) -> int:
        """The position of the factor called `name`; ValueError with close matches if there is none."""
        try:
            return self._axes[name]
        except KeyError:
            raise InputError(f"no factor {name!r}{did_you_mean(name, self.names)}") from None

    @cached_property
    def _axes(self) -> dict[str, int]:
        return {name: axis for axis, name in enumerate(self.names)}

    def select(self, **values: object) -> NDArray[np.int64]:
        """The numbers of all combinations in which factors have some values, ascending.

        Args:
            values: by factor, a hyphen in its name written as an underscore: a value's name or index, a list of them, or a slice of
                indices as Python's. What is not named takes all its values.

        Raises:
            ValueError: for a factor or a value that isn't there, with close matches.

        >>> grid = FactorGrid((Factor("shape", 3, "categorical", ("square", "ellipse", "heart")), Factor("x-position", 6)))
        >>> grid.select(shape="heart", x_position=slice(1, 3))
        array([13, 14])
        """
        chosen = [np.arange(size) for size in self.sizes]
        names = {name.replace("-", "_").replace(" ", "_"): name for name in self.names}
        for key, value in values.items():
            factor = self[names.get(key, key)]
            chosen[self.axis(factor.name)] = factor.indices(value)
        grid = np.ix_(*chosen)
        return np.asarray(np.ravel_multi_index(grid, self.sizes), dtype=np.int64).reshape(-1)

    def index(self, factors: ArrayLike) -> NDArray[np.int64]:
        """The number of each combination.

        Args:
            factors: (…, F) whole numbers, the index of each factor's value in the order of `names`.

        Returns:
            (…) int64; a scalar for a single combination.

        Raises:
            ValueError: for another last axis, for what are not whole numbers, or for a value that its factor does not have.
        """
        rows = _whole_numbers(factors, "factor values")
        count = len(self.sizes)
        if rows.ndim == 0 or rows.shape[-1] != count:
            raise InputError(f"factor values of shape (…, {count}) are expected ({', '.join(self.names)}), got shape {rows.shape}")
        for axis, factor in enumerate(self):
            column = rows[..., axis]
            wrong = (column < 0) | (column >= factor.size)
            if wrong.any():
                raise InputError(f"{factor.name} is {column[wrong].flat[0]}, but its values are 0 to {factor.size - 1}")
        columns = tuple(np.moveaxis(rows.astype(np.int64, copy=False), -1, 0))
        numbers: NDArray[np.int64] = np.ravel_multi_index(columns, self.sizes)
        return numbers

    def factors(self, index: ArrayLike) -> NDArray[np.int64]:
        """The factor values of each number, the inverse of `index`.

        Args:
            index: (…) whole numbers in 0 … len(grid) − 1.

        Returns:
            (…, F) int64.

        Raises:
            ValueError: for what are not whole numbers, or for a number out of range.
        """
        numbers = _whole_numbers(index, "an index")
        wrong = (numbers < 0) | (numbers >= len(self))
        if wrong.any():
            raise InputError(f"index {numbers[wrong].flat[0]} is out of range: the grid is numbered 0 to {len(self) - 1}")
        columns = np.unravel_index(numbers.astype(np.int64, copy=False), self.sizes)
        return np.stack(columns, axis=-1).astype(np.int64, copy=False)

    def targets(self, index: ArrayLike) -> NDArray[np.float64]:
        """The regression targets of Schott et al.: each factor's index / (size − 1), which is in [0, 1].

        Args:
            index: (…) whole numbers in 0 … len(grid) − 1.

        Returns:
            (…, F) float64; 0 for a factor of size 1.

        Raises:
            ValueError: as `factors`.
        """
        targets: NDArray[np.float64] = self.factors(index) / np.maximum(np.array(self.sizes) - 1, 1)
        return targets


def _whole_numbers(values: ArrayLike, what: str) -> NDArray[np.integer]:
    array = np.asarray(values)
    if array.size == 0 and array.dtype.kind == "f":  # numpy makes an empty list float64
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise InputError(f"{what}: whole numbers are expected, got {array.dtype}")
    return array
