"""The 17 reference models of Schott et al. (ICLR 2022), and a place for others.

model = models.find("cnn")
network = model.build(in_channels=3, num_outputs=7)     # (B, 3, 64, 64) float32 in [0, 1] → (B, 7)
"""

# Importing a family registers its models; in this order they are listed.
# isort: off
from harness.models import convolutional, equivariant, backbones, representation  # noqa: F401

# isort: on
from harness.models.backbones import WeightsMissing
from harness.models.lookup import find
from harness.models.registry import MODELS, Family, Model, families, register
from harness.models.representation import Representation

__all__ = ["MODELS", "Family", "Model", "Representation", "WeightsMissing", "families", "find", "register"]
