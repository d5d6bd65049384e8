"""What lies beside a store for people, whatever the dataset: its card and a preview sheet that walks along every factor."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from harness.data.store import Store
from harness.formats.catalog import CATALOG
from harness.io.pictures import png
from splits import DATASETS, Factor, FactorGrid, load_spec, spec_from_dict

WALKS, STEPS = 3, 12  # per factor; pictures in each
MARGIN, HEADER = 16, 26
MOST_SHOWN = 256  # side of a picture on the sheet: larger ones are shown smaller
INK, PAPER = (32, 33, 36), (255, 255, 255)


def escaped(text: str) -> str:
    """Text as markdown shows it, in a cell of a table too: what means something in markdown or HTML becomes a character reference."""
    return re.sub(r"[&<>|`*\[\]$\\~]", lambda found: f"&#{ord(found[0])};", text)


def code(value: object) -> str:
    """A value as code in a line of markdown; with more backticks around it than it has."""
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in str(value))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def walks(grid: FactorGrid, name: str) -> np.ndarray:
    """Indices (WALKS, up to STEPS) of images along one factor, evenly spaced, the others at their middle or seeded values."""
    rng = np.random.default_rng(0)
    starts = np.array([[size // 2 for size in grid.sizes], *(rng.integers(0, grid.sizes) for _ in range(WALKS - 1))])
    size = grid[name].size
    values = np.unique(np.linspace(0, size - 1, min(size, STEPS)).round().astype(np.int64))
    cells = np.repeat(starts[:, None], len(values), axis=1)
    cells[:, :, grid.axis(name)] = values
    return grid.index(cells)


def preview(store: Store) -> bytes:
    """PNG bytes of the preview sheet: for each factor, a few walks along it."""
    grid = spec_from_dict(store.spec).grid
    _, side, _, channels = store.images.shape
    side = min(side, MOST_SHOWN)
    block = HEADER + WALKS * side
    sheet = Image.new("RGB", (2 * MARGIN + STEPS * side, MARGIN + len(grid.sizes) * block), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for number, name in enumerate(grid.names):
        top = MARGIN // 2 + number * block
        draw.text((MARGIN, top + HEADER - 4), name, INK, font, anchor="ls")
        for row, indices in enumerate(walks(grid, name)):
            pictures = [store.read(int(index), int(index) + 1)[0] for index in indices]
            strip = np.concatenate(pictures, axis=1)
            drawn = Image.fromarray(strip.squeeze(2) if channels == 1 else strip)
            if drawn.height > side:
                drawn = drawn.resize((len(pictures) * side, side), Image.Resampling.BOX)
            sheet.paste(drawn, (MARGIN, top + HEADER + row * side))
    return png(sheet)


def card(store: Store) -> str:
    """The dataset card, markdown: what it is, where it is from, whom to cite, its grid and its splits."""
    spec, side, channels = spec_from_dict(store.spec), store.images.shape[1], store.images.shape[3]
    generated = CATALOG.get(store.source.get("generator", ""))
    official = CATALOG.get(store.name) if spec.grid.sizes == _sizes(store.name) else None  # another grid is of other images
    known = official or generated
    title = official.title if official else store.name
    terms = f"\n- license: {known.license}\n- cite: {known.citation}\n- homepage: {known.homepage}\n" if known else ""
    factors = "\n".join(f"| {escaped(factor.name)} | {factor.size} | {factor.kind} | {_values(factor)} |" for factor in spec.grid)
    counts = [(kind, spec.split(kind).counts) for kind in spec.kinds]
    splits = "\n".join(f"| {kind} | {count.train:,} | {count.test:,} |" for kind, count in counts)
    made = "\n".join(f"- {escaped(key)}: {code(value)}" for key, value in sorted(store.source.items()))
    rendered = f"\n{generated.note}\n" if generated and generated.note else ""
    return f"""# {escaped(title)}

{len(store):,} images, {side} × {side} × {channels}, uint8: one for every combination of the factors of variation.
{rendered}{terms}
![preview]({store.paths.preview.name})

Image `i` is the cell `i` of this grid in row-major order (the last factor varies fastest):

| factor | size | kind | values |
|---|---|---|---|
{factors}

## Splits

| kind | train | test |
|---|---|---|
{splits}

## Where the bytes are from

{made}
"""


def _sizes(dataset: str) -> tuple[int, ...]:
    """The sizes of the official grid; none where there is none."""
    return load_spec(dataset).grid.sizes if dataset in DATASETS else ()


def _values(factor: Factor) -> str:
    return "" if factor.values is None else escaped(", ".join(map(str, factor.values)))
