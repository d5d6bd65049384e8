"""A page about a frozen graph: what it is, whether it converts, how fast it decodes here. For whoever has a file that we have not seen."""

from __future__ import annotations

import math
import platform
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from celebglow.convert.checkpoints import Conversion, convert, sample_latents
from celebglow.convert.graph_compiler import (
    GRAY,
    ancestors,
    find_output,
    latent_number,
    unknown_operations,
)
from celebglow.convert.graphdef import Graph, read_graph
from celebglow.convert.openai_directions import CELEBA, read_table
from celebglow.decoder import Decoder
from celebglow.flow import Flow
from celebglow.glow import Glow
from harness.io.atomic import sha256
from harness.io.pictures import picture_of, png
from harness.machine import cores
from splits.errors import InputError

TIMINGS = 3  # of which the best counts
SAMPLES, STEPS = 8, 5  # pictures of people, and of a person walked along each of a few attributes
WALKED = ("Smiling", "Blond_Hair", "Young", "Eyeglasses")


@dataclass
class Examination:
    """`lines` for people, `data` for programs; `sheet`: PNG bytes of decoded samples, None if nothing could be decoded."""

    lines: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    sheet: bytes | None = None
    converts: bool = False

    def add(self, key: str, value: Any, shown: str | None = None) -> None:
        self.data[key] = value
        self.lines.append(f"{key.replace('_', ' '):<14} {value if shown is None else shown}")


