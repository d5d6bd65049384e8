"""Split specs: a factor grid and the rules of its splits as plain data, given or derived."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from splits import rules, toml
from splits.errors import InputError, did_you_mean
from splits.grid import Factor, FactorGrid
from splits.rules import HeldOutRule, RandomRule, Rule
from splits.split import Split
from splits.vocabulary import KINDS, Kind


@dataclass(frozen=True)
class SplitSpec:
    """The grid of a dataset and the rules of its splits. Read one with `splits.load_spec`, derive one with `derive_spec`.

    Attributes:
        name: the dataset's.
        grid: its factors of variation.
        rules: the rule of each kind that it has.
        impossible: for kinds that this grid can't have, why not.
        source: where its numbers come from.
    """

    name: str
    grid: FactorGrid
    rules: Mapping[Kind, Rule]
    impossible: Mapping[Kind, str] = field(default_factory=dict)
    source: str = ""

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of split that it has, in the order of `splits.KINDS`."""
        return tuple(kind for kind in KINDS if kind in self.rules)

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The factors that some kind holds values out of, in the order of the grid; those of more than one value if none does."""
        rules = [rule for rule in self.rules.values() if isinstance(rule, HeldOutRule)]
        return tuple(f.name for f in self.grid if (any(f.name in rule.held_out for rule in rules) if rules else f.size > 1))

    def split(self, kind: str) -> Split:
        """The split of that kind.

        Raises:
            ValueError: for an unknown kind, or one that this spec doesn't have: it says why where the reason is known.
        """
        for known, rule in self.rules.items():
            if kind == known:
                return Split(self.name, known, self.grid, rule)
        for known, reason in self.impossible.items():
            if kind == known:
                raise InputError(f"{self.name} can't have a {kind} split: {reason}")
        if kind in KINDS:
            raise InputError(f"the spec of {self.name} has no {kind} split; it has: {', '.join(self.kinds) or 'none'}")
        raise InputError(f"unknown kind of split {kind!r}{did_you_mean(kind, KINDS)}")

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON-able data, laid out as its TOML is; `splits.spec_from_dict` is the exact inverse."""
        factors = [
            {"name": factor.name, "size": factor.size, "kind": factor.kind}
            | ({} if factor.values is None else {"values": list(factor.values)})
            for factor in self.grid
        ]
        data: dict[str, Any] = {"name": self.name, "source": self.source, "factor": factors}
        data["split"] = {kind: _rule_to_dict(self.rules[kind]) for kind in self.kinds}
        data["impossible"] = dict(self.impossible)
        return {key: value for key, value in data.items() if value or key == "split"}

    def to_toml(self) -> str:
        """The spec as a file that `splits.load_spec` reads."""
        return toml.dumps(self.to_dict())


def derive_spec(
    name: str,
    factors: FactorGrid | Iterable[Factor],
    ratio: float,
    never_held_out: Iterable[str] = (),
    composition_q: float | None = None,
    source: str = "derived by the rules of Schott et al. (ICLR 2022, arXiv 2107.08221)",
) -> SplitSpec:
    """All four kinds of split for any grid, by the paper's rules (`splits.rules`).

    A kind that the grid can't have is left out, and asking for it says why.

    >>> spec = derive_spec("discs", [Factor("x", 10), Factor("y", 10)], ratio=0.2)
    >>> spec.split("extrapolation").held_out
    {'x': (8, 9), 'y': (8, 9)}
    >>> spec.split("extrapolation").counts
    Counts(train=64, test=36)

    Args:
        name: the dataset's.
        factors: the factors of variation.
        ratio: r in (0, 1), the ratio of each varying factor's values that is held out.
        never_held_out: factors all of whose values stay in train and test; so do factors of size 1.
        composition_q: composition's quantile; the paper's formula if None (its CelebGlow has 0.2, fixed).
        source: what the spec cites.

    Raises:
        ValueError: for a ratio or quantile outside (0, 1), or an unknown factor in `never_held_out`.
    """
    grid = factors if isinstance(factors, FactorGrid) else FactorGrid(tuple(factors))
    never = {grid[factor_name].name for factor_name in never_held_out}
    varying = [factor for factor in grid if factor.name not in never and factor.size > 1]
    for what, value in (("ratio", ratio), ("composition_q", composition_q)):
        if value is not None and not 0 < value < 1:
            raise InputError(f"{what} is {value}; a number between 0 and 1 is expected")
    quantile = rules.composition_quantile(ratio, max(len(varying), 1)) if composition_q is None else composition_q

    found: dict[Kind, Rule] = {}
    impossible: dict[Kind, str] = {}
    derivations: dict[Kind, Callable[[], HeldOutRule | RandomRule]] = {
        "extrapolation": lambda: _any_of(varying, lambda size: rules.extrapolation(size, ratio)),
        "interpolation": lambda: _any_of(varying, lambda size: rules.interpolation(size, ratio)),
        "composition": lambda: _corner(varying, quantile),
        "random": lambda: as_many_as(found, name, grid),
    }
    for kind, derive in derivations.items():
        try:
            found[kind] = derive()
        except ValueError as error:
            impossible[kind] = str(error)
    return SplitSpec(name, grid, found, impossible, source)


def _any_of(varying: list[Factor], hold_out: Callable[[int], tuple[int, ...]]) -> HeldOutRule:
    if not varying:
        raise InputError("no factor varies")
    held_out = {}
    for factor in varying:
        try:
            held_out[factor.name] = hold_out(factor.size)
        except ValueError as error:
            raise InputError(f"{factor.name}: {error}") from None
        if len(held_out[factor.name]) == factor.size:
            raise InputError(f"{factor.name}: all {factor.size} values would be held out, and train be empty")
    return HeldOutRule("any", held_out)


def _corner(varying: list[Factor], quantile: float) -> HeldOutRule:
    corners = {factor.name: rules.composition(factor.size, quantile) for factor in varying}
    held_out = {name: corner for name, corner in corners.items() if corner}
    if len(held_out) < 2:  # with one factor only, train would never see the values of its corner
        who = "only " + next(iter(held_out)) if held_out else "no factor"
        raise InputError(f"it takes two factors with floor(size · {quantile:.4g}) of at least 1, and {who} has that")
    return HeldOutRule("all", held_out)


def as_many_as(found: Mapping[Kind, Rule], name: str, grid: FactorGrid) -> RandomRule:
    """The rule of random, whose test side has as many samples as that of extrapolation."""
    if "extrapolation" not in found:
        raise InputError("its test count is that of the extrapolation split, which this grid can't have")
    extrapolation = Split(name, "extrapolation", grid, found["extrapolation"])
    return RandomRule(extrapolation.counts.test, test_count_of="extrapolation")


def _rule_to_dict(rule: Rule) -> dict[str, Any]:
    if isinstance(rule, HeldOutRule):
        return {"test_if": rule.test_if, "held_out": {name: list(values) for name, values in rule.held_out.items()}}
    count = {"test_count": rule.test_count} if rule.test_count_of is None else {"test_count_of": rule.test_count_of}
    return count | {"seed": rule.seed}
