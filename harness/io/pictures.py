"""Picture files: other people's, whose header is looked at before their pixels are decoded, and ours, as bytes to write."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from splits.arrays import BadFile, require_regular

# What picture files are; Pillow would also hand PostScript to Ghostscript.
LARGEST_SIDE = 4096  # pixels of an image of a dataset
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000", "TGA")


def load_picture(path: Path, check: Callable[[Image.Image], None]) -> Image.Image:
    """The picture in a file, decoded.

    Args:
        path: of the file.
        check: is given the picture with its size and mode known and no pixel decoded, and raises BadFile where they won't do.

    Raises:
        BadFile: if it isn't a picture, or is damaged; as `check`.
        FileNotFoundError: if it isn't there.
    """
    require_regular(path)
    try:
        with Image.open(path, formats=FORMATS) as picture:
            check(picture)
            picture.load()
            return picture
    except (BadFile, FileNotFoundError):
        raise
    except Exception as error:  # whatever a damaged file makes Pillow raise
        raise BadFile(f"{path} is not a readable image: {error}") from None


def picture_of(pixels: NDArray[np.uint8]) -> Image.Image:
    """The picture of an image (H, W, C) uint8: grey where C is 1, else RGB."""
    return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file of the picture."""
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    return encoded.getvalue()


def check_size(path: Path, picture: Image.Image, most_pixels: int) -> None:
    """Raise BadFile if the picture has more pixels than that."""
    if picture.width * picture.height > most_pixels:
        raise BadFile(f"{path} is {picture.width} × {picture.height}; pictures of at most {most_pixels:,} pixels are expected")
