"""A good spec of a user's, and how many images the shipped splits have."""

from __future__ import annotations

GOOD = """
name = "rooms"
[[factor]]
name = "lamp"
size = 3
kind = "categorical"
values = ["off", "dim", "bright"]
[[factor]]
name = "x-axis"
size = 6
kind = "ordinal"
[split.extrapolation]
test_if = "any"
held_out = { lamp = ["bright"], "x-axis" = "4:" }
[split.composition]
test_if = "all"
held_out = { lamp = "1:", "x-axis" = [3, 4, 5] }
[split.random]
test_count_of = "extrapolation"
seed = 3
"""

# Of train and test, recomputed from the rules of Schott et al. and of its supplementary code.
COUNTS = {
    ("dsprites", "random"): (240_000, 497_280),
    ("dsprites", "composition"): (192_312, 544_968),
    ("dsprites", "interpolation"): (240_000, 497_280),
    ("dsprites", "extrapolation"): (240_000, 497_280),
    ("shapes3d", "random"): (147_456, 332_544),
    ("shapes3d", "composition"): (153_408, 326_592),
    ("shapes3d", "interpolation"): (147_456, 332_544),
    ("shapes3d", "extrapolation"): (147_456, 332_544),
    ("mpi3d", "random"): (311_040, 725_760),
    ("mpi3d", "composition"): (287_712, 749_088),
    ("mpi3d", "interpolation"): (311_040, 725_760),
    ("mpi3d", "extrapolation"): (311_040, 725_760),
    ("celebglow", "random"): (64_000, 152_000),
    ("celebglow", "composition"): (91_000, 125_000),
    ("celebglow", "interpolation"): (64_000, 152_000),
    ("celebglow", "extrapolation"): (64_000, 152_000),
}
