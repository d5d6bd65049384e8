"""The dSprites images (Matthey et al., 2017), rendered by recovered rules: 737,280 binary pictures without a download.

The rules were recovered from real images: they give all 4,096 pixels of 401 of 401 of them, and a sum over all images two white
pixels from the published mean. Call the result "re-rendered", not "the original file"; `ood-data data convert` takes that. Some pixels of
a few images differ from it: docs/explanation/reconstruction.md has what is known of them.

Units are pixels, x to the right, y down; the centre of pixel (row, column) is (column + ½, row + ½). A picture is a polygon on a
lattice of 1/256 pixel, filled by the even-odd rule without antialiasing, so everything after the vertices is whole numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import splits
from harness.data.store import Description, rows_of_shard
from harness.data.writer import Writer
from harness.formats.card import card, preview
from harness.formats.catalog import CATALOG
from harness.formats.croissant import of_store
from harness.io.progress import progress_bar
from splits.errors import InputError, NumericalError

logger = logging.getLogger(__name__)

NAME = "dsprites"
SIDE = 64
SHAPES, SCALES, ORIENTATIONS, POSITIONS = 3, 6, 40, 32
IMAGES = SHAPES * SCALES * ORIENTATIONS * POSITIONS**2
HOLD_OUT_RATIO = 0.2  # the paper's for dSprites
WHITE_PIXELS = 128_328_864  # of all images
RADIUS = 9.6  # of a shape at scale 1
LATTICE = 256  # vertices lie on multiples of 1/256 pixel
RENDERER = 1  # raise it if the pixels change


@cache
def outline(shape: int) -> NDArray[np.float64]:
    """(V, 2): vertices (x, y) of a shape at scale 1 around the origin; 0 square, 1 ellipse, 2 heart."""
    if shape == 0:
        return RADIUS * np.array([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
    if shape == 1:
        t = 2 * np.pi * np.arange(100) / 100
        return np.stack([1.33 * RADIUS * np.cos(t), RADIUS / 1.33 * np.sin(t)], axis=1)
    u = 2 * np.pi * np.arange(150) / 150
    height = 13 * np.cos(u) - 5 * np.cos(2 * u) - 2 * np.cos(3 * u) - np.cos(4 * u)
    return np.stack([RADIUS * np.sin(u) ** 3, -2 * RADIUS * (height / 29 + 0.075)], axis=1)


def render_bits(shape: int, scale: int, orientation: int) -> NDArray[np.uint8]:
    """Every position of one pose, 8 pixels to a byte.

    Args:
        shape: 0 to 2.
        scale: 0 to 5, from half size to full.
        orientation: 0 to 39, counter-clockwise; 39 is a whole turn, hence the same as 0.

    Returns:
        (32, 32, 64, 8) uint8: x-position, y-position, row, columns as of `numpy.packbits`.
    """
    size, angle = 0.5 + 0.1 * scale, 2 * np.pi * orientation / (ORIENTATIONS - 1)
    x, y = outline(shape).T
    turned_x, turned_y = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    centres = SIDE / 4 + SIDE / 2 * np.arange(POSITIONS)[:, None] / (POSITIONS - 1)
    xs, ys = (np.floor(LATTICE * (centres + size * turned) + 0.5).astype(np.int64) for turned in (turned_x, turned_y))

    # Where edges cross the lines through pixel centres: it depends on the y-position only. A line through the lower end of an
    # edge crosses it, through the upper end not: the bottom of a shape is in, its top out.
    lines = LATTICE * np.arange(SIDE) + LATTICE // 2
    y0, y1 = ys, np.roll(ys, -1, axis=1)
    low, high = np.minimum(y0, y1)[:, None], np.maximum(y0, y1)[:, None]
    position, row, edge = np.nonzero((low < lines[:, None]) & (lines[:, None] <= high))

    # The first column whose centre is not left of the crossing, for every x-position. float64 divides these numbers exactly
    # enough: they are below 2^53 and a quotient that is not whole is at least 1 / (256 · 16384) from being so.
    y0, dy = y0[position, edge], (y1 - y0)[position, edge]
    x0, dx = xs[:, edge], (np.roll(xs, -1, axis=1) - xs)[:, edge]
    numerator = (x0 - LATTICE // 2) * dy + (lines[row] - y0) * dx
    column = np.clip(np.ceil(numerator / (LATTICE * dy).astype(np.float64)), 0, SIDE).astype(np.int64)

    # Even-odd: each crossing inverts everything to its right.
    inverted = _FROM_COLUMN[column]
    bits = np.zeros((POSITIONS, POSITIONS * SIDE), dtype=np.uint64)
    line, first = np.unique(position * SIDE + row, return_index=True)
    bits[:, line] = np.bitwise_xor.reduceat(inverted, first, axis=1)
    return bits.astype(">u8").view(np.uint8).reshape(POSITIONS, POSITIONS, SIDE, SIDE // 8)


_FROM_COLUMN = np.array([2 ** (SIDE - column) - 1 for column in range(SIDE + 1)], dtype=np.uint64)  # bits from that column on


def render(start: int, stop: int, orientations: int = ORIENTATIONS) -> NDArray[np.uint8]:
    """Images [start, stop) in row-major order of the grid that has the first `orientations` only.

    Returns:
        (stop - start, 64, 64, 1) uint8, 0 or 255.

    Raises:
        ValueError: unless 0 <= start < stop <= the number of images, 737,280 of the whole grid.
    """
    images = IMAGES // ORIENTATIONS * orientations
    if not 0 <= start < stop <= images:
        raise InputError(f"dsprites has images 0 to {images - 1}; {start} to {stop - 1} are not among them")
    per_pose = POSITIONS**2
    poses = range(start // per_pose, -(-stop // per_pose))
    packed = np.stack([render_bits(*_pose(pose, orientations)).reshape(per_pose, -1) for pose in poses]).reshape(
        -1, SIDE * SIDE // 8
    )
    pixels = np.unpackbits(packed[start - poses[0] * per_pose : stop - poses[0] * per_pose], axis=1)
    return (pixels * np.uint8(255)).reshape(-1, SIDE, SIDE, 1)


def _pose(number: int, orientations: int = ORIENTATIONS) -> tuple[int, int, int]:
    shape, rest = divmod(number, SCALES * orientations)
    return shape, *divmod(rest, orientations)


def all_bits() -> Iterator[NDArray[np.uint8]]:
    """`render_bits` of every pose, in the order of the grid."""
    for number in range(SHAPES * SCALES * ORIENTATIONS):
        yield render_bits(*_pose(number))


def describe(orientations: int = ORIENTATIONS) -> Description:
    """The store of the grid that has the first `orientations` only; with fewer than all, its splits follow from the paper's rules."""
    spec = splits.load_spec(NAME)
    if orientations < ORIENTATIONS:
        factors = (replace(factor, size=orientations) if factor.name == "orientation" else factor for factor in spec.grid)
        spec = splits.derive_spec(f"{NAME}{orientations}", factors, HOLD_OUT_RATIO, never_held_out=("shape",))
    shape = (len(spec.grid), SIDE, SIDE, 1)
    return Description(
        name=spec.name,
        shape=shape,
        rows=rows_of_shard(shape),
        compress=True,
        spec=spec.to_dict(),
        source={"generator": "dsprites", "renderer": RENDERER},
        part=CATALOG[NAME].part,
    )


