"""GraphGlow: a published frozen graph as a flow, executed instruction by instruction.

It needs nothing to be known about the graph but that it decodes latents. Where its structure is recognised, `celebglow.convert.graph_rewrite`
rewrites it into a `Glow`, which is faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin  # noqa: F401  # loading a pipeline looks the base class up here
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from celebglow.convert.graph_compiler import Instruction, Program, compile_graph, needed, run
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
        offset: added to it, and ``scale`` multiplied before, for graphs whose image is in another range.
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
        image = program if output is None else Program(**vars(program) | {"output": output})
        keep = list(needed(image))
        first = len(image.latent_shapes)
        used = dict.fromkeys(
            value for i in keep for value in image.instructions[i].inputs if isinstance(value, str) and value[0] == "#"
        )
        renamed = {f"%{i}": f"%{i}" for i in range(first)}
        renamed |= {f"%{first + old}": f"%{first + new}" for new, old in enumerate(keep)}
        renamed |= {old: f"#{new}" for new, old in enumerate(used)}
        constants = [image.constants[int(value[1:])] for value in used]
        _, height, _, channels = image.output_shape
        graph = cls(
            resolution=height,
            channels=channels,
            bits=bits,
            latent_shapes=[(c, h, w) for h, w, c in image.latent_shapes],
            instructions=[
                (each.op, [renamed[v] if isinstance(v, str) else v for v in each.inputs], each.attributes)
                for each in (image.instructions[i] for i in keep)
            ],
            constant_shapes=[tuple(constant.shape) for constant in constants],
            output=renamed[image.output],
            # an image of whole numbers: its 256 levels are those of 8 bits
            **({"scale": 1 / 256, "offset": -0.5} if output is None else {}),
        )
        for parameter, constant in zip(graph.constants, constants, strict=True):
            parameter.data.copy_(constant)
        return graph.eval()

    @classmethod
    def from_graph(cls, path: str | Path) -> GraphGlow:
        """The decoder of a frozen TensorFlow graph (.pb).

        Raises:
            ValueError: if it is damaged or cannot be run, saying why.
        """
        return cls.from_program(compile_graph(path))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, D) to images in the flow's range (B, C, H, W)."""
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


def pixels_before_rounding(program: Program) -> tuple[str | None, int]:
    """The value whose rounding to 2**bits levels is the program's image, and the bits; (None, 8) if that is not how it ends."""
    x: Any = program.output
    numbers: list[float] = []
    expected: list[tuple[set[str], Callable[[float], bool]]] = [
        ({"Maximum", "Minimum"}, lambda n: n in (0.0, 255.0)),
        ({"Maximum", "Minimum"}, lambda n: n in (0.0, 255.0)),
        ({"Mul"}, lambda n: n > 0),
        ({"Floor"}, lambda n: True),
        ({"Mul"}, lambda n: n > 0),
        ({"Add", "AddV2"}, lambda n: n == 0.5),
    ]
    cast = program.instruction(x)
    if cast is None or cast.op != "Cast":
        return None, 8
    x = cast.inputs[0]
    for ops, fits in expected:
        instruction = program.instruction(x)
        if instruction is None or instruction.op not in ops:
            return None, 8
        values = [value for value in instruction.inputs if isinstance(value, str)]
        number = next((float(value) for value in instruction.inputs if not isinstance(value, str)), 0.0)
        if len(values) != 1 or not fits(number):
            return None, 8
        numbers.append(number)
        x = values[0]
    per_level, bins = numbers[2], numbers[4]
    bits = round(math.log2(bins))
    if set(numbers[:2]) != {0.0, 255.0} or bins != 2**bits or per_level * bins != 256 or not 1 <= bits <= 8:
        return None, 8
    return str(x), bits
