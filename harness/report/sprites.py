"""The pictures of kept cells in one sheet, for a page that has no store: WebP, as good as its share of the page allows."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.dataset import Dataset
from harness.io.pictures import picture_of
from splits import SplitSpec

MOST_BYTES = 1_600_000  # of a sheet: 2.1 MB of a page, in base64
QUALITIES = ((64, 80), (64, 60), (64, 40), (48, 50), (48, 30), (32, 30))  # pixels a side, and WebP's quality: the first that fits
WIDTH = 64  # pictures in a row
NOT_DRAWN = 16_000  # pixels, beyond which WebP has no images


@dataclass(frozen=True)
class Sheet:
    """Pictures row by row, `columns` in a row, each `side` pixels wide and high."""

    webp: bytes
    side: int
    columns: int


def sheet(data: Dataset, cells: NDArray[np.int64]) -> Sheet:
    """The pictures of some cells, in their order."""
    pictures = [picture_of(pixels) for pixels in data[cells][0]]
    for side, quality in QUALITIES:
        side = min(side, pictures[0].width, NOT_DRAWN // max(WIDTH, math.ceil(len(cells) / WIDTH)))
        whole = Image.new(pictures[0].mode, (WIDTH * side, math.ceil(len(cells) / WIDTH) * side))
        for place, picture in enumerate(pictures):
            row, column = divmod(place, WIDTH)
            small = picture if picture.width == side else picture.resize((side, side), Image.Resampling.LANCZOS)
            whole.paste(small, (column * side, row * side))
        buffer = io.BytesIO()
        whole.save(buffer, "WEBP", quality=quality, method=4)
        if buffer.tell() <= MOST_BYTES:
            break
    return Sheet(buffer.getvalue(), side, WIDTH)


def is_dsprites(spec: SplitSpec) -> bool:
    """Whether a grid is that of dSprites, or of its first orientations, which the page draws by itself."""
    names = ("shape", "scale", "orientation", "x-position", "y-position")
    shape, scale, _, x, y = spec.grid.sizes if len(spec.grid.sizes) == 5 else (0,) * 5
    return spec.name.startswith("dsprites") and spec.grid.names == names and (shape, scale, x, y) == (3, 6, 32, 32)
