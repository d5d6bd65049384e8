"""The 17 reference models of Schott et al. (ICLR 2022), and a place for others.

    model = models.find("cnn")
    network = model.build(in_channels=3, num_outputs=7)     # (B, 3, 64, 64) float32 in [0, 1] → (B, 7)

What the models are costs nothing to know; torch is imported when one is built, or a class of networks is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness.models import reference  # noqa: F401  # registers them, in the order in which they are listed and run
from harness.models.lookup import find
from harness.models.registry import MODELS, Family, Model, families, register
from harness.models.weights import WeightsMissing

if TYPE_CHECKING:
    from harness.models.representation import Representation

NAMES = tuple(MODELS)

__all__ = ["MODELS", "NAMES", "Family", "Model", "Representation", "WeightsMissing", "families", "find", "register"]


def __getattr__(name: str) -> Any:
    if name != "Representation":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("harness.models.representation").Representation
