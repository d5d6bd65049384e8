"""CelebGlow regenerated, and the out-of-distribution benchmark of Schott et al. (ICLR 2022), in one import.

    import ood_data

    data = ood_data.open_dataset("celebglow", "data/")
    split = ood_data.load_split("mpi3d", "composition")
    scores = ood_data.score(predict, data, data.split("extrapolation"))

Importing this costs milliseconds: what a name needs, torch above all, is imported when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from celebglow.generate import generate
    from celebglow.pipeline import CelebGlowPipeline
    from celebglow.population import Population
    from harness import open as open_dataset
    from harness.bench.execute import execute
    from harness.bench.plan import plan
    from harness.data.dataset import Dataset
    from harness.data.pairs import ChangedFactors, LaplaceSteps
    from harness.models import Representation
    from harness.runs.networks import load as load_model
    from harness.runs.presets import Settings
    from harness.scoring.scores import score
    from splits.catalog import load as load_split
    from splits.catalog import load_spec
    from splits.errors import OodDataError

_PLACES = {
    "CelebGlowPipeline": ("celebglow.pipeline", "CelebGlowPipeline"),
    "Dataset": ("harness.data.dataset", "Dataset"),
    "LaplaceSteps": ("harness.data.pairs", "LaplaceSteps"),
    "Settings": ("harness.runs.presets", "Settings"),
    "OodDataError": ("splits.errors", "OodDataError"),
    "ChangedFactors": ("harness.data.pairs", "ChangedFactors"),
    "execute": ("harness.bench.execute", "execute"),
    "generate": ("celebglow.generate", "generate"),
    "load_model": ("harness.runs.networks", "load"),
    "load_spec": ("splits.catalog", "load_spec"),
    "load_split": ("splits.catalog", "load"),
    "open_dataset": ("harness", "open"),
    "Population": ("celebglow.population", "Population"),
    "Representation": ("harness.models", "Representation"),
    "plan": ("harness.bench.plan", "plan"),
    "score": ("harness.scoring.scores", "score"),
}
__all__ = [  # for type checkers and editors, which read no code: those of `_PLACES`
    "CelebGlowPipeline",
    "ChangedFactors",
    "Dataset",
    "LaplaceSteps",
    "OodDataError",
    "Population",
    "Representation",
    "Settings",
    "__version__",
    "execute",
    "generate",
    "load_model",
    "load_spec",
    "load_split",
    "open_dataset",
    "plan",
    "score",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # of what is installed

        return version("ood-data")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
