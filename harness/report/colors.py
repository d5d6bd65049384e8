"""One colour per model, wherever a report draws it, and whatever else is in the report."""

from __future__ import annotations

from collections.abc import Sequence

from harness.models import MODELS
from harness.report.leaderboard import LeaderboardRow

# As far apart as twenty can be on white and on black: ten hues of two depths.
PALETTE = (
    "#2f6fd0", "#e2701e", "#1c9a6c", "#c8364a", "#8257c9", "#0d93a8", "#b4487f", "#7c8a12", "#9a6a3c", "#5a6b85",
    "#86b1f0", "#f2ae78", "#74cba6", "#ec8d98", "#bda3ec", "#74c6d3", "#e29ac0", "#bcc763", "#cfae86", "#a3b1c6",
)  # fmt: skip
# The first ten are of the models that are drawn most often beside each other.
ORDER = (
    "cnn", "pcl", "resnet50", "densenet121", "mlp", "ada-gvae", "beta-vae", "coordconv", "rotation-eq", "slowvae", "spatial-transformer",
    "coordinate-based", "resnet101", "rotation-eq-big", "resnet50-in21k", "resnet101-in21k", "densenet121-in1k",
)  # fmt: skip


# Of models of one's own, whose configs have different ones: the three that are left, and what is darker or brighter than the others.
OWN = (*PALETTE[len(ORDER) :], "#123a78", "#7d3503", "#0b5237", "#c79a00", "#4c2a86", "#d62fc0", "#00c2a8")


def color_of(model: str, variant: int = 0) -> str:
    """The colour of a model as "#rrggbb"; another config of it is drawn in the same, or another one if it is somebody's own."""
    if model in MODELS:
        return PALETTE[ORDER.index(model)]
    return OWN[(sum(model.encode()) + variant) % len(OWN)]


def colors_of(rows: Sequence[LeaderboardRow]) -> list[str]:
    """The colour of each row."""
    return [color_of(row.model, row.variant) for row in rows]
