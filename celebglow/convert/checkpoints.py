"""Published checkpoints of Glow, converted: detected, rewritten where that is exact, compared with the original, saved.

We had not seen the published model's own files when we wrote this. We tested it on graphs that its code wrote for small flows of ours,
and nothing here relies on what the published graph looks like inside: what isn't recognised is executed as it is.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from celebglow.convert.graph_compiler import REPORT, Program, UnsupportedGraph, compile_graph
from celebglow.convert.graph_glow import GraphGlow
from celebglow.convert.graph_rewrite import NotRecognised, recognise
from celebglow.convert.graph_simplify import simplify
from celebglow.convert.openai_directions import read_table
from celebglow.convert.pytorch_checkpoints import read_checkpoint
from celebglow.decoder import Decoder
from celebglow.flow import Flow
from celebglow.glow import Glow
from celebglow.info import check_free, directions_command
from celebglow.pipeline import CelebGlowPipeline, no_progress_bars
from harness.io.replacing import replacing_folder
from harness.machine import lacking
from splits.errors import InputError

logger = logging.getLogger(__name__)

GRAPH = "tensorflow graph"
TOLERANCE = 1e-4  # of the larger of 1 and the image's largest value; a level of 5-bit images is 0.03
FLIPS = 1e-4  # of the pixels
TEMPERATURE = 0.7
BATCH_DIFFERENCE = 1e-4  # between an image decoded alone and in a batch: rounding


@dataclass(frozen=True)
class Conversion:
    """A checkpoint as a flow of ours.

    Attributes:
        flow: a `Glow`, or a `GraphGlow` where the graph's structure wasn't recognised.
        format: "tensorflow graph", "rosinality", "chaiyujin" or "y0ast".
        difference: largest between the flow as it will run and what it was made from, in the flow's range of width 1.
        note: what else is worth knowing: why a graph is executed.
    """

    flow: Flow
    format: str
    difference: float
    note: str = ""

    @property
    def summary(self) -> str:
        """One line for people."""
        if self.note:
            return f"{self.format}, {self.note}"
        check = "from the graph's" if self.format == GRAPH else "after a round trip through its latents"
        return f"{self.format}, rewritten; images differ by {self.difference:.1e} {check} (the range is 1)"

    def next_step(self, out: Path) -> str:
        """What to do about missing directions."""
        if isinstance(self.flow, Glow):
            return directions_command(out / "flow")
        return "an executed graph cannot encode images, so it needs a table: convert again with `z_manipulate`"


def convert(path: str | Path, resolution: int | None = None, bits: int | None = None) -> Conversion:
    """Read a published checkpoint: a frozen TensorFlow graph, or the weights of a PyTorch implementation.

    Args:
        path: the file.
        resolution, bits: of a PyTorch checkpoint, see `read_checkpoint`; a graph shows them.

    Raises:
        ValueError: if it is neither, damaged, or cannot be converted exactly, saying why.
        OSError: if it cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK" or start[:1] == b"\x80":  # a zip archive or a pickle: torch.save
        checkpoint = read_checkpoint(path, resolution, bits)
        return Conversion(checkpoint.flow, checkpoint.name, _round_trip(checkpoint.flow))
    if path.suffix in (".pt", ".pth"):
        raise InputError(f"{path} is no file of torch.save, as its name says: download it again")
    if resolution is not None or bits is not None:
        raise InputError("`resolution` and `bits` are for PyTorch checkpoints: a graph shows them")
    return _convert_graph(path)


