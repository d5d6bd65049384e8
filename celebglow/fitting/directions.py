"""A trained flow and labelled images in, a pipeline whose attributes can be walked out: `ood-data flow directions`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from celebglow.directions import Floats, Label, fit_directions
from celebglow.fitting.decorrelation import SEED as PROBE_SEED
from celebglow.fitting.decorrelation import decorrelate
from celebglow.fitting.images import NO_AUGMENTATION, Batches, read_images
from celebglow.fitting.labels import Columns
from celebglow.fitting.labels import column as column_of
from celebglow.glow import Glow
from celebglow.pipeline import CelebGlowPipeline
from splits.errors import InputError
from splits.names import check_name

RESERVED = ("person", "seed", "temperature", "precision", "output_type")  # arguments of the pipeline
PROBE_IMAGES = 3000  # at most, for the probes
LATENT_BATCH = 60  # images encoded at once


def make_pipeline(
    flow_folder: Path,
    images: Path,
    out: Path,
    *,
    labels: Path | None,
    attributes: dict[str, str],
    controls: dict[str, str],
    strengths: dict[str, str],
    fit_on: dict[str, str],
    held_out: float,
    crop: float,
    shrink: float,
    decorrelated: bool,
    whole: Collection[str],
    half: bool,
    seed: int,
    device: torch.device,
    center_crop: int | None = None,
    progress: bool = False,
) -> dict[str, float]:
    """Fit directions in the flow of ``flow_folder`` to ``images`` and save both to ``out``; returns the separation of each.

    ``attributes`` and ``controls`` map names to columns of the images or of the table ``labels``, ``strengths`` names to factors.
    ``decorrelated`` mixes them by `celebglow.fitting.decorrelation`, those of ``whole`` by the whole picture. ``fit_on`` maps a
    column to the value that marks the images of the fit; without it, ``held_out`` of the people are kept out.

    Raises:
        ValueError: for whatever is missing or unknown.
    """
    if not (flow_folder / "config.json").is_file():
        raise InputError(
            f"there is no trained flow in {flow_folder} (no config.json): give the flow/ folder of `ood-data flow train`"
        )
    flow: Glow = Glow.from_pretrained(flow_folder, low_cpu_mem_usage=False).float().to(device).eval()
    flow.register_to_config(_name_or_path="")  # where it lay is nobody's business
    factors = {name: _number("--strength", name, value) for name, value in strengths.items()}
    for name in attributes:
        check_name("--attribute", name)
    if taken := [name for name in attributes if name in RESERVED or not name.isidentifier()]:
        raise InputError(f"an attribute cannot be called {taken[0]!r}: a name is expected, and not {', '.join(RESERVED)}")
    for name in strengths:
        if name not in attributes:
            raise InputError(f"--strength {name}: there is no such --attribute")
    for name in whole:
        if name not in attributes:
            raise InputError(f"--whole {name}: there is no such --attribute")
    wanted = [*attributes.values(), *controls.values(), *fit_on]
    data = read_images(images, 2 * flow.config.resolution, labels, center_crop, wanted, progress)
    columns = data.columns
    judged = data.held_out(held_out, seed)
    if fit_on:
        judged = np.zeros(len(data.images), bool)
    for column, value in fit_on.items():
        entries = column_of(columns, column)
        judged |= (
            entries.astype(str) != value if entries.dtype.kind not in "biuf" else entries != _number("--fit-on", column, value)
        )
        if judged.all():
            raise InputError(f"--fit-on {column}={value}: no image is left")
    batches = Batches(data.images, None, flow.config.resolution, replace(NO_AUGMENTATION, crop=crop))

    def latents() -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        with tqdm(total=len(batches), unit="img", desc="latents", disable=not progress, dynamic_ncols=True) as bar:
            for indices in torch.arange(len(batches)).split(LATENT_BATCH):
                pixels = batches(indices, generator).to(device)
                noise = torch.rand(pixels.shape, generator=generator).to(device)
                with torch.no_grad():
                    encoded = flow.encode(flow.preprocess(pixels) + noise / flow.bins).latents.cpu()
                yield encoded
                bar.update(len(indices))

    walked = [Label.of(name, _numeric(columns, column)) for name, column in attributes.items()]
    fit = fit_directions(
        latents,
        walked,
        [label for column in controls.values() for label in _controls(column, columns)],
        judged,
        shrink,
        factors,
    )
    pipeline = CelebGlowPipeline(flow, fit.directions)
    if decorrelated and len(walked) > 1:
        some = np.random.default_rng(seed).permutation(np.flatnonzero(~judged))[:PROBE_IMAGES]
        pixels = batches(torch.from_numpy(np.sort(some)), torch.Generator()).permute(0, 2, 3, 1).numpy()
        probed = [replace(label, values=label.values[np.sort(some)]) for label in walked]
        decorrelate(fit.directions, pixels, probed, pipeline.pictures, lambda n: pipeline.person(n, PROBE_SEED), whole)
    pipeline = pipeline.to("cpu")
    if half:
        pipeline.flow.half()
        pipeline.directions.half()
    pipeline.save_pretrained(out)
    return fit.separation


def _controls(column: str, columns: Columns) -> list[Label]:
    """A numeric column as one label, a column of text as one per value but the first."""
    values = column_of(columns, column)
    if values.dtype.kind in "biuf":
        return [Label.of(column, values)]
    return [Label.of(f"{column}={value}", values == value) for value in np.unique(values)[1:]]


def _numeric(columns: Columns, name: str) -> Floats:
    values = column_of(columns, name)
    if values.dtype.kind not in "biuf":
        raise InputError(f"column {name!r} holds text: an attribute needs numbers")
    return values.astype(np.float64)


def _number(option: str, name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number) or (option == "--strength" and number == 0):
        raise InputError(f"{option} {name}={text}: a number is expected")
    return number
