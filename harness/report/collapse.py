"""How often a model's answer falls back to what train has, where a factor's value is held out."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.runs.maps import RunMaps
from harness.scoring.baselines import predictions
from harness.scoring.maps import kept_cells


def collapse(maps: RunMaps) -> list[dict[str, Any] | None]:
    """Of each factor, over the kept cells where its value is held out: {"n", "back", "beyond", "by_steps"}; None where there are none.

    `back` is the share of answers that lie nearer to the nearest value of train than to the truth: pulled back by more than half of the
    way. `beyond` is the share of those as far off on the other side of the truth: what noise alone would do on both sides alike.
    `by_steps` is `back` by how many index steps the value lies from train, [steps, share, n]. None of it is of categorical factors,
    between whose values nothing lies.
    """
    split = maps.split
    if split.test_if != "any":
        return [None] * len(maps.kept)
    cells = kept_cells(split.grid, maps.kept)
    values, targets = split.grid.factors(cells), split.grid.targets(cells)
    found: list[dict[str, Any] | None] = []
    for axis, factor in enumerate(split.grid):
        steps = split.steps(factor.name)[values[:, axis]]
        held_out = steps > 0
        if factor.kind != "ordinal" or not held_out.any():
            found.append(None)
            continue
        seen = np.array([value not in split.held_out[factor.name] for value in range(factor.size)], dtype=np.int64)
        truths = np.arange(factor.size) / max(factor.size - 1, 1)
        edge = predictions(truths, seen)["clip"][values[:, axis]]
        part = (maps.answers[:, axis].astype(np.float64) - targets[:, axis])[held_out] / (edge - targets[:, axis])[held_out]
        back, beyond, steps = part > 0.5, part < -0.5, steps[held_out]
        by_steps = [[int(step), float(back[steps == step].mean()), int((steps == step).sum())] for step in np.unique(steps)]
        found.append({"n": int(held_out.sum()), "back": float(back.mean()), "beyond": float(beyond.mean()), "by_steps": by_steps})
    return found
