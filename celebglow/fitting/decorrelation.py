"""Linear probes of pictures: what a walk changes that people can see, and directions mixed so that each changes only its own.

A direction can be free of the other labels in latent space and still not look so: a decoder is not linear, and blond hair over an
unchanged face may read as older. Probes are ridge regressions of the labels on the pixels of the faces' interior, fitted on the same
images as the directions; they measure the walks of people who do not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from celebglow.directions import Directions, Floats, Label
from splits.errors import InputError

RIDGE = 1e3
PEOPLE = 48
SEED = 2**31  # of these people: not those of any ordinary population
ROUNDS = 2  # the response is not quite linear


def decorrelate(
    directions: Directions,
    images: NDArray[np.uint8],
    labels: Sequence[Label],
    decode: Callable[[torch.Tensor], NDArray[np.uint8]],
    person: Callable[[int], torch.Tensor],
    whole: Collection[str] = (),
) -> Floats:
    """Mix the rows of `directions` in place so that each walk, from -1 to 1, moves its own probe and no other.

    Args:
        directions: as fitted, one row per label.
        images: (N, R, R, C) uint8, labelled images at the flow's resolution.
        labels: of the attributes, for each image.
        decode: latents (M, D) to pictures (M, R, R, C) uint8.
        person: number to latent (D,).
        whole: names of attributes that show outside the face's interior, as hair does: their probes see the whole picture.

    Returns:
        the responses before mixing (A, A): change of probe b along walk a, in standard deviations over people.

    Raises:
        ValueError: if a walk does not change what its own probe sees.
    """
    probes = [_Probe(images, label.values, label.name in whole) for label in labels]
    base = directions.base(torch.stack([person(number) for number in range(PEOPLE)]))
    people = decode(base)
    spread = np.array([probe(people).std() for probe in probes])
    first: Floats | None = None
    for _ in range(ROUNDS):
        responses = np.array([_response(row, base, probes, decode) for row in directions.table]) / spread
        first = responses if first is None else first
        if not np.abs(np.diag(responses)).min() > 0:
            raise InputError("a walk does not change what its own probe sees: give `decorrelated=False`")
        mixing = np.linalg.inv(responses / np.diag(responses))  # mixing @ responses is diagonal
        mixing /= np.diag(mixing)[:, None]
        directions.table.copy_(torch.from_numpy(mixing).to(directions.table) @ directions.table)
    assert first is not None
    return first


class _Probe:
    """Ridge regression of the known `values` (N,) on the features of `images` (N, R, R, C), in its dual form."""

    def __init__(self, images: NDArray[np.uint8], values: Floats, whole: bool) -> None:
        self.whole = whole
        known = np.isfinite(values)
        features = _features(images[known], whole)
        self.centre = features.mean(axis=0)
        centred = features - self.centre
        kernel = centred @ centred.T + RIDGE * np.eye(len(centred))
        self.weights = np.linalg.solve(kernel, values[known] - values[known].mean()) @ centred

    def __call__(self, images: NDArray[np.uint8]) -> Floats:
        """(N,) scores."""
        return (_features(images, self.whole) - self.centre) @ self.weights


def _response(
    row: torch.Tensor, base: torch.Tensor, probes: Sequence[_Probe], decode: Callable[[torch.Tensor], NDArray[np.uint8]]
) -> list[float]:
    low, high = decode(base - row), decode(base + row)
    return [float((probe(high) - probe(low)).mean()) for probe in probes]


def _features(images: NDArray[np.uint8], whole: bool) -> Floats:
    """(N, P): pixels free of brightness and contrast, and the strength of edges in cells of 4 x 4; of the central ellipse or of all."""
    count, side, _, channels = images.shape
    y, x = (np.mgrid[:side, :side] + 0.5) / side * 2 - 1
    inside = ((x / 0.6) ** 2 + ((y - 0.08) / 0.76) ** 2 < 1) | whole
    scaled = images.astype(np.float64) / 255
    pixels = scaled[:, inside]
    mean = pixels.mean(axis=1, keepdims=True)
    contrast = pixels.mean(axis=2).std(axis=1)[:, None, None] + 1e-6
    grey = scaled.mean(axis=3) / contrast
    cell = max(1, side // 16)
    edges = []
    for axis in (1, 2):
        steps = np.abs(np.diff(grey, axis=axis, prepend=grey.take([0], axis=axis))) * inside
        edges.append(steps.reshape(count, side // cell, cell, side // cell, cell).mean(axis=(2, 4)).reshape(count, -1))
    flat = ((pixels - mean) / contrast).reshape(count, -1) * (0.3 * 64 / side * np.sqrt(3 / channels))
    return np.concatenate([flat, 2 * edges[0], 2 * edges[1]], axis=1)
