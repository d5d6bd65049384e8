"""The published table of attribute directions, `z_manipulate.npy`: 40 rows of latents, one per attribute of CelebA.

A row is 1.6 times the mean latent of the images with the attribute less that of those without (openai/glow, demo). Value 1 of an
attribute moves towards what its name says: with `Young`, to the younger. The demo's own sliders turn two attributes round, and those
have names of their own here: `age` is minus `Young`, `beard` is minus `No_Beard`. As there, `Narrow_Eyes` is a fifth longer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from celebglow.directions import Directions
from splits.errors import InputError

# fmt: off
CELEBA = (  # in the table's order
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache", "Narrow_Eyes",
    "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks", "Sideburns", "Smiling",
    "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick", "Wearing_Necklace",
    "Wearing_Necktie", "Young",
)
# fmt: on
ALIASES = {"smile": "Smiling", "blond": "Blond_Hair", "age": "-Young", "beard": "-No_Beard"}
DEFAULT = ("smile", "blond", "age")  # what CelebGlow varies
STRENGTHS = {"Narrow_Eyes": 1.2}


def read_table(path: str | Path, latent_shapes: Sequence[tuple[int, int, int]]) -> Directions:
    """The directions of a published table (40, D), its rows NHWC level by level, fine to coarse.

    Args:
        path: an .npy file of numbers.
        latent_shapes: (C, H, W) of the flow's levels.

    Raises:
        ValueError: if it is damaged or of another flow.
        OSError: if it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            table = np.load(file, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes the reader raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path} is not a whole .npy file ({reason})") from error
    expected = (len(CELEBA), sum(math.prod(shape) for shape in latent_shapes))
    if getattr(table, "shape", None) == expected[::-1]:
        raise InputError(f"{path} is transposed, {expected[::-1]}: a row per attribute is expected, {expected}")
    if not isinstance(table, np.ndarray) or table.shape != expected or table.dtype.kind != "f":
        what = f"{getattr(table, 'dtype', 'no')} {getattr(table, 'shape', 'array')}"
        raise InputError(f"{path} holds {what} where this flow needs floats {expected}: it is the table of another flow")
    with np.errstate(over="ignore"):  # beyond float32 is not finite either
        table = table.astype(np.float32)
    if not np.isfinite(table).all():
        raise InputError(f"{path} holds numbers that are not finite: it is damaged")
    directions = Directions(CELEBA, expected[1], centered=False, aliases=ALIASES, default=DEFAULT)
    rows = nhwc_to_nchw(table, latent_shapes)
    for name, factor in STRENGTHS.items():
        rows[CELEBA.index(name)] *= np.float32(factor)
    directions.table.copy_(torch.from_numpy(rows))
    return directions


def nhwc_to_nchw(latents: NDArray[np.float32], latent_shapes: Sequence[tuple[int, int, int]]) -> NDArray[np.float32]:
    """Latents (B, D) whose levels are (H, W, C), in row-major order, to ours: (C, H, W)."""
    parts = np.split(latents, np.cumsum([math.prod(shape) for shape in latent_shapes])[:-1], axis=1)
    moved = [
        part.reshape(-1, height, width, channels).transpose(0, 3, 1, 2).reshape(len(latents), -1)
        for part, (channels, height, width) in zip(parts, latent_shapes, strict=True)
    ]
    return np.concatenate(moved, axis=1)
