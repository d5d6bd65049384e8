"""What a spec file may say, checked so that every mistake is reported at once, each with its path in the file.

One module, though a long one: the tables and the reader that checks what no table can say are two halves of one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, TypeVar

import pydantic

from splits.errors import InputError, SpecError, did_you_mean, listed, shown
from splits.grid import Factor, FactorGrid, FactorKind
from splits.mistakes import dotted, in_our_words
from splits.names import LONGEST_NAME, check_name, check_text
from splits.rules import HeldOutRule, RandomRule, Rule, TestIf, indices_of_range
from splits.spec import SplitSpec
from splits.split import Split
from splits.vocabulary import KINDS, Kind

LARGEST_SIZE = 1_000_000  # of a factor; its values are listed one by one


class _Table(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class SpecTable(_Table):
    """The file. Its factors and splits are validated one by one, so that a mistake in one doesn't hide those in others."""

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=LONGEST_NAME)  # it becomes part of file names
    source: str = ""
    factor: list[Any] = pydantic.Field(min_length=1)
    split: dict[str, Any]
    impossible: dict[Kind, str] = {}


class FactorTable(_Table):
    name: str
    size: int = pydantic.Field(ge=1, le=LARGEST_SIZE)
    kind: FactorKind
    values: list[Any] | None = None


class HeldOutTable(_Table):
    test_if: TestIf
    held_out: dict[str, Any] = pydantic.Field(min_length=1)


class RandomTable(_Table):
    test_count_of: Kind | None = None
    test_count: int | None = None
    seed: int = pydantic.Field(default=0, ge=0, lt=2**32)


_AnyTable = TypeVar("_AnyTable", bound=_Table)


def read(raw: Mapping[str, Any], origin: str) -> SplitSpec:
    """The spec that `raw`, parsed TOML or JSON, holds.

    Raises:
        SpecError: a ValueError with every mistake; `origin` says where the spec is from.
    """
    return _Reader(origin).read(raw)


