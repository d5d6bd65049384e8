"""What lies beside a store for people, whatever the dataset: its card and a preview sheet that walks along every factor."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from harness.data.store import Store
from harness.formats.catalog import CATALOG, LICENSES, DatasetInfo
from harness.io.pictures import picture_of, png
from splits import DATASETS, Factor, FactorGrid, load_spec, spec_from_dict

WALKS, STEPS = 3, 12  # per factor; pictures in each
TRIES = 50  # walks that are drawn until there are `WALKS` different ones
MARGIN, HEADER, LEVELS, GAP = 16, 26, 16, 2  # pixels: around the sheet, for a factor's name, for its values, between pictures
TAGS = ("out-of-distribution", "disentanglement")
MOST_SHOWN = 256  # side of a picture on the sheet: larger ones are shown smaller
INK, QUIET, PAPER = (32, 33, 36), (95, 96, 103), (255, 255, 255)


def escaped(text: str) -> str:
    """Text as markdown shows it, in a cell of a table too: what means something in markdown or HTML becomes a character reference."""
    return re.sub(r"[&<>|`*\[\]$\\~]", lambda found: f"&#{ord(found[0])};", text)


def code(value: object) -> str:
    """A value as code in a line of markdown; with more backticks around it than it has."""
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in str(value))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def walks(grid: FactorGrid, name: str) -> np.ndarray:
    """Indices (up to WALKS, up to STEPS) of images along one factor, evenly spaced, the others at their middle or seeded values.

    No two walks are the same: a small grid has fewer.
    """
    rng = np.random.default_rng(0)
    starts = np.array([[size // 2 for size in grid.sizes], *(rng.integers(0, grid.sizes) for _ in range(TRIES))])
    starts[:, grid.axis(name)] = 0
    starts = starts[np.sort(np.unique(starts, axis=0, return_index=True)[1])][:WALKS]
    values = _walked(grid[name])
    cells = np.repeat(starts[:, None], len(values), axis=1)
    cells[:, :, grid.axis(name)] = values
    return grid.index(cells)


def _walked(factor: Factor) -> np.ndarray:
    """The values of a walk along it."""
    return np.unique(np.linspace(0, factor.size - 1, min(factor.size, STEPS)).round().astype(np.int64))


def preview(store: Store) -> bytes:
    """PNG bytes of the preview sheet: for each factor, a few walks along it, with its values above them."""
    grid = spec_from_dict(store.spec).grid
    side = min(store.images.shape[1], MOST_SHOWN)
    tile, block = side + GAP, HEADER + LEVELS + WALKS * (side + GAP)
    sheet = Image.new("RGB", (2 * MARGIN + STEPS * tile, MARGIN + len(grid.sizes) * block), PAPER)
    draw, font, small = ImageDraw.Draw(sheet), ImageFont.load_default(16), ImageFont.load_default(11)
    for number, factor in enumerate(grid):
        top = MARGIN // 2 + number * block
        draw.text((MARGIN, top + HEADER - 4), factor.name, INK, font, anchor="ls")
        for step, value in enumerate(_walked(factor)):
            draw.text(
                (MARGIN + step * tile, top + HEADER + LEVELS - 3),
                _fitting(factor.label(int(value)), draw, small, side),
                QUIET,
                small,
                "ls",
            )
        for row, indices in enumerate(walks(grid, factor.name)):
            for step, index in enumerate(indices):
                drawn = picture_of(store.read(int(index), int(index) + 1)[0])
                if drawn.size != (side, side):
                    drawn = drawn.resize((side, side), Image.Resampling.BOX)
                sheet.paste(drawn, (MARGIN + step * tile, top + HEADER + LEVELS + row * tile))
    return png(sheet)


def _fitting(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """As much of a text as has room."""
    while len(text) > 1 and draw.textlength(text, font) > width:
        text = f"{text[:-2]}…"
    return text


def known_as(store: Store) -> DatasetInfo | None:
    """Whose images a store holds; None where that is not known: of another grid, or made here by what has a card of its own."""
    generator = store.source.get("generator")
    if generator is not None:
        info = CATALOG.get(generator)
        return info if info and info.note else None
    return CATALOG.get(store.name) if spec_from_dict(store.spec).grid.sizes == _sizes(store.name) else None


def front_matter(license: str, title: str, images: int, configs: Sequence[str] = (), tags: Sequence[str] = ()) -> str:
    """The YAML with which a card begins, as the Hugging Face Hub reads it.

    Args:
        license: as the Hub calls it; "other" or "unknown" where none of its names fits.
        title: for people.
        images: how many.
        configs: lines that say which files are whose.
        tags: more of them.
    """
    lines = [f"license: {license}", f"pretty_name: {title}", f"size_categories: [{size_category(images)}]"]
    return "\n".join(
        ["---", *lines, "task_categories: [image-classification]", f"tags: [{', '.join((*TAGS, *tags))}]", *configs, "---", ""]
    )


def license_of(store: Store) -> str:
    """The licence that a store's card names, as the Hub calls it."""
    found = re.match(r"---\n(?:.+\n)*?license: (.+)\n", _text(store))
    return found[1] if found else _license(known_as(store))


def _license(info: DatasetInfo | None) -> str:
    if info is None:
        return "unknown"
    return LICENSES[info.license].hub if info.license in LICENSES else "other"


def body(store: Store) -> str:
    """A store's card without its front matter and its preview, for where that is not."""
    text = re.sub(r"\A---\n(?:.*\n)*?---\n", "", _text(store))
    return text.replace(f"\n![preview]({store.paths.preview.name})\n", "")


def _text(store: Store) -> str:
    return store.paths.card.read_text(encoding="utf-8") if store.paths.card.is_file() else ""


def size_category(images: int) -> str:
    """The Hugging Face Hub's name for a dataset of so many images."""
    bounds = [(10**3, "1K"), (10**4, "10K"), (10**5, "100K"), (10**6, "1M"), (10**7, "10M")]
    if images < bounds[0][0]:
        return "n<1K"
    for (_, lower), (size, upper) in itertools.pairwise(bounds):
        if images < size:
            return f"{lower}<n<{upper}"
    return "n>10M"


def card(store: Store, proof: str = "") -> str:
    """The dataset card, markdown: what it is, where it is from, whom to cite, its grid and its splits.

    Args:
        store: the dataset's.
        proof: how its file is known to be the official one; "" where there is no such file.
    """
    spec, side, channels = spec_from_dict(store.spec), store.images.shape[1], store.images.shape[3]
    known = known_as(store)
    title = known.title if known and spec.grid.sizes == _sizes(store.name) else store.name
    terms = f"\n- license: {known.license}\n- cite: {known.citation}\n- homepage: {known.homepage}\n" if known else ""
    factors = "\n".join(f"| {escaped(factor.name)} | {factor.size} | {factor.kind} | {_values(factor)} |" for factor in spec.grid)
    counts = [(kind, spec.split(kind).counts) for kind in spec.kinds]
    splits = "\n".join(f"| {kind} | {count.train:,} | {count.test:,} |" for kind, count in counts)
    made = "\n".join(f"- {escaped(key)}: {code(value)}" for key, value in sorted(store.source.items()))
    made += f"\n- proof that the file is the official one: {escaped(proof)}" if proof else ""
    rendered = f"\n{known.note}\n" if known and known.note and "generator" in store.source else ""
    return f"""{front_matter(_license(known), title, len(store))}# {escaped(title)}

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
