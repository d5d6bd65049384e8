"""Images of a dataset to look at: walks along one factor or two, as a picture or an animation."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.dataset import Dataset
from harness.io.atomic import write_atomically
from harness.io.pictures import picture_of, png
from splits.errors import InputError

MOST_IMAGES = 4096  # of a picture, or of an animation
MILLISECONDS = 80  # that an image of an animation is shown


def walk(data: Dataset, factors: Sequence[str], at: Mapping[str, object]) -> NDArray[np.int64]:
    """The numbers of the images along some factors, an axis each, (m,) or (m, n); the others have their middle value.

    Args:
        data: the dataset.
        factors: to walk along, in the order of the axes.
        at: values of others, by factor: a name or an index.

    Raises:
        ValueError: for a factor or value that is not there, or a factor named twice.
    """
    grid = data.spec.grid
    for name in (*factors, *at):
        grid[name]  # or an error, with close matches
    if twice := [name for number, name in enumerate(factors) if name in at or name in factors[:number]]:
        raise InputError(f"{twice[0]} is named twice: a factor is walked along, or has one value")
    cell = np.array([size // 2 for size in grid.sizes])
    for name, value in at.items():
        (cell[grid.axis(name)],) = grid[name].indices(value)
    sizes = [grid[name].size for name in factors]
    if np.prod(sizes, dtype=float) > MOST_IMAGES:
        raise InputError(f"{' × '.join(factors)} are more than {MOST_IMAGES:,} images: walk along fewer factors")
    cells = np.broadcast_to(cell, (*sizes, len(cell))).copy()
    for axis, name in enumerate(factors):
        cells[..., grid.axis(name)] = np.arange(sizes[axis]).reshape([-1 if other == axis else 1 for other in range(len(sizes))])
    return grid.index(cells)


def picture(data: Dataset, factors: Sequence[str] = (), at: Mapping[str, object] | None = None) -> Image.Image:
    """One factor's walk as a row, two factors' as rows and columns; without any, the image that has the values `at`.

    Raises:
        ValueError: as `walk`; for more than two factors.
    """
    if len(factors) > 2:
        raise InputError(f"a picture has rows and columns: at most two factors are expected, not {len(factors)}")
    numbers = np.atleast_2d(walk(data, factors, at or {}))
    images = data[numbers.ravel()][0].reshape(*numbers.shape, *data.images.shape[1:])
    return picture_of(np.concatenate(np.concatenate(images, axis=1), axis=1))


def animation(data: Dataset, factor: str, at: Mapping[str, object] | None = None) -> bytes:
    """The bytes of a GIF that walks along a factor and back, for ever; raises ValueError as `walk`."""
    forth = data[walk(data, [factor], at or {})][0]
    first, *others = map(picture_of, [*forth, *forth[-2:0:-1]])
    encoded = io.BytesIO()
    first.save(encoded, "GIF", save_all=True, append_images=others, duration=MILLISECONDS, loop=0)
    return encoded.getvalue()


def save(data: Dataset, path: Path, factors: Sequence[str] = (), at: Mapping[str, object] | None = None) -> None:
    """Write the walk as a .gif, an animation of one factor; or as a .png, see `picture`.

    Raises:
        ValueError: as `walk`; for another suffix.
    """
    match path.suffix:
        case ".gif" if len(factors) == 1:
            encoded = animation(data, factors[0], at)
        case ".png":
            encoded = png(picture(data, factors, at))
        case _:
            raise InputError(f"{path}: a .png is expected, or, for one factor, a .gif")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, encoded)
