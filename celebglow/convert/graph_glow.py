"""GraphGlow: a published frozen graph as a flow, executed instruction by instruction.

It needs nothing to be known about the graph but that it decodes latents. Where its structure is recognised, `celebglow.convert.graph_rewrite`
rewrites it into a `Glow`, which is faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin  # noqa: F401  # loading a pipeline looks the base class up here
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from celebglow.convert.graph_compiler import Instruction, Program, compile_graph, run
from celebglow.convert.graph_simplify import simplify
from celebglow.flow import Flow


class GraphGlow(Flow):
    """A Glow whose decoder is a program; it cannot encode.

    Args:
        resolution: of the images, (B, channels, resolution, resolution).
        channels: see above.
        bits: the data's bits per channel.
        latent_shapes: (C, H, W) of each level's latents, fine to coarse; in the program they are (H, W, C).
        instructions: [operation, inputs, attributes] each, see `celebglow.convert.graph_compiler`.
        constant_shapes: of the constants, which are the module's parameters.
        output: the value that is the image, (B, H, W, C) in [-1/2, 1/2).
        offset: added to it, and `scale` multiplied before, for graphs whose image is in another range.
        quantize: as in `Glow`.
    """

    @register_to_config
    def __init__(
        self,
        resolution: int,
        channels: int,
        bits: int,
        latent_shapes: Sequence[Sequence[int]],
        instructions: Sequence[Sequence[Any]],
        constant_shapes: Sequence[Sequence[int]],
        output: str,
        scale: float = 1.0,
        offset: float = 0.0,
        quantize: bool = True,
    ) -> None:
        super().__init__()
        self.latent_shapes = [(int(c), int(h), int(w)) for c, h, w in latent_shapes]
        self.instructions = [Instruction(op, tuple(inputs), dict(attributes)) for op, inputs, attributes in instructions]
        self.constants = nn.ParameterList(nn.Parameter(torch.zeros(tuple(shape)), requires_grad=False) for shape in constant_shapes)
        names = [f"%{index}" for index in range(len(latent_shapes) + len(instructions))]
        self._names = names[len(latent_shapes) :]
        last_use = {value: index for index, each in enumerate(self.instructions) for value in each.inputs if isinstance(value, str)}
        self._released: list[list[str]] = [[] for _ in self.instructions]
        for value, index in last_use.items():
            if value[0] == "%" and value != output:
                self._released[index].append(value)

    @classmethod
    def from_program(cls, program: Program) -> GraphGlow:
        """The decoder of a program, without the cast to uint8 where that is the usual one."""
        output, bits = pixels_before_rounding(program)
        image = replace(program, output=output or program.output).pruned()
        _, height, _, channels = image.output_shape
        graph = cls(
            resolution=height,
            channels=channels,
            bits=bits,
            latent_shapes=[(c, h, w) for h, w, c in image.latent_shapes],
            instructions=[(each.op, list(each.inputs), each.attributes) for each in image.instructions],
            constant_shapes=[tuple(constant.shape) for constant in image.constants],
            output=image.output,
            # an image of whole numbers: its 256 levels are those of 8 bits
            **({"scale": 1 / 256, "offset": -0.5} if output is None else {}),
        )
        for parameter, constant in zip(graph.constants, image.constants, strict=True):
            parameter.data.copy_(constant)
        return graph.eval()

    @classmethod
    def from_graph(cls, path: str | Path) -> GraphGlow:
        """The decoder of a frozen TensorFlow graph (.pb).

        Raises:
            ValueError: if it is damaged or cannot be run, saying why.
        """
        return cls.from_program(simplify(compile_graph(path)))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, D) to images in the flow's range (B, C, H, W)."""
        self._lay_out()
        values = {f"%{index}": part.permute(0, 2, 3, 1) for index, part in enumerate(self.split_latents(latents))}
        values |= {f"#{index}": constant for index, constant in enumerate(self.constants)}
        for name, instruction, released in zip(self._names, self.instructions, self._released, strict=True):
            values[name] = run(instruction, values)
            for value in released:
                del values[value]
        image = values[self.config.output].permute(0, 3, 1, 2)
        if self.config.scale != 1.0:
            image = image.to(latents.dtype) * self.config.scale + self.config.offset
        return image

    forward = decode

    def _lay_out(self) -> None:
        """Kernels as convolutions want them: once, as loading lays them out anew, and rounding depends on it."""
        for parameter in self.constants:
            if parameter.ndim == 4 and not parameter.is_contiguous(memory_format=torch.channels_last):
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def pixels_before_rounding(program: Program) -> tuple[str | None, int]:
    """The value whose rounding down to 2**bits levels is the program's image, and the bits; (None, 8) if that is not how it ends.

    The original code ends in cast(clip(floor((x + 1/2) * bins) * (256 / bins), 0, 255)); optimizers leave out what does nothing, and
    versions of TensorFlow write the clipping in one operation or two.
    """
    cast = program.instruction(program.output)
    if cast is None or cast.op != "Cast":
        return None, 8
    value, low, high = _clipped(program, cast.inputs[0])
    value, per_level, none = _scaled(program, value)
    floor = program.instruction(value)
    if floor is None or floor.op != "Floor":
        return None, 8
    value, bins, shift = _scaled(program, floor.inputs[0])
    bits = round(math.log2(bins)) if bins > 0 else 0
    usual = bins == 2**bits and shift == bins / 2 and per_level * bins == 256 and none == 0 and (low, high) == (0, 255)
    return (str(value), bits) if usual and 1 <= bits <= 8 and isinstance(value, str) else (None, 8)


def _clipped(program: Program, value: Any) -> tuple[Any, float, float]:
    """What a value is before it is clipped, and the bounds."""
    low, high = -math.inf, math.inf
    while (each := program.instruction(value)) is not None:
        numbers = [x for x in each.inputs if isinstance(x, int | float)]
        if each.op == "ClipByValue" and len(numbers) == 2:
            low, high = max(low, numbers[0]), min(high, numbers[1])
        elif each.op in ("Maximum", "Minimum") and len(numbers) == 1:
            low, high = (max(low, numbers[0]), high) if each.op == "Maximum" else (low, min(high, numbers[0]))
        else:
            break
        value = next(x for x in each.inputs if isinstance(x, str))
    return value, low, high


def _scaled(program: Program, value: Any) -> tuple[Any, float, float]:
    """The x, a and b of a value that is a * x + b by single numbers."""
    factor, shift = 1.0, 0.0
    while (each := program.instruction(value)) is not None:
        numbers = [x for x in each.inputs if isinstance(x, int | float)]
        if len(each.inputs) != 2 or len(numbers) != 1:
            break
        first = isinstance(each.inputs[0], str)  # the value comes first
        number = float(numbers[0])
        if each.op in ("Add", "AddV2"):
            shift += factor * number
        elif each.op == "Sub" and first:
            shift -= factor * number
        elif each.op == "Mul":
            factor *= number
        elif each.op in ("Div", "RealDiv") and first and number:
            factor /= number
        else:
            break
        value = each.inputs[0 if first else 1]
    return value, factor, shift
