"""Attribute directions: where in latent space a face smiles, turns blond, ages; and how they are found from labelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from numpy.typing import NDArray
from torch import Tensor, nn

from celebglow.info import resolve
from splits.errors import InputError
from splits.names import check_name

Floats = NDArray[np.float64]


class Directions(ModelMixin, ConfigMixin):
    """A table of attribute directions of a flow.

    A person's latent z walks to z + sum_a value_a * table[a], as in the original demo (openai/glow, demo/model.py). With `centered`,
    the person's own share of the directions is first replaced by that of `origin`, so that a value means the same for everybody.

    Args:
        attributes: names, one per row of `table` (A, D).
        num_latents: D.
        centered: see above.
        aliases: other names of attributes; "-Young" stands for the attribute's opposite.
        default: names that are walked where none are given; all attributes if None.

    Raises:
        ValueError: for what can't be a name (`splits.names`): they become factors of a dataset.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self,
        attributes: Sequence[str],
        num_latents: int,
        centered: bool = True,
        aliases: dict[str, str] | None = None,
        default: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        for name in (*attributes, *(aliases or {})):
            check_name("an attribute", name)
        self.table = nn.Parameter(torch.zeros(len(attributes), num_latents), requires_grad=False)
        self.origin = nn.Parameter(torch.zeros(num_latents), requires_grad=False)

    def resolve(self, name: str) -> tuple[int, float]:
        """The row of an attribute, by its name or an alias, and its sign.

        Raises:
            ValueError: if there is none; names the close matches.
        """
        return resolve(name, self.config.attributes, self.config.aliases)

    def select(self, attributes: Sequence[str]) -> Directions:
        """These attributes only, in this order and under these names.

        Raises:
            ValueError: for an unknown or repeated attribute; names the close matches.
        """
        rows = [self.resolve(name) for name in attributes]
        if not attributes or len({row for row, _ in rows}) < len(attributes):
            raise InputError("attributes must be named once each, and at least one")
        chosen = Directions(tuple(attributes), self.config.num_latents, self.config.centered)
        signs = torch.tensor([[sign] for _, sign in rows], dtype=self.table.dtype, device=self.table.device)
        chosen.table.copy_(self.table[[row for row, _ in rows]] * signs)
        chosen.origin.copy_(self.origin)
        return chosen

    def base(self, latents: Tensor) -> Tensor:
        """The points where the walks of the persons `latents` (B, D) start: all values 0."""
        if not self.config.centered:
            return latents
        basis = torch.linalg.qr(self.table.T.double())[0]
        own = ((latents - self.origin).double() @ basis) @ basis.T
        return (latents - own).to(latents.dtype)

    def walk(self, base: Tensor, values: Tensor) -> Tensor:
        """Latents (M, D) of one person, `base` (D,), at the attribute values `values` (M, A)."""
        walked = base.expand(len(values), -1)
        for row, column in zip(self.table, values.T, strict=True):  # in this order: sums of floats depend on it
            walked = walked + column[:, None] * row
        return walked


@dataclass(frozen=True)
class Label:
    """One column of the regression: `values` (N,) with 0 in the middle and +-1 at its ends, NaN where unknown."""

    name: str
    values: Floats

    @classmethod
    def of(cls, name: str, column: NDArray[Any]) -> Label:
        """Scale a column: two values become -1 and 1; more, their 10 % and 90 % quantiles.

        Raises:
            ValueError: if there are not two different values.
        """
        values = np.where(np.isfinite(column.astype(np.float64)), column.astype(np.float64), np.nan)
        known = values[np.isfinite(values)]
        levels = np.unique(known)
        if len(levels) < 2:
            raise InputError(f"column {name!r} has fewer than two different values")
        low, high = levels if len(levels) == 2 else np.quantile(known, [0.1, 0.9])
        if low == high:
            raise InputError(f"column {name!r} is the same for nearly all images")
        return cls(name, (values - (low + high) / 2) * 2 / (high - low))


@dataclass(frozen=True)
class Fit:
    """Directions and how well each separates images that took no part in the fit.

    `separation`: attribute to the area under the ROC curve of the coordinate along its direction, or NaN where that has no meaning.
    """

    directions: Directions
    separation: dict[str, float]