@torch.no_grad()
def _convert_graph(path: Path) -> Conversion:
    program = compile_graph(path)
    graph, latents, expected = _executed(program, path)
    executed = 0.0
    try:
        simple = simplify(program)
        gathered = GraphGlow.from_program(simple)
        images = gathered.decode(latents)
        if _agree(graph, images, expected):
            graph, executed = gathered, _largest(images - expected)
        flow = recognise(simple)
        del program, simple
        images = Decoder(flow)(latents)
        difference = _largest(images - expected)
    except NotRecognised as reason:
        return Conversion(graph, GRAPH, executed, f"executed as a graph, its structure being unknown: {reason}")
    except Exception as error:  # a structure so unlike a Glow's that the walk stumbles: the graph itself runs all the same
        logger.debug("the walk stumbled", exc_info=True)
        name = type(error).__name__
        return Conversion(
            graph, GRAPH, executed, f"executed as a graph, its structure being unknown ({name} where it was compared)"
        )
    if not _agree(graph, images, expected):
        return Conversion(graph, GRAPH, executed, f"executed as a graph: rewritten, its images differ by {difference:.1e}")
    return Conversion(flow, GRAPH, difference)


def _agree(flow: Flow, images: Tensor, expected: Tensor) -> bool:
    """Whether images are the expected ones: their values, and as pictures all but `FLIPS` of their pixels, at an edge of rounding."""
    if not _largest(images - expected) <= TOLERANCE * max(1.0, _largest(expected)):
        return False
    flipped = (flow.postprocess(images) != flow.postprocess(expected)).sum()
    return bool(flipped <= max(2, FLIPS * expected.numel()))


def _executed(program: Program, path: Path) -> tuple[GraphGlow, Tensor, Tensor]:
    """The graph as it is written, some latents, and the images that it makes of them.

    Raises:
        ValueError: if it can't be run in batches, or makes no numbers.
    """
    graph = GraphGlow.from_program(program)
    latents = sample_latents(graph, 2)
    try:
        alone = graph.decode(latents[1:])
    except Exception as error:  # whatever torch makes of what no graph of ours has
        if lacking(error):  # the machine's fault, not the graph's
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UnsupportedGraph(f"{path} cannot be run: {reason}. {REPORT[0].upper()}{REPORT[1:]}") from error
    try:
        expected = graph.decode(latents)
    except RuntimeError as error:
        raise InputError(f"{path} decodes one image but not two: it cannot be run in batches") from error
    if not expected.isfinite().all():
        raise InputError(f"{path} decodes latents to what is not finite: it is damaged")
    if _largest(alone - expected[1:]) > BATCH_DIFFERENCE * max(1.0, _largest(alone)):
        raise InputError(f"{path} decodes an image differently beside another: it cannot be run in batches")
    return graph, latents, expected


def _largest(x: Tensor) -> float:
    return float(x.abs().max())


@torch.no_grad()
def _round_trip(flow: Glow) -> float:
    """How far latents are from those of their image, as far as precision allows: the weights make an invertible flow."""
    latents = sample_latents(flow, 1)
    image = Decoder(flow)(latents)
    difference = float((flow.decode(flow.encode(image).latents) - image).abs().max())
    if not difference <= 1e-2 * max(1.0, float(image.abs().max())):
        raise InputError(f"the checkpoint's flow does not invert (its images come back changed by {difference:.1e}): it is damaged")
    return difference


def sample_latents(flow: Flow, count: int, seed: int = 0) -> Tensor:
    """Latents (`count`, D) of people as they are usually drawn."""
    return torch.randn(count, flow.num_latents, generator=torch.Generator().manual_seed(seed)) * TEMPERATURE


def save(conversion: Conversion, out: str | Path, z_manipulate: str | Path | None = None) -> bool:
    """Write a folder for `CelebGlowPipeline.from_pretrained`; without a table of directions only its `flow/`.

    It appears whole or not at all.

    Returns:
        whether it can be walked in: there is a table.

    Raises:
        ValueError: if there is a folder already, or the table is not of this flow.
        OSError: if it cannot be written.
    """
    out = Path(out)
    check_free(out)
    directions = None if z_manipulate is None else read_table(z_manipulate, conversion.flow.latent_shapes)
    with replacing_folder(out) as partial, no_progress_bars():
        if directions is None:
            conversion.flow.save_pretrained(partial / "flow")
        else:
            CelebGlowPipeline(conversion.flow, directions).save_pretrained(partial)
    return directions is not None
