"""The file of a run's error maps, beside its scores: safetensors, whose header says of which split and in which format they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from harness.io.atomic import write_atomically
from harness.scoring.maps import SideMaps, cells_of, groups_of, kept_cells
from harness.scoring.records import PerFactor
from harness.scoring.scores import Side
from splits import Split, SplitSpec, spec_from_dict
from splits.errors import DamagedError, InputError

MAPS = "maps.safetensors"
FORMAT = 1
SIDES: tuple[Side, ...] = ("test", "train")
ADVICE = "delete it, and `ood-data bench rescore` makes it again"
MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class RunMaps:
    """Where a run errs.

    Attributes:
        spec: the grid and the splits that it was scored by.
        kind: of its split.
        sides: the error maps of test and of train.
        kept: of each factor, the values whose combinations are the kept cells.
        answers: (K, F) float16, what the network answers on the kept cells, in their order.
        sampling: the standard error of R² on test that comes from scoring a sample; 0 where all was scored.
    """

    spec: SplitSpec
    kind: str
    sides: dict[Side, SideMaps]
    kept: tuple[tuple[int, ...], ...]
    answers: NDArray[np.float16]
    sampling: PerFactor

    @property
    def split(self) -> Split:
        return self.spec.split(self.kind)

    def write(self, path: Path, write: Callable[[Path, bytes], None] = write_atomically) -> None:
        """Replace the file, or make it, atomically; as an owner of the folder by `Owner.write`."""
        tensors: dict[str, NDArray[Any]] = {"answers": self.answers}
        for side, maps in self.sides.items():
            tensors |= {f"{side}.{name}": getattr(maps, name) for name in ("n", "rms", "bias")}
        about: dict[str, Any] = {"format": FORMAT, "kind": self.kind, "spec": self.spec.to_dict(), "kept": self.kept}
        about["sampling"] = self.sampling.to_dict()
        write(path, safetensors.numpy.save(tensors, {"maps": json.dumps(about)}))

    @classmethod
    def read(cls, path: Path) -> RunMaps:
        """The maps in a file of anybody's.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is of a format that isn't known here, or not consistent with itself.
            OSError: if it is damaged.
        """
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path} has more than {MOST_BYTES:,} bytes: {ADVICE}")
        try:
            with safetensors.safe_open(path, "numpy") as file:
                about = json.loads((file.metadata() or {}).get("maps", "null"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no dict)
        except (safetensors.SafetensorError, ValueError, TypeError) as error:
            raise DamagedError(f"{path} is damaged ({error}): {ADVICE}") from error
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise InputError(f"{path} is not of format {FORMAT}: {ADVICE}")
        try:
            spec, kind = spec_from_dict(dict(about["spec"])), str(about["kind"])
            spec.split(kind)
            kept = tuple(tuple(values) for values in about["kept"])
            cells = len(kept_cells(spec.grid, kept))
            _check_shapes(tensors, spec, cells)
            sampling = PerFactor.model_validate(about["sampling"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not consistent with itself ({error}): {ADVICE}") from error
        sides = {side: SideMaps(*(tensors[f"{side}.{name}"] for name in ("n", "rms", "bias"))) for side in SIDES}
        return cls(spec, kind, sides, kept, tensors["answers"], sampling)


def _check_shapes(tensors: dict[str, NDArray[Any]], spec: SplitSpec, kept: int) -> None:
    cells = sum(cells_of(spec.grid, group) for group in groups_of(spec.grid))
    factors = len(spec.grid.sizes)
    expected: dict[str, tuple[type, tuple[int, ...]]] = {"answers": (np.float16, (kept, factors))}
    for side in SIDES:
        expected |= {f"{side}.n": (np.uint32, (cells,))}
        expected |= {f"{side}.{name}": (np.float16, (cells, factors)) for name in ("rms", "bias")}
    for name, (kind, shape) in expected.items():
        tensor = tensors[name]
        if tensor.dtype != kind or tensor.shape != shape:
            raise ValueError(f"{name} has {tensor.dtype} of shape {tensor.shape}, where {np.dtype(kind)} of {shape} is expected")
        if not np.isfinite(tensor).all():
            raise ValueError(f"{name} is not finite")
