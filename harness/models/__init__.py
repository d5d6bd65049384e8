"""The 17 reference models of Schott et al. (ICLR 2022), and a place for others.

    model = models.find("cnn")
    network = model.build(in_channels=3, num_outputs=7)     # (B, 3, 64, 64) float32 in [0, 1] → (B, 7)

`NAMES` costs nothing; whatever else is asked for imports torch and registers the models.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from harness.models.names import NAMES

if TYPE_CHECKING:
    from harness.models.backbones import WeightsMissing
    from harness.models.lookup import find
    from harness.models.registry import MODELS, Family, Model, families, register
    from harness.models.representation import Representation

# Importing a family registers its models; in this order they are listed.
_FAMILIES = ("convolutional", "equivariant", "backbones", "representation")
_PLACES = {
    "Representation": "representation",
    "WeightsMissing": "backbones",
    "find": "lookup",
}  # all other names are the registry's

__all__ = ["MODELS", "NAMES", "Family", "Model", "Representation", "WeightsMissing", "families", "find", "register"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for family in _FAMILIES:
        import_module(f"harness.models.{family}")
    return getattr(import_module(f"harness.models.{_PLACES.get(name, 'registry')}"), name)
