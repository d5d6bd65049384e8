"""What lies beside a CelebGlow store for people: the dataset card and the preview sheet."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from harness.data.store import Store
from harness.formats.card import code, escaped
from harness.io.pictures import png
from splits import spec_from_dict

SHEET_PERSONS = 8
GAP, MARGIN, HEADER = 12, 16, 44
INK, PAPER, FAINT = (32, 33, 36), (255, 255, 255), (128, 132, 140)


def walks(store: Store, persons: int) -> NDArray[np.uint8]:
    """(persons, A, L, R, R, C) uint8: each person along each attribute, the others at their middle level."""
    grid = spec_from_dict(store.spec).grid
    sizes = [factor.size for factor in grid]
    attributes, levels = len(sizes) - 1, sizes[1]
    per_person = levels**attributes
    rows = []
    for person in range(persons):
        images = store.read(person * per_person, (person + 1) * per_person)
        images = images.reshape(*sizes[1:], *images.shape[1:])
        middle = (levels - 1) // 2
        for attribute in range(attributes):
            where: list[slice | int] = [middle] * attributes
            where[attribute] = slice(None)
            rows.append(images[tuple(where)])
    return np.asarray(rows, dtype=np.uint8).reshape(persons, attributes, levels, *images.shape[attributes:])


def preview(store: Store) -> bytes:
    """PNG bytes of the preview sheet: a row per person, a block of columns per attribute walk."""
    spec = spec_from_dict(store.spec)
    factors = list(spec.grid)
    persons = min(SHEET_PERSONS, factors[0].size)
    pictures = walks(store, persons)
    _, attributes, levels, side, _, channels = pictures.shape
    block = levels * side
    width = 2 * MARGIN + attributes * block + (attributes - 1) * GAP
    sheet = Image.new("RGB", (width, HEADER + persons * side + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(18), ImageFont.load_default(12)
    for a in range(attributes):
        left = MARGIN + a * (block + GAP)
        factor = factors[a + 1]
        draw.text((left + block / 2, 4), factor.name, INK, large, anchor="ma")
        for level, value in enumerate(factor.values or ()):
            draw.text((left + (level + 0.5) * side, HEADER - 4), f"{value:+g}", FAINT, small, anchor="md")
        for person in range(persons):
            strip = pictures[person, a].swapaxes(0, 1).reshape(side, block, channels)
            sheet.paste(Image.fromarray(strip.squeeze()), (left, HEADER + person * side))
    return png(sheet)


def card(store: Store) -> str:
    """The dataset card, markdown: what it is, how it was made, how it is split, what it is not."""
    spec, source = spec_from_dict(store.spec), store.source
    persons, *levels = spec.grid.sizes
    side, channels = store.images.shape[1], store.images.shape[3]
    factors = "\n".join(
        f"| {escaped(f.name)} | {f.size} | {f.kind} | "
        f"{'seeds 0 to ' + str(f.size - 1) if f.values is None else ', '.join(f'{v:g}' for v in f.values)} |"
        for f in spec.grid
    )
    rows = [(kind, spec.split(kind).counts) for kind in spec.kinds]
    splits = "\n".join(f"| {kind} | {counts.train:,} | {counts.test:,} |" for kind, counts in rows)
    impossible = "".join(f"\nNo {kind} split: {escaped(why)}." for kind, why in spec.impossible.items())
    made = "\n".join(f"- {escaped(key)}: {code(value)}" for key, value in sorted(source.items()))
    return f"""---
pretty_name: CelebGlow
size_categories: [{_size_category(len(store))}]
tags: [out-of-distribution, disentanglement, synthetic-faces]
---
# CelebGlow

{len(store):,} pictures of {persons:,} people who do not exist, {side} × {side} × {channels}, uint8: each person at every combination of
{" × ".join(map(str, levels))} attribute levels. Made by walking attribute directions in the latent space of a Glow, after Schott et al.,
*Visual Representation Learning Does Not Generalize Strongly Within the Same Domain* (ICLR 2022, arXiv 2107.08221).

![preview]({store.paths.preview.name})

Image `i` is the cell `i` of this grid in row-major order (the last factor varies fastest):

| factor | size | kind | values |
|---|---|---|---|
{factors}

## Splits

By the paper's rules (hold-out ratio 0.3):

| kind | train | test |
|---|---|---|
{splits}
{impossible}
## How it was made

The same parameters, torch version and device kind give the same bytes.

{made}

The flow with this hash decides whose faces these resemble: its model card says what it was trained on.

## Use and limits

For research on representation learning. The faces are synthetic; likeness to anybody is unintended. The attributes are directions
in a model's latent space, not measurements: a level of "age" is not a number of years, and walks carry the correlations of the
data that the flow was trained on. The population is not a sample of any real one.
"""


def _size_category(images: int) -> str:
    """The Hugging Face Hub's name for a dataset of so many images."""
    bounds = [(10**3, "1K"), (10**4, "10K"), (10**5, "100K"), (10**6, "1M"), (10**7, "10M")]
    if images < bounds[0][0]:
        return "n<1K"
    for (_, lower), (size, upper) in itertools.pairwise(bounds):
        if images < size:
            return f"{lower}<n<{upper}"
    return "n>10M"
