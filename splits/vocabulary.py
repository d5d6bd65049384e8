"""The words that a user types: kinds of split, and datasets whose specs are shipped. Readable without numpy, so that help is quick."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from splits.errors import InputError, did_you_mean

Kind = Literal["random", "composition", "interpolation", "extrapolation"]
KINDS: tuple[Kind, ...] = ("random", "composition", "interpolation", "extrapolation")

SPECS = Path(__file__).parent / "specs"
# The three recordings of MPI3D share one grid; the paper's is the real one.
VARIANTS = {"mpi3d_toy": "mpi3d", "mpi3d_realistic": "mpi3d"}
PUBLISHED_NAMES = {"celebglow": "celeb_glow"} | VARIANTS  # where the benchmark's published files have another name for a dataset
DATASETS = (*sorted(path.stem for path in SPECS.glob("*.toml")), *VARIANTS)


def kinds_named(given: Sequence[str]) -> tuple[Kind, ...]:
    """Each kind of split once, in their usual order; none if "all" is among them: all that a dataset has.

    Raises:
        InputError: for an unknown kind, with the close ones.
    """
    for kind in given:
        if kind not in (*KINDS, "all"):
            raise InputError(f"unknown kind of split {kind!r}{did_you_mean(kind, [*KINDS, 'all'])}")
    return () if "all" in given else tuple(kind for kind in KINDS if kind in given)