def fit_directions(
    latents: Callable[[], Iterable[Tensor]],
    attributes: Sequence[Label],
    controls: Sequence[Label] = (),
    held_out: NDArray[np.bool_] | None = None,
    shrink: float = 1.0,
    strengths: dict[str, float] | None = None,
) -> Fit:
    """Regress latents on labels; the coefficients of an attribute are its direction, the other labels held fixed.

    The latent's mean given the labels is modelled as linear in all labels at once, so that an attribute's direction holds nothing
    that another label explains (of our photos, the old smile more and are mostly men). An attribute is fitted on the images where
    it is known; of the other labels, a missing one counts as its middle and as one more column that marks it. The latents are read
    in one pass: they need not fit into memory.

    Args:
        latents: gives the batches (B, D) of all images in order; called twice, for the fit and to judge it.
        attributes: to find directions of; value 1 of a walk is +1 of the label.
        controls: labels to hold fixed besides.
        held_out: (N,) True for images kept out of the fit and used to judge it.
        shrink: coefficients are multiplied by max(0, 1 - (shrink / t)^2), t their t-statistic: noise is left out, 0 keeps all.
        strengths: factors on the directions' lengths.

    Raises:
        ValueError: if the labels don't determine the directions.
    """
    labels = [*attributes, *controls]
    number = len(labels[0].values)
    keep = np.ones(number, bool) if held_out is None else ~held_out
    design, known = _design(labels)
    # one regression for the origin, over all images; one per attribute, over those where it is known
    masks = [keep, *(keep & known[:, row] for row in range(len(attributes)))]
    for label, mask in zip(attributes, masks[1:], strict=True):
        if len(np.unique(label.values[mask])) < 2:
            raise InputError(f"{label.name!r} has fewer than two different values among the images of the fit")
    fits = [_Regression(design, mask, 1 + len(labels)) for mask in masks]
    position = 0
    for batch in latents():
        z = batch.double().cpu().numpy()
        for fit in fits:
            fit.add(z, position)
        position += len(z)

    found = Directions(tuple(label.name for label in attributes), z.shape[1])
    for row, label in enumerate(attributes):
        direction = _without_noise(*fits[1 + row].coefficient(1 + row), shrink)
        if not np.abs(direction).max() > 0:
            raise InputError(f"no direction of {label.name!r} stands out of the noise: label more images, or lower `shrink`")
        found.table[row] = torch.from_numpy(direction * (strengths or {}).get(label.name, 1.0))
    middle = design[keep].mean(axis=0)
    middle[1 : 1 + len(attributes)] = 0
    found.origin.copy_(torch.from_numpy(fits[0].predict(middle)))
    others = [fits[0].coefficient(1 + row)[0] for row in range(len(attributes), len(labels)) if 1 + row in fits[0].used]
    table = np.stack([*found.table.double().numpy(), *others])
    return Fit(found, _separation(latents(), table, attributes, ~keep))


def _design(labels: Sequence[Label]) -> tuple[Floats, NDArray[np.bool_]]:
    """(N, P) columns to regress on, an intercept, the labels, and marks of what is missing; (N, L) where each label is known."""
    number = len(labels[0].values)
    columns = [np.ones(number), *(np.nan_to_num(label.values, nan=0.0) for label in labels)]
    known = np.stack([np.isfinite(label.values) for label in labels], axis=1)
    columns += [column.astype(np.float64) for column in np.unique(~known, axis=1).T if column.any()]
    return np.stack(columns, axis=1), known


def _without_noise(direction: Floats, t: Floats, shrink: float) -> Floats:
    """Coefficients (D,) shrunk by their t-statistics `t` (D,)."""
    shrunk: Floats = direction * np.maximum(0, 1 - (shrink / np.maximum(np.abs(t), 1e-9)) ** 2)
    return shrunk


class _Regression:
    """Least squares of latents on the columns of `design` (N, P) over the rows `keep` (N,), one batch after another.

    Columns that are constant there are left out, but for the first, the intercept; so are marks of missing labels, the columns from
    `marks` on, that the other columns determine.
    """

    def __init__(self, design: Floats, keep: NDArray[np.bool_], marks: int) -> None:
        rows = design[keep]
        used = [0, *(column for column in range(1, marks) if np.ptp(rows[:, column]) > 0)]
        for column in range(marks, design.shape[1]):
            if np.linalg.matrix_rank(rows[:, [*used, column]]) > len(used):
                used.append(column)
        self.used = np.array(used)
        self.design, self.keep = design[:, self.used], keep
        gram = self.design[keep].T @ self.design[keep]
        if np.linalg.matrix_rank(gram, hermitian=True) < len(gram):
            raise InputError("the labels determine each other: leave one of them out")
        self.inverse = np.linalg.inv(gram)
        self.cross: Floats = np.zeros(())
        self.squares: Floats = np.zeros(())

    def add(self, z: Floats, position: int) -> None:
        """Take in the latents (B, D) of the images from `position` on."""
        kept = self.keep[position : position + len(z)]
        x, z = self.design[position : position + len(z)][kept], z[kept]
        self.cross = self.cross + x.T @ z
        self.squares = self.squares + (z**2).sum(axis=0)

    def coefficient(self, column: int) -> tuple[Floats, Floats]:
        """The coefficients (D,) of a column of the design, and their t-statistics."""
        index = int(np.flatnonzero(self.used == column)[0])
        coefficients = self.inverse @ self.cross
        residual = np.maximum(self.squares - (coefficients * self.cross).sum(axis=0), 1e-12)
        deviation = np.sqrt(residual / max(1, self.keep.sum() - len(self.used)) * self.inverse[index, index])
        return coefficients[index], coefficients[index] / deviation

    def predict(self, row: Floats) -> Floats:
        """The latent (D,) expected for a row (P,) of the design."""
        return row[self.used] @ (self.inverse @ self.cross)


def _separation(
    latents: Iterable[Tensor], table: Floats, attributes: Sequence[Label], judged: NDArray[np.bool_]
) -> dict[str, float]:
    """Areas under the ROC curves of the coordinates along the first rows of `table`, those along the others held fixed."""
    dual = np.linalg.pinv(table)[:, : len(attributes)]
    coordinates = np.concatenate([batch.double().cpu().numpy() @ dual for batch in latents])
    return {label.name: area_under_curve(coordinates[judged, row], label.values[judged]) for row, label in enumerate(attributes)}


def area_under_curve(scores: Floats, labels: Floats) -> float:
    """P(score of a positive > score of a negative), ties counting half; labels > 0 are positive, NaN is left out. NaN if one side is empty."""
    positive, negative = scores[labels > 0], np.sort(scores[labels < 0])
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.searchsorted(negative, positive, "left") + np.searchsorted(negative, positive, "right")
    return float(below.mean() / 2 / len(negative))