def generate(root: str | Path, overwrite: bool = False, progress: bool = True, orientations: int = ORIENTATIONS) -> str:
    """Make (or go on making) `<root>/dsprites.zarr`, or `dsprites10.zarr` with the first 10 orientations only.

    Args:
        root: folder of the stores.
        overwrite: remove a store that is there first.
        progress: show how far it is, on stderr.
        orientations: how many of the 40.

    Returns:
        the store's name.

    Raises:
        ArithmeticError: if the number of white pixels is wrong: this machine's sines differ; the store is not finished then.
        ValueError: if the store there holds another dsprites.
        OSError: if it cannot be written.
    """
    description = describe(orientations)
    with Writer(root, description, overwrite=overwrite) as writer:
        if writer.complete:
            logger.info("%s is there and complete", writer.paths.group)
            writer.finish(card, preview, of_store)
            return description.name
        missing, white = set(writer.missing), 0
        with progress_bar(description.name, "img", description.shape[0], shown=progress) as bar:
            for shard in writer.range:  # those that are there count too: the sum is over all
                rows = writer.rows(shard)
                images = render(rows.start, rows.stop, orientations)
                white += int(np.count_nonzero(images))
                if shard in missing:
                    writer.publish(shard, images)
                bar.update(len(images))
        if orientations < ORIENTATIONS:  # only the sum over the whole grid is known
            white = sum(int(np.bitwise_count(bits).sum()) for bits in all_bits())
        if white != WHITE_PIXELS:
            raise NumericalError(
                f"dsprites came out with {white:,} white pixels instead of {WHITE_PIXELS:,}: the store is unfinished"
            )
        logger.info("dsprites: %s white pixels, as they should be", f"{white:,}")
        writer.finish(card, preview, of_store)
    return description.name