def examine(path: str | Path, table: str | Path | None = None) -> Examination:
    """Look at a frozen graph from all sides; what fails is part of the page.

    Args:
        path: of the .pb file.
        table: the table of 40 attribute directions that belongs to it.

    Raises:
        OSError: if the file cannot be read.
    """
    page, path = Examination(), Path(path)
    page.add("file", path.name)
    page.add("bytes", path.stat().st_size, f"{path.stat().st_size:,}")
    page.add("sha256", sha256(path))
    page.add("here", f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, {cores()} cores")
    try:
        graph = read_graph(path)
    except InputError as error:
        page.add("verdict", f"not a frozen graph: {error}")
        return page
    _add_graph(page, graph)
    conversion = _add_conversion(page, path)
    if conversion is not None:
        page.converts = True
        _add_speed(page, conversion.flow)
        _add_table(page, conversion.flow, table)
    page.add("peak_memory", _peak_memory(), f"{_peak_memory() / 2**30:.1f} GiB, this page included")
    return page


def _add_graph(page: Examination, graph: Graph) -> None:
    page.add("producer", graph.producer, f"{graph.producer or 'unknown'} (GraphDef version; 26 is TensorFlow 1.8)")
    page.add("nodes", len(graph), f"{len(graph):,}")
    try:
        output = find_output(graph)
        order = ancestors(graph, [output])
    except InputError as error:
        page.add("output", None, f"none found: {error}")
        order, output = list(graph.values()), ""
    else:
        page.add("output", output, f"{output}, which {len(order):,} nodes lead to")
    needed = {node.name for node in order}
    inputs = []
    for node in graph.values():
        if node.op in ("Placeholder", "PlaceholderWithDefault"):
            number = latent_number(node)
            use = "not needed by the image"
            if node.name in needed:
                use = (
                    f"fixed, as the demo has it ({GRAY} for pictures, 0 for labels)"
                    if number is None
                    else f"latents of level {number}"
                )
            inputs.append(
                {"name": node.name, "type": node.attributes.get("dtype"), "shape": node.attributes.get("shape"), "use": use}
            )
    page.data["inputs"] = inputs
    for each in inputs:
        page.lines.append(f"{'input':<14} {each['name']} {each['type']} {each['shape'] or 'without a shape'}: {each['use']}")
    counts = dict(sorted(Counter(node.op for node in order).items()))
    page.add("operations", counts, ", ".join(f"{op} {count}" for op, count in counts.items()))
    unknown = {op: node.name for op, node in unknown_operations(order).items()}
    page.add("unknown", unknown, ", ".join(f"{op} (first at {name})" for op, name in unknown.items()) or "no operation")


def _add_conversion(page: Examination, path: Path) -> Conversion | None:
    start = time.perf_counter()
    try:
        conversion = convert(path)
    except InputError as error:
        page.add("verdict", f"cannot be converted: {error}")
        return None
    seconds = time.perf_counter() - start
    flow = conversion.flow
    page.add("verdict", conversion.summary)
    page.add("seconds", {"convert": round(seconds, 2)}, f"{seconds:.1f} to convert")
    config = {key: flow.config[key] for key in ("resolution", "channels", "bits")}
    if isinstance(flow, Glow):
        config |= {key: flow.config[key] for key in ("coupling", "steps", "widths", "border", "learn_top", "contexts")}
    page.add(
        "flow",
        {"kind": type(flow).__name__, **config},
        f"{type(flow).__name__}, " + ", ".join(f"{k} {v}" for k, v in config.items()),
    )
    parameters = sum(parameter.numel() for parameter in flow.parameters())
    page.add("parameters", parameters, f"{parameters:,}")
    shapes = [(h, w, c) for c, h, w in flow.latent_shapes]
    page.add("latents", shapes, f"{flow.num_latents:,}: " + " ".join(map(str, shapes)))
    return conversion


@torch.inference_mode()
def _add_speed(page: Examination, flow: Flow) -> None:
    latents = sample_latents(flow, 1, seed=1)
    name, decode = ("as a Glow", Decoder(flow)) if isinstance(flow, Glow) else ("executed", flow.decode)
    image = decode(latents)
    seconds = math.inf
    for _ in range(TIMINGS):
        start = time.perf_counter()
        decode(latents)
        seconds = min(seconds, time.perf_counter() - start)
    page.data["seconds"][name] = round(seconds, 4)
    page.lines.append(
        f"{'speed':<14} {seconds:.3g} s an image {name}; values {image.min():.2f} to {image.max():.2f} (usual: -0.5 to 0.5)"
    )


def _add_table(page: Examination, flow: Flow, table: str | Path | None) -> None:
    people = sample_latents(flow, SAMPLES)
    if table is None:
        page.sheet = _sheet([_pictures(flow, people)])
        return
    try:
        directions = read_table(table, flow.latent_shapes)
    except InputError as error:
        page.add("table", None, f"does not fit: {error}")
        page.sheet = _sheet([_pictures(flow, people)])
        return
    norms = directions.table.norm(dim=1)
    lengths = {name: round(float(norm), 2) for name, norm in zip(CELEBA, norms, strict=True)}
    page.add(
        "table", lengths, f"40 directions of lengths {norms.min():.1f} to {norms.max():.1f}; people are {people[0].norm():.1f} long"
    )
    walks = []
    for name in WALKED:
        row = directions.select([name]).table
        walks.append(_pictures(flow, people[:1] + torch.linspace(-1, 1, STEPS)[:, None] * row))
    page.sheet = _sheet([_pictures(flow, people), *walks])
    page.lines.append(f"{'rows of sheet':<14} people; one of them walked along {', '.join(WALKED)} from -1 to 1")


@torch.inference_mode()
def _pictures(flow: Flow, latents: Tensor) -> np.ndarray:
    decode = Decoder(flow) if isinstance(flow, Glow) else flow.decode
    images = torch.cat([flow.postprocess(decode(each)) for each in latents.split(1)])
    return images.permute(0, 2, 3, 1).numpy()


def _sheet(rows: Iterable[np.ndarray]) -> bytes:
    strips = [np.concatenate(list(row), axis=1) for row in rows]
    width = max(strip.shape[1] for strip in strips)
    padded = [np.pad(strip, ((0, 0), (0, width - strip.shape[1]), (0, 0)), constant_values=255) for strip in strips]
    sheet = np.concatenate(padded)
    return png(picture_of(sheet))


def _peak_memory() -> int:
    """Bytes; macOS counts in them, Linux in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