class _Reader:
    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.problems: list[str] = []

    def read(self, raw: Mapping[str, Any]) -> SplitSpec:
        top = self._table(SpecTable, raw, ())
        tables = raw.get("factor")
        before = len(self.problems)
        factors = self._factors(tables if isinstance(tables, list) else [])
        grid = self._grid(factors) if factors and len(self.problems) == before else None
        tables = raw.get("split")
        rules = self._rules(tables if isinstance(tables, dict) else {}, factors, grid)
        if top is not None:
            for kind in set(top.impossible) & set(top.split):
                self._problem(("impossible", kind), "this kind has a split too; one or the other is expected")
            for kind, reason in top.impossible.items():
                self._passes(check_text, reason, ("impossible", kind))
            if not top.split and not top.impossible:
                self._problem(("split",), f"at least one split is expected{did_you_mean('', KINDS)}")
        if self.problems or top is None or grid is None:
            raise SpecError(self.origin, self.problems)
        return SplitSpec(top.name, grid, rules, top.impossible, top.source)

    def _problem(self, path: Sequence[str | int], text: str) -> None:
        self.problems.append(f"{dotted(path) or 'the file'}: {text}")

    def _table(self, model: type[_AnyTable], raw: Any, path: tuple[str | int, ...]) -> _AnyTable | None:
        try:
            return model.model_validate(raw)
        except pydantic.ValidationError as error:
            for details in error.errors(include_url=False):
                self._problem(
                    (*path, *(part for part in details["loc"] if part != "[key]")), in_our_words(details, model.model_fields)
                )
            return None

    def _factors(self, tables: list[Any]) -> dict[str, Factor | None]:
        """The factors by name; one with mistakes is kept as far as it is clear, or is None, so that its name counts as known."""
        factors: dict[str, Factor | None] = {}
        for position, raw in enumerate(tables):
            path = ("factor", position)
            table = self._table(FactorTable, raw, path)
            if not isinstance(raw, dict):
                continue
            name, size, values = raw.get("name"), raw.get("size"), raw.get("values")
            if not isinstance(size, int) or not 1 <= size <= LARGEST_SIZE:
                size = None
            if isinstance(values, list):
                values = self._checked_values(values, size, (*path, "values"))
            if not isinstance(name, str):
                continue
            if name in factors:
                self._problem((*path, "name"), f"a name of its own is expected, but {shown(name)} is a duplicate")
                continue
            if not self._passes(check_name, name, (*path, "name")):
                factors[name] = None
                continue
            named: tuple[Any, ...] | None = None
            if size is not None and isinstance(values, list):  # size and values may disagree; what refers to either isn't wrong too
                size = max(size, len(values))
                named = (*values, *[""] * (size - len(values)))
            kind = table.kind if table is not None else "ordinal"
            factors[name] = None if size is None else Factor(name, size, kind, named)
        return factors

    def _checked_values(self, values: list[Any], size: int | None, path: tuple[str | int, ...]) -> list[Any]:
        """The values, those that can't be one as ""."""
        if size is not None and len(values) != size:
            self._problem(path, f"as many values as size says are expected, {size}, and there are {len(values)}")
        before: set[Any] = set()
        checked = []
        for position, value in enumerate(values):
            where = (*path, position)
            if (
                isinstance(value, bool)
                or not isinstance(value, str | int | float)
                or (isinstance(value, float) and not isfinite(value))
            ):
                self._problem(where, f"a string or a number is expected, got {shown(value)}")
                value = ""
            elif value in before:
                self._problem(where, f"{shown(value)} is a duplicate")
            elif isinstance(value, str) and not self._passes(check_text, value, where):
                value = ""
            before.add(value)
            checked.append(value)
        return checked

    def _passes(self, check: Callable[[str, str], str], text: str, path: Sequence[str | int]) -> bool:
        """Whether `text` passes `splits.names.check_name` or `check_text`; if not, that is a problem."""
        try:
            check(dotted(path), text)
        except InputError as error:
            self.problems.append(str(error))
            return False
        return True

    def _grid(self, factors: dict[str, Factor | None]) -> FactorGrid | None:
        try:
            return FactorGrid(tuple(factor for factor in factors.values() if factor is not None))
        except ValueError as error:  # too large
            self._problem(("factor",), str(error))
            return None

    def _rules(self, tables: Mapping[str, Any], factors: dict[str, Factor | None], grid: FactorGrid | None) -> dict[Kind, Rule]:
        rules: dict[Kind, Rule] = {}
        for kind in tables.keys() - set(KINDS):
            self._problem(("split", kind), f"unknown kind of split{did_you_mean(kind, KINDS)}")
        for kind in KINDS:
            if kind in tables and kind != "random":
                held_out = self._held_out(tables[kind], ("split", kind), factors)
                if held_out is not None:
                    rules[kind] = held_out
        if "random" in tables:  # last, as it may repeat the test count of another
            random = self._random(tables["random"], ("split", "random"), tables, rules, grid)
            if random is not None:
                rules["random"] = random
        return rules

    def _held_out(self, raw: Any, path: tuple[str | int, ...], factors: dict[str, Factor | None]) -> HeldOutRule | None:
        before = len(self.problems)
        table = self._table(HeldOutTable, raw, path)
        chosen = raw.get("held_out") if isinstance(raw, dict) else None
        if not isinstance(chosen, dict):
            return None
        indices = {name: self._indices(name, choice, factors, (*path, "held_out", name)) for name, choice in chosen.items()}
        if table is None or len(self.problems) > before:
            return None
        whole = [factor for factor in factors.values() if factor and len(indices.get(factor.name, ())) == factor.size]
        if whole and (table.test_if == "any" or len(whole) == len(indices)):
            sample = listed(f"{factor.name}={factor.label(0)}" for factor in factors.values() if factor)
            names = " and ".join(factor.name for factor in whole)
            self._problem(
                path, f"train would be empty, as every value of {names} is held out: sample 0 ({sample}) is test, and so are all"
            )
        return HeldOutRule(table.test_if, {name: indices[name] for name in factors if name in indices})

    def _indices(self, name: str, choice: Any, factors: dict[str, Factor | None], path: tuple[str | int, ...]) -> tuple[int, ...]:
        """The indices that `choice` stands for: a list of indices or of names of values, or a range such as "36:"."""
        if name not in factors:
            self._problem(path, f"unknown factor{did_you_mean(name, factors)}")
            return ()
        factor = factors[name]
        if isinstance(choice, str):
            if factor is None:
                return ()
            chosen = indices_of_range(choice, factor.size)
            if not chosen:
                self._problem(
                    path, f"a list of values, or a range of them within '0:{factor.size}', is expected, got {shown(choice)}"
                )
            return chosen
        if not isinstance(choice, list):
            self._problem(path, f'a list of values or a range such as "4:" is expected, got {shown(choice)}')
            return ()
        if not choice:
            self._problem(path, "at least one value is expected; leave out a factor that holds out none")
        found: set[int] = set()
        named = (
            {} if factor is None else {label: index for index, label in enumerate(factor.values or ()) if isinstance(label, str)}
        )
        for position, value in enumerate(choice):
            index = self._index(value, factor, named, (*path, position))
            if index is not None and index in found:
                self._problem((*path, position), f"{shown(value)} is a duplicate")
            elif index is not None:
                found.add(index)
        return tuple(sorted(found))

    def _index(self, value: Any, factor: Factor | None, named: Mapping[str, int], path: tuple[str | int, ...]) -> int | None:
        if isinstance(value, bool) or not isinstance(value, int | str):
            self._problem(path, f"the index or the name of a value is expected, got {shown(value)}")
        elif factor is None:
            return value if isinstance(value, int) else None
        elif isinstance(value, int):
            if 0 <= value < factor.size:
                return value
            self._problem(path, f"an index from 0 to {factor.size - 1} is expected, got {shown(value)}")
        elif value in named:
            return named[value]
        else:
            self._problem(path, f"{factor.name} has no value {shown(value)}{did_you_mean(value, named)}")
        return None

    def _random(
        self, raw: Any, path: tuple[str | int, ...], tables: Mapping[str, Any], rules: Mapping[Kind, Rule], grid: FactorGrid | None
    ) -> RandomRule | None:
        table = self._table(RandomTable, raw, path)
        if table is None:
            return None
        if (table.test_count is None) == (table.test_count_of is None):
            self._problem(path, "one of test_count and test_count_of is expected")
        elif table.test_count_of is not None:
            if table.test_count_of == "random" or table.test_count_of not in tables:
                others = [kind for kind in KINDS if kind in tables and kind != "random"]
                self._problem(
                    (*path, "test_count_of"), f"another split of this file is expected{did_you_mean(table.test_count_of, others)}"
                )
            elif grid is not None and table.test_count_of in rules:
                counts = Split("", table.test_count_of, grid, rules[table.test_count_of]).counts
                return RandomRule(counts.test, table.seed, table.test_count_of)
        elif grid is not None and table.test_count is not None:
            if 0 < table.test_count < len(grid):
                return RandomRule(table.test_count, table.seed)
            side = "test" if table.test_count <= 0 else "train"
            self._problem(
                (*path, "test_count"), f"1 to {len(grid) - 1} is expected, got {shown(table.test_count)}, so {side} would be empty"
            )
        return None
