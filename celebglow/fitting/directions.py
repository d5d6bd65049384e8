"""A trained flow and labelled images in, a pipeline whose attributes can be walked out: `ood-data flow directions`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from celebglow.directions import Floats, Label, fit_directions
from celebglow.fitting.augmentation import TrainingImages
from celebglow.fitting.config import NO_AUGMENTATION, DirectionsConfig
from celebglow.fitting.decorrelation import SEED as PROBE_SEED
from celebglow.fitting.decorrelation import decorrelate
from celebglow.fitting.images import LabelledImages, read_images
from celebglow.fitting.labels import Columns
from celebglow.fitting.labels import column as column_of
from celebglow.glow import Glow
from celebglow.info import check_free, without_directions
from celebglow.pipeline import CelebGlowPipeline
from harness.io.progress import progress_bar
from harness.io.replacing import replacing_folder
from splits.errors import InputError

PROBE_IMAGES = 3000  # at most, for the probes
LATENT_BATCH = 60  # images encoded at once


def make_pipeline(
    flow_folder: Path,
    images: Path,
    out: Path,
    config: DirectionsConfig,
    labels: Path | None = None,
    device: torch.device | None = None,
    progress: bool = False,
) -> dict[str, float]:
    """Fit directions in a flow to labelled images, and save both as one pipeline.

    Args:
        flow_folder: the trained flow, as `flow train` or `flow convert` leaves it.
        images: a folder of pictures, or an array file, see `celebglow.fitting.images.read_images`.
        out: folder of the pipeline.
        config: which attributes, and how they are fitted.
        labels: a table of the images, see `celebglow.fitting.labels.read_labels`.
        device: where to encode and decode; the CPU if None.
        progress: show how far it is, on stderr.

    Returns:
        how well each attribute's direction separates images that took no part in the fit, see `celebglow.directions.Fit`.

    Raises:
        InputError: for whatever is missing or unknown, or if there is something in `out` already.
    """
    config.check()
    check_free(out)
    flow_folder = without_directions(flow_folder)
    if not (flow_folder / "config.json").is_file():
        raise InputError(
            f"there is no trained flow in {flow_folder} (no config.json): give the folder of `ood-data flow train` or `flow convert`"
        )
    flow: Glow = Glow.from_pretrained(flow_folder, low_cpu_mem_usage=False).float().to(device or torch.device("cpu")).eval()
    flow.register_to_config(_name_or_path="")  # where it lay is nobody's business
    data = read_images(images, 2 * flow.config.resolution, labels, config.center_crop, config.columns, progress)
    judged = _judged(data, config)
    batches = TrainingImages(data.images, None, flow.config.resolution, replace(NO_AUGMENTATION, crop=config.crop))
    walked = [Label.of(name, _numeric(data.columns, column)) for name, column in config.attributes.items()]
    controls = [label for column in config.controls for label in _controls(column, data.columns)]
    encoded = partial(_latents, flow, batches, config.seed, progress)
    fit = fit_directions(encoded, walked, controls, judged, config.shrink, dict(config.strengths))
    pipeline = CelebGlowPipeline(flow, fit.directions)
    if config.decorrelated and len(walked) > 1:
        _decorrelate(pipeline, batches, walked, judged, config)
    pipeline = pipeline.to("cpu")
    if config.half:
        pipeline.flow.half()
        pipeline.directions.half()
    with replacing_folder(out) as folder:
        pipeline.save_pretrained(folder)
    return fit.separation


def _judged(data: LabelledImages, config: DirectionsConfig) -> NDArray[np.bool_]:
    """(N,) True for the images that are kept out of the fit, to judge it by."""
    if not config.fit_on:
        return data.held_out(config.held_out, config.seed)
    judged = np.zeros(len(data.images), bool)
    for column, value in config.fit_on.items():
        entries = column_of(data.columns, column)
        judged |= entries.astype(str) != value if entries.dtype.kind not in "biuf" else entries != _number(column, value)
        if judged.all():
            raise InputError(f"`fit_on` {column}={value}: no image is left")
    return judged


def _latents(flow: Glow, batches: TrainingImages, seed: int, progress: bool) -> Iterator[Tensor]:
    """The latents (B, D) of all images in order, a batch at a time, dequantised by seeded noise."""
    generator = torch.Generator().manual_seed(seed)
    with progress_bar("latents", "img", len(batches), shown=progress) as bar:
        for indices in torch.arange(len(batches)).split(LATENT_BATCH):
            pixels = batches(indices, generator).to(flow.device)
            noise = torch.rand(pixels.shape, generator=generator).to(flow.device)
            with torch.no_grad():
                encoded = flow.encode(flow.preprocess(pixels) + noise / flow.bins).latents.cpu()
            yield encoded
            bar.update(len(indices))


def _decorrelate(
    pipeline: CelebGlowPipeline,
    batches: TrainingImages,
    walked: Sequence[Label],
    judged: NDArray[np.bool_],
    config: DirectionsConfig,
) -> None:
    """Mix the directions by probes that are fitted on some of the fit's images."""
    some = np.random.default_rng(config.seed).permutation(np.flatnonzero(~judged))[:PROBE_IMAGES]
    pixels = batches(torch.from_numpy(np.sort(some)), torch.Generator()).permute(0, 2, 3, 1).numpy()
    probed = [replace(label, values=label.values[np.sort(some)]) for label in walked]
    decorrelate(pipeline.directions, pixels, probed, pipeline.pictures, lambda n: pipeline.person(n, PROBE_SEED), config.whole)


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


def _number(column: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise InputError(f"`fit_on` {column}={text}: a number is expected, as the column holds numbers")
    return number
