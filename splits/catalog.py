"""Specs by name and from files, in TOML: the paper's are shipped, users write others."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from splits.errors import AbsentError, InputError, SpecError, did_you_mean, shown
from splits.grid import Factor, FactorGrid
from splits.rules import HeldOutRule, Rule, indices_of_range
from splits.spec import SplitSpec, as_many_as
from splits.split import Split
from splits.vocabulary import DATASETS, KINDS, SPECS, VARIANTS, Kind

LARGEST_SPEC = 2**24  # bytes: a factor of a million values, each written down, fits


def load_spec(name_or_path: str | Path) -> SplitSpec:
    """The shipped spec of a dataset (`DATASETS`), the spec in a TOML file, or that of a store.

    Args:
        name_or_path: a dataset's name; or a path, which a str is taken for if it ends in .toml or .zarr or has a folder.

    Raises:
        SpecError: a ValueError with every mistake of a bad spec, each with its path in the file.
        ValueError: for a name that isn't a dataset's, with close matches; for a file that isn't TOML.
        FileNotFoundError: if there is no such file.
    """
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and path.suffix not in (".toml", ".zarr") and path.name == name_or_path:
        if name_or_path not in DATASETS:
            raise InputError(
                f"unknown dataset {name_or_path!r}{did_you_mean(name_or_path, DATASETS)} (or give a spec file, *.toml, or a store, *.zarr)"
            )
        return _shipped(name_or_path)
    if not path.exists():
        raise AbsentError(f"there is no {path}: a spec file (*.toml) or a store (*.zarr) is expected")
    if path.suffix == ".zarr":
        return _of_store(path)
    with path.open("rb") as file:
        text = file.read(LARGEST_SPEC + 1)
    if len(text) > LARGEST_SPEC:
        raise SpecError(str(path), [f"not a spec: a file of at most {LARGEST_SPEC:,} bytes is expected"])
    try:
        raw = tomllib.loads(text.decode("utf-8"))
    except RecursionError:
        raise SpecError(str(path), ["not a spec: its tables or lists are nested too deeply"]) from None
    except ValueError as error:  # tomllib's, of what is not UTF-8, and of numbers with too many digits
        raise SpecError(str(path), [f"not TOML: {error}"]) from None
    from splits.schema import read  # pydantic

    return read(raw, str(path))


def _of_store(path: Path) -> SplitSpec:
    """The spec in the attributes of a store's group."""
    document = path / "zarr.json"
    with document.open("rb") as file:
        text = file.read(LARGEST_SPEC + 1)
    try:
        raw = json.loads(text)["attributes"]["ood_data"]["spec"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise InputError(f"{document} has no spec: a store of this project is expected") from None
    if not isinstance(raw, dict):
        raise InputError(f"{document} has no spec: a store of this project is expected")
    return spec_from_dict(raw)


def spec_from_dict(data: Mapping[str, Any]) -> SplitSpec:
    """The spec that `SplitSpec.to_dict` wrote, validated like a file.

    Raises:
        SpecError: a ValueError with every mistake, each with its path.
    """
    from splits.schema import read  # pydantic

    return read(data, f"spec {shown(data['name'])[1:-1]}" if isinstance(data.get("name"), str) else "spec")


def load(dataset: str | Path, kind: str) -> Split:
    """The split of that kind of a dataset, or of the spec in a TOML file.

    Raises:
        ValueError: as `load_spec` and `SplitSpec.split`.
    """
    return load_spec(dataset).split(kind)


def select(spec: SplitSpec, kind: str) -> Split:
    """The split of that kind of `spec`, as `spec.split(kind)`."""
    return spec.split(kind)


def _shipped(name: str) -> SplitSpec:
    """A spec of this package. The tests validate it; here it is read as it is, as importing pydantic takes longer than the rest."""
    raw = tomllib.loads((SPECS / f"{VARIANTS.get(name, name)}.toml").read_text(encoding="utf-8"))
    grid = FactorGrid(
        tuple(
            Factor(table["name"], table["size"], table["kind"], tuple(table["values"]) if "values" in table else None)
            for table in raw["factor"]
        )
    )
    found: dict[Kind, Rule] = {}
    for kind in KINDS:
        if kind != "random":
            table = raw["split"][kind]
            chosen = {factor.name: table["held_out"][factor.name] for factor in grid if factor.name in table["held_out"]}
            held_out = {
                factor: indices_of_range(choice, grid[factor].size) if isinstance(choice, str) else tuple(choice)
                for factor, choice in chosen.items()
            }
            found[kind] = HeldOutRule(table["test_if"], held_out)
    found["random"] = as_many_as(found, name, grid)
    return SplitSpec(name, grid, found, source=raw["source"])
