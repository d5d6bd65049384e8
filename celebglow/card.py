"""What lies beside a CelebGlow store for people: the dataset card and the preview sheet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from celebglow.info import SavedFlow
from harness.data.store import Store
from harness.formats.card import code, escaped, front_matter
from harness.formats.croissant import CONFORMS, CONFORMS_RAI, of_store
from harness.io.pictures import png
from splits import spec_from_dict

SHEET_PERSONS = 8
BUNDLED_LICENSE = ("cc-by-4.0", "https://spdx.org/licenses/CC-BY-4.0.html")  # of weights/README.md, for pictures too
PAPER_CITED = "Schott et al., Visual Representation Learning Does Not Generalize Strongly Within the Same Domain (ICLR 2022, arXiv 2107.08221)"
LONDON_SET = "Face Research Lab London Set (DeBruine and Jones, 2017, doi 10.6084/m9.figshare.5047666)"
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
    license = BUNDLED_LICENSE[0] if _is_bundled(source) else "other"
    return f"""{front_matter(license, "CelebGlow", len(store), tags=("synthetic-faces",))}# CelebGlow

{len(store):,} pictures of {_people(persons)}, {side} × {side} × {channels}, uint8: each person at every combination of
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

The flow with this hash decides whose faces these resemble: its model card says what it was trained on.{_attribution(source)}

## Use and limits

For research on representation learning. The faces are synthetic; likeness to anybody is unintended. The attributes are directions
in a model's latent space, not measurements: a level of "age" is not a number of years, and walks carry the correlations of the
data that the flow was trained on. The population is not a sample of any real one.
"""


def croissant(store: Store) -> bytes:
    """The store's Croissant document, with what a responsible use has to know of it."""
    return of_store(store, _about(store))


def _about(store: Store) -> dict[str, Any]:
    spec, source = spec_from_dict(store.spec), store.source
    persons, *levels = spec.grid.sizes
    attributes = ", ".join(factor.name for factor in list(spec.grid)[1:])
    bundled = _is_bundled(source)
    trained = (
        f"The flow was trained on 1,020 portraits: 204 of the {LONDON_SET}, CC BY 4.0, and 816 official ones of members of the US Congress."
        if bundled
        else "The flow's model card says what it was trained on."
    )
    about: dict[str, Any] = {
        "name": "CelebGlow",
        "description": f"{len(store):,} pictures of {_people(persons)}, each at every combination of "
        f"{' × '.join(map(str, levels))} levels of {attributes}, made in the latent space of a Glow after Schott et al.",
        "citeAs": PAPER_CITED,
        "keywords": ["out-of-distribution generalization", "disentanglement", "synthetic faces"],
        "conformsTo": [CONFORMS, CONFORMS_RAI],
        "rai:hasSyntheticData": True,
        "rai:dataCollection": "No pictures were collected: a normalizing flow decodes seeded latents, walked along attribute directions.",
        "rai:dataCollectionType": ["Synthetic"],
        "rai:dataCollectionRawData": trained,
        "rai:dataPreprocessingProtocol": ["None: the pictures are the flow's output as 8-bit integers."],
        "rai:dataAnnotationProtocol": ["None by hand: a picture's labels are the seed and the levels that it was decoded with."],
        "rai:dataBiases": [
            "The faces have the distribution of the flow's training pictures, and its gaps. " + trained,
            "Walks carry the correlations of that data: another attribute than the one that is walked along can change with it.",
        ],
        "rai:dataLimitations": [
            "The attributes are directions in a model's latent space, not measurements: a level of age is not a number of years.",
            "The population is not a sample of any real one, and must not stand for people in studies of fairness or demography.",
            "Not for face recognition, for identifying or judging people, or for generating pictures that pass for real ones.",
        ],
        "rai:dataUseCases": [
            "Research on representation learning: does what a model learns of factors of variation hold out of distribution?"
        ],
        "rai:dataSocialImpact": "Faces under control of attributes can be misused for deception; at this size and quality the risk is small.",
        "rai:personalSensitiveInformation": [
            "None of real people is in the pictures, and likeness to anybody is unintended. They show what looks like age and gender."
        ],
        "rai:dataReleaseMaintenancePlan": "The same parameters, torch version and device kind give the same bytes; the manifest proves them.",
        "prov:wasDerivedFrom": f"The flow with sha256 {source.get('flow_sha256')}. {trained}",
        "prov:wasGeneratedBy": "ood-data generate celebglow; the record set source has its parameters.",
    }
    return about | ({"license": BUNDLED_LICENSE[1]} if bundled else {})


def _people(persons: int) -> str:
    return "1 person who does not exist" if persons == 1 else f"{persons:,} people who do not exist"


def _is_bundled(source: Mapping[str, Any]) -> bool:
    """Whether the pictures are of the flow that comes with the package."""
    return source.get("flow_sha256") == SavedFlow.open().info()["sha256"]


def _attribution(source: Mapping[str, Any]) -> str:
    return f" It is the bundled one: attribute the {LONDON_SET}." if _is_bundled(source) else ""
