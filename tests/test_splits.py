"""The paper's numbers, and what must hold for any grid and any spec."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splits
from helpers.specs import COUNTS
from splits import rules
from splits.explain import explain, steps_to_train
from splits.plot import pair_mask

# Counts and hashes of the random masks, recomputed from the rules of Schott et al. and of its supplementary code.
RANDOM_MASKS = {
    "dsprites": "3ff67b94e5136c8e",
    "shapes3d": "7d1d8ae909d82d54",
    "mpi3d": "aa3a3c702d757448",
    "celebglow": "86d923628293c6bb",
}
# What the rules take: the ratio held out, the factors never held out, composition's quantile where it is fixed.
RULES = {
    "dsprites": (0.2, ("shape",), None),
    "shapes3d": (0.15, ("object type",), None),
    "mpi3d": (0.1, ("shape", "size"), None),
    "mpi3d_complex": (0.1, ("shape", "size"), None),  # of which the paper has none
    "celebglow": (0.3, ("person",), 0.2),
}


def mask_hash(split: splits.Split) -> str:
    return hashlib.sha256(np.packbits(split.mask).tobytes()).hexdigest()[:16]


# --- the paper's splits


@pytest.mark.parametrize("dataset, kind", COUNTS)
def test_counts_are_the_papers_in_closed_form_and_enumerated(dataset: str, kind: str) -> None:
    split = splits.load(dataset, kind)
    assert split.counts == COUNTS[dataset, kind]
    assert (len(split.train), len(split.test)) == COUNTS[dataset, kind]
    assert split.train.dtype == split.test.dtype == np.int64


@pytest.mark.parametrize("dataset", RANDOM_MASKS)
def test_random_masks_are_the_papers(dataset: str) -> None:
    assert mask_hash(splits.load(dataset, "random")) == RANDOM_MASKS[dataset]


@pytest.mark.parametrize("dataset", RULES)
def test_shipped_tables_follow_from_the_rules(dataset: str) -> None:
    shipped = splits.load_spec(dataset)
    ratio, never, quantile = RULES[dataset]
    derived = splits.derive_spec(dataset, shipped.grid, ratio, never, quantile)
    assert derived.rules == shipped.rules
    assert not derived.impossible


@pytest.mark.parametrize("dataset, kind", COUNTS)
def test_shipped_splits_keep_the_promises_of_their_kind(dataset: str, kind: str) -> None:
    proof = explain(splits.load(dataset, kind))
    assert proof.ok
    assert proof.data["disjoint"]
    assert proof.data["complete"]


def test_the_recordings_of_mpi3d_share_its_splits_under_their_own_names() -> None:
    for variant in ("mpi3d_toy", "mpi3d_realistic"):
        spec = splits.load_spec(variant)
        assert spec.name == variant
        assert (spec.grid, spec.rules) == (splits.load_spec("mpi3d").grid, splits.load_spec("mpi3d").rules)


def test_mpi3d_modularity_subset() -> None:
    split = splits.load("mpi3d", "extrapolation")
    subset = split.only("x-axis")
    factors = split.grid.factors(subset)
    assert len(subset) == 5 * 6 * 2 * 2 * 2 * 4 * 36
    assert (factors[:, 5] >= 36).all()
    assert (factors[:, 6] < 36).all()
    assert (split.held_out_count[subset] == 1).all()


def test_steps_of_held_out_values() -> None:
    assert splits.load("dsprites", "extrapolation").steps("scale").tolist() == [0, 0, 0, 0, 1, 2]
    assert splits.load("dsprites", "interpolation").steps("scale").tolist() == [0, 1, 0, 0, 1, 0]


# --- the rules


def test_hold_out_counts_are_rounded_as_real_numbers() -> None:
    assert 100 * 0.07 > 7  # in floating point
    assert len(rules.extrapolation(100, 0.07)) == 7
    assert rules.composition(5, 0.2) == (1, 2, 3, 4)


def test_a_kind_that_a_grid_cannot_have_says_why() -> None:
    def spec(levels: int) -> splits.SplitSpec:
        levelled = (splits.Factor(name, levels) for name in ("smile", "blond", "age"))
        return splits.derive_spec("faces", [splits.Factor("person", 24, "categorical"), *levelled], 0.3, ("person",), 0.2)

    assert spec(6).kinds == splits.KINDS
    assert spec(6).split("composition").counts == (24 * 91, 24 * 125)
    assert spec(3).kinds == ("random", "interpolation", "extrapolation")
    with pytest.raises(ValueError, match=r"faces can't have a composition split: .*floor\(size · 0.2\)"):
        spec(3).split("composition")
    assert spec(2).kinds == ("random", "extrapolation")
    with pytest.raises(ValueError, match="smile: 2 values less the held-out 1 leave 1, but both ends must be kept"):
        spec(2).split("interpolation")
    assert spec(1).kinds == ()
    assert splits.spec_from_dict(json.loads(json.dumps(spec(2).to_dict()))) == spec(2)


@pytest.mark.parametrize("ratio, quantile", [(0, None), (1.5, None), (0.3, 1.0)])
def test_derivation_refuses_ratios_outside_0_and_1(ratio: float, quantile: float | None) -> None:
    with pytest.raises(ValueError, match="a number between 0 and 1 is expected"):
        splits.derive_spec("faces", [splits.Factor("smile", 6)], ratio, (), quantile)


def test_derivation_refuses_unknown_factors() -> None:
    with pytest.raises(ValueError, match="no factor 'smiel'; did you mean 'smile'"):
        splits.derive_spec("faces", [splits.Factor("smile", 6)], 0.3, ("smiel",))


# --- the grid


def test_grid_numbers_row_major_and_scales_targets() -> None:
    grid = splits.load_spec("dsprites").grid
    assert (len(grid), grid.sizes, grid.kinds[:2]) == (737_280, (3, 6, 40, 32, 32), ("categorical", "ordinal"))
    assert grid.factors(33).tolist() == [0, 0, 0, 1, 1]
    assert grid.index([0, 0, 0, 1, 1]) == 33
    assert grid.factors([[0, 1], [2, 3]]).shape == (2, 2, 5)
    assert grid.targets(len(grid) - 1).tolist() == [1, 1, 1, 1, 1]
    assert grid.targets(33).dtype == np.float64
    assert grid.factors([]).shape == (0, 5)


def test_a_factor_of_one_value_has_target_0() -> None:
    grid = splits.FactorGrid((splits.Factor("only", 1), splits.Factor("two", 2)))
    assert grid.targets([0, 1]).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize(
    "call, argument, message",
    [
        ("index", [3, 0], "shape is 3, but its values are 0 to 2"),
        ("index", [[0, 0], [0, -1]], "x is -1, but its values are 0 to 3"),
        ("index", [0, 0, 0], r"shape \(…, 2\) are expected \(shape, x\), got shape \(3,\)"),
        ("index", [0.0, 1.5], "whole numbers are expected, got float64"),
        ("factors", 12, "index 12 is out of range: the grid is numbered 0 to 11"),
        ("factors", [0, -1], "index -1 is out of range"),
        ("factors", True, "whole numbers are expected, got bool"),
        ("factors", 2**63 + 5, "out of range"),
        ("targets", 12, "out of range"),
    ],
)
def test_grid_refuses_what_it_does_not_have(call: str, argument: object, message: str) -> None:
    grid = splits.FactorGrid((splits.Factor("shape", 3), splits.Factor("x", 4)))
    with pytest.raises(ValueError, match=message):
        getattr(grid, call)(argument)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: splits.Factor("x", 0), "a size of at least 1"),
        (lambda: splits.Factor("x", 2, "nominal"), "unknown kind 'nominal'"),  # type: ignore[arg-type]
        (lambda: splits.Factor("x", 2, values=("a",)), "its size is 2, but it has 1 value"),
        (lambda: splits.FactorGrid(()), "at least one factor"),
        (lambda: splits.FactorGrid((splits.Factor("x", 2), splits.Factor("x", 3))), "used twice: x"),
        (lambda: splits.FactorGrid((splits.Factor("x", 2**40), splits.Factor("y", 2**40))), "too large to number"),
        (lambda: splits.load_spec("mpi3d").grid["x axis"], "no factor 'x axis'; did you mean 'x-axis'"),
    ],
)
def test_impossible_grids(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


# --- any grid, any spec


@st.composite
def held_out_specs(draw: st.DrawFn) -> dict[str, object]:
    """A valid spec in its plain form: 1 to 4 factors, an `any` and an `all` rule, and a random split of some count."""
    sizes = draw(st.lists(st.integers(2, 5), min_size=1, max_size=4))
    names = [f"factor {position}" for position in range(len(sizes))]
    held_out = {}
    for name, size in zip(names, sizes, strict=True):
        values = draw(st.lists(st.integers(0, size - 1), unique=True, max_size=size - 1).map(sorted))
        if values:
            held_out[name] = values
    held_out = held_out or {names[0]: [0]}
    return {
        "name": "drawn",
        "factor": [{"name": name, "size": size, "kind": "ordinal"} for name, size in zip(names, sizes, strict=True)],
        "split": {
            "extrapolation": {"test_if": "any", "held_out": held_out},
            "composition": {"test_if": "all", "held_out": held_out},
            "random": {"test_count": draw(st.integers(1, math.prod(sizes) - 1)), "seed": draw(st.integers(0, 2**32 - 1))},
        },
    }


@given(held_out_specs())
@settings(deadline=None)
def test_splits_follow_their_rule_sample_by_sample(data: dict[str, object]) -> None:
    spec = splits.spec_from_dict(data)
    rows = list(itertools.product(*map(range, spec.grid.sizes)))
    for kind in spec.kinds:
        split = spec.split(kind)
        assert split.counts == (len(split.train), len(split.test))
        assert sorted([*split.train, *split.test]) == list(range(len(spec.grid)))
        assert (np.diff(split.train) > 0).all()
        assert (np.diff(split.test) > 0).all()
        if split.test_if is None:
            continue
        held = [[value in split.held_out.get(name, ()) for name, value in zip(spec.grid.names, row, strict=True)] for row in rows]
        needed = 1 if split.test_if == "any" else len(split.held_out)
        assert split.mask.tolist() == [sum(flags) >= needed for flags in held]
        if split.test_if == "any":
            assert split.held_out_count.tolist() == [sum(flags) for flags in held]
            for name in split.held_out:
                axis = spec.grid.axis(name)
                assert split.only(name).tolist() == [i for i, flags in enumerate(held) if flags[axis] and sum(flags) == 1]


@given(held_out_specs())
@settings(deadline=None, max_examples=30)
def test_steps_to_train_are_the_least_over_all_train_samples(data: dict[str, object]) -> None:
    spec = splits.spec_from_dict(data)
    factors = spec.grid.factors(np.arange(len(spec.grid)))
    for kind in spec.kinds:
        split = spec.split(kind)
        distances = np.abs(factors[:, None] - factors[split.train]).sum(axis=-1).min(axis=1)
        assert steps_to_train(split).tolist() == distances.tolist()


@given(held_out_specs())
@settings(deadline=None)
def test_specs_round_trip_through_json(data: dict[str, object]) -> None:
    spec = splits.spec_from_dict(data)
    assert splits.spec_from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.data())
def test_index_is_the_inverse_of_factors(sizes: list[int], data: st.DataObject) -> None:
    grid = splits.FactorGrid(tuple(splits.Factor(str(axis), size) for axis, size in enumerate(sizes)))
    number = data.draw(st.integers(0, len(grid) - 1))
    assert grid.index(grid.factors(number)) == number
    everything = np.arange(len(grid)) if len(grid) < 5_000 else np.array([0, number, len(grid) - 1])
    assert (grid.index(grid.factors(everything)) == everything).all()
    targets = grid.targets(everything)
    assert targets.min() >= 0
    assert targets.max() <= 1


@given(st.lists(st.integers(1, 12), min_size=1, max_size=4), st.floats(0.05, 0.6))
@settings(deadline=None)
def test_derived_splits_keep_the_promises_of_their_kind(sizes: list[int], ratio: float) -> None:
    spec = splits.derive_spec("drawn", [splits.Factor(str(axis), size) for axis, size in enumerate(sizes)], ratio)
    assert set(spec.kinds) | set(spec.impossible) == set(splits.KINDS)
    for kind in spec.kinds:
        assert explain(spec.split(kind)).data["counterexample"] is None
    assert splits.spec_from_dict(spec.to_dict()) == spec


# --- large grids


HUGE = splits.FactorGrid(tuple(splits.Factor(name, 10**4) for name in "abc"))


def test_what_enumerates_says_where_it_stops() -> None:
    spec = splits.derive_spec("huge", HUGE, 0.2)
    assert spec.split("extrapolation").counts.train == 8000**3
    for kind in ("extrapolation", "random"):
        split = spec.split(kind)
        for enumerate_ in (lambda s=split: s.mask, lambda s=split: s.test, lambda s=split: explain(s)):
            with pytest.raises(ValueError, match="1,000,000,000,000 samples, and at most 1,000,000,000 are enumerated"):
                enumerate_()
    for ask in (lambda: spec.split("extrapolation").held_out_count, lambda: spec.split("extrapolation").only("a")):
        with pytest.raises(ValueError, match="at most 1,000,000,000 are enumerated"):
            ask()
    assert spec.split("extrapolation").is_test([[0, 10**12 - 1], [8000, 7999]]).tolist() == [[False, True], [True, False]]


@given(held_out_specs())
@settings(deadline=None)
def test_is_test_is_the_mask(data: dict[str, object]) -> None:
    spec = splits.spec_from_dict(data)
    for kind in spec.kinds:
        split = spec.split(kind)
        assert split.is_test(np.arange(len(spec.grid))).tolist() == split.mask.tolist()
        assert split.is_test(len(spec.grid) - 1) == split.mask[-1]


def test_steps_of_a_factor_take_no_square_of_its_values() -> None:
    grid = splits.FactorGrid((splits.Factor("a", 10**6), splits.Factor("b", 2)))
    steps = splits.derive_spec("long", grid, 0.25).split("extrapolation").steps("a")
    assert steps.tolist() == [0] * 750_000 + list(range(1, 250_001))


def test_a_proof_takes_a_few_bytes_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splits.explain.BLOCK", 2**12)
    spec = splits.derive_spec("large", [splits.Factor(name, 20) for name in "abcd"], 0.2)  # 160,000 samples
    for kind in spec.kinds:
        split = spec.split(kind)
        tracemalloc.start()
        assert explain(split).ok
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 10 * len(spec.grid), kind  # it was 74 bytes


# --- the rest


def test_only_and_held_out_count_are_for_interpolation_and_extrapolation() -> None:
    for kind in ("random", "composition"):
        split = splits.load("celebglow", kind)
        with pytest.raises(ValueError, match=rf"\(interpolation, extrapolation\), not for {kind} of celebglow"):
            split.only("smile")
        with pytest.raises(ValueError, match=rf"\(interpolation, extrapolation\), not for {kind} of celebglow"):
            _ = split.held_out_count
    with pytest.raises(ValueError, match="holds out no value of 'person'; known: 'smile', 'blond', 'age'"):
        splits.load("celebglow", "extrapolation").only("person")


def test_the_mask_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        splits.load("celebglow", "composition").mask[0] = True


def test_the_picture_of_a_pair_is_a_slice_that_the_pair_decides() -> None:
    extrapolation = pair_mask(splits.load("mpi3d", "extrapolation"), "height", "color")
    assert extrapolation.tolist() == [[False] * 5 + [True]] * 2 + [[True] * 6]
    composition = pair_mask(splits.load("celebglow", "composition"), "age", "smile")
    assert composition.tolist() == [[False] * 6] + [[False] + [True] * 5] * 5


def run_python(code: str, **environment: str) -> str:
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.strip()


def test_random_splits_are_the_same_in_every_process() -> None:
    code = (
        "import splits, hashlib, numpy as np; np.random.seed(7);"
        "print(hashlib.sha256(np.packbits(splits.load('celebglow', 'random').mask)).hexdigest()[:16])"
    )
    path = str(rules.__file__).removesuffix("splits/rules.py")
    assert {run_python(code, PYTHONPATH=path, PYTHONHASHSEED=seed) for seed in ("1", "2")} == {RANDOM_MASKS["celebglow"]}


def test_imports_are_light() -> None:
    code = (
        "import sys, splits; heavy = {'torch', 'pydantic', 'matplotlib', 'pyarrow'};"
        "print(sorted(heavy & set(sys.modules))); splits.load('mpi3d', 'composition').test;"
        "import splits.summary, splits.export; print(sorted(heavy & set(sys.modules)))"
        "; splits.load(splits.vocabulary.SPECS / 'mpi3d.toml', 'random'); print(sorted(heavy & set(sys.modules)))"
    )
    path = str(rules.__file__).removesuffix("splits/rules.py")
    assert run_python(code, PYTHONPATH=path).splitlines() == ["[]", "[]", "['pydantic']"]
