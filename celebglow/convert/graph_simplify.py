"""A program with its convolutions gathered: padding, constant channels, biases, scales and a ReLU become parts of one `Convolve`.

Glow's code pads by hand, marks the border in a channel of its own, and scales after it convolves; a model that is conditioned on a fixed
input concatenates or adds maps that are constant as well. All of that is a convolution plus a constant map, which is the same along
the image but for its border. So the result runs faster, and `celebglow.convert.graph_rewrite` sees the same program whatever the
coupling networks are conditioned on. Permutations of the channels become 1×1 convolutions.

One module, though a long one: what is gathered is one small algebra.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from celebglow.convert.graph_compiler import Instruction, Program, run
from celebglow.convert.tfops_values import ints
from celebglow.layers import condense, spread

AFFINE = {"Add", "Mul", "Neg", "RealDiv", "Sub"}
TO_ROWS = [3, 1, 2, 0]  # the transposition by which the original code shuffles channels, its own inverse


def simplify(program: Program) -> Program:
    """The same program with its convolutions gathered."""
    return _Simplifier(program).result()


@dataclass(frozen=True)
class _Pending:
    """A convolution that may still take up what follows: conv(x, weight) + bias.

    `x`: a value of the new program; `weight` (O, I, h, w); `bias` (O,), or a map (O, h', w') that `spread` takes.
    """

    x: str
    weight: Tensor
    bias: Tensor
    relu: bool = False


class _Simplifier:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.uses = Counter(value for each in program.instructions for value in each.inputs if isinstance(value, str))
        self.uses[program.output] += 1
        self.first = len(program.latent_shapes)
        self.names = {f"%{index}": f"%{index}" for index in range(self.first)}
        self.pending: dict[str, _Pending] = {}
        self.instructions: list[Instruction] = []
        self.constants = list(program.constants)

    def result(self) -> Program:
        for index, instruction in enumerate(self.program.instructions):
            value = f"%{self.first + index}"
            pending = self._gathered(instruction)
            if pending is not None:
                self.pending[value] = pending
                for each in instruction.inputs:  # taken up
                    self.pending.pop(each if isinstance(each, str) else "", None)
            else:
                self.names[value] = self._add(replace(instruction, inputs=tuple(map(self._name, instruction.inputs))))
        program = self.program
        output = self._name(program.output)
        return Program(program.latent_shapes, self.instructions, self.constants, output, program.output_shape).pruned()

    def _gathered(self, instruction: Instruction) -> _Pending | None:
        """What an instruction makes of a convolution; None if it is to stay as it is."""
        if instruction.op == "Conv2D":
            return self._convolution(instruction)
        if instruction.op == "Relu":
            before = self._taken(instruction.inputs[0])
            return before and replace(before, relu=True)
        if instruction.op in AFFINE:
            return self._affine(instruction)
        return self._permutation(instruction)

    def _taken(self, value: Any) -> _Pending | None:
        """The pending convolution of a value that nothing else uses, with no ReLU yet."""
        pending = self.pending.get(value) if isinstance(value, str) and self.uses[value] == 1 else None
        return None if pending is None or pending.relu else pending

    def _affine(self, instruction: Instruction) -> _Pending | None:
        for position, value in enumerate(instruction.inputs):
            before = self._taken(value)
            if before is None:
                continue
            if instruction.op == "Neg":
                return replace(before, weight=-before.weight, bias=-before.bias)
            constant = self.program.constant(instruction.inputs[1 - position])
            channels = before.weight.shape[0]
            if constant is None:
                return None
            if (part := _per_channel(constant.float(), channels)) is None:
                return None
            if instruction.op == "Add":
                return replace(before, bias=_sum(before.bias, part))
            if instruction.op == "Sub":
                sign = 1.0 if position == 0 else -1.0
                return replace(before, weight=sign * before.weight, bias=_sum(sign * before.bias, -sign * part))
            if part.ndim == 1 and (instruction.op == "Mul" or position == 0):
                scale = part if instruction.op == "Mul" else 1 / part
                bias = before.bias * scale.reshape(-1, *[1] * (before.bias.ndim - 1))
                return replace(before, weight=before.weight * scale[:, None, None, None], bias=bias)
        return None

    def _convolution(self, instruction: Instruction) -> _Pending | None:
        source, kernel = instruction.inputs
        weight = self.program.constant(kernel)
        attributes = instruction.attributes
        strides, dilations = attributes.get("strides", [1] * 4), attributes.get("dilations") or [1] * 4
        plain = attributes.get("data_format", "NHWC") == "NHWC" and [*strides, *dilations] == [1] * 8
        if weight is None or not plain or attributes["padding"] not in ("SAME", "VALID"):
            return None
        weight = weight.permute(3, 2, 0, 1)
        height, width = weight.shape[2:]
        if height % 2 == 0 or width % 2 == 0:
            return None
        if (separable := self._separable(source, weight)) is not None:
            return separable
        same = attributes["padding"] == "SAME" or (height, width) == (1, 1)
        edges = [[0, 0], [height // 2] * 2, [width // 2] * 2, [0, 0]]
        parts = self._parts(source, edges, padded=same)
        channels, constants, position = [], [], 0
        values: list[Any] = []
        for value, padded, depth in parts:
            constant = self.program.constant(value)
            taken = weight[:, position : position + depth]
            position += depth
            if padded:
                value, taken, maps = self._behind(value, taken)
                constant = self.program.constant(value)
                constants += maps
            if constant is not None:
                padding = (height // 2, width // 2) if padded else (0, 0)
                constants.append(condense(F.conv2d(constant.permute(0, 3, 1, 2), taken, padding=padding)[0]))
            elif padded:
                values.append(value)
                channels.append(taken)
            else:
                return None  # a convolution that makes the image smaller
        if not values or position != weight.shape[1]:
            return None
        bias = torch.zeros(weight.shape[0])
        for each in constants:
            bias = _sum(bias, each)
        x = self._name(values[0]) if len(values) == 1 else self._add(Instruction("ConcatV2", (*map(self._name, values), 3), {}))
        return _Pending(x, torch.cat(channels, dim=1), bias)

    def _behind(self, value: Any, weight: Tensor) -> tuple[Any, Tensor, list[Tensor]]:
        """What a padded convolution sees through, to a ReLU: constants that scale the channels go into its weights, those that are
        added become maps of its results.

        Returns:
            the value that is left, the weights for it, and the maps.
        """
        at, scaled, maps = value, weight, []
        while (instruction := self.program.instruction(at)) is not None and instruction.op in ("Add", "Mul"):
            known = [self.program.constant(each) for each in instruction.inputs]
            constant = next((each for each in known if each is not None), None)
            part = None if constant is None else _per_channel(constant.float(), weight.shape[1])
            if part is None or (instruction.op == "Mul" and part.ndim > 1):
                break
            if instruction.op == "Mul":
                scaled = scaled * part[:, None, None]
            else:
                height, width = self.shapes[at][1:3]
                added = spread(part if part.ndim > 1 else part[:, None, None], height, width)
                padding = (weight.shape[2] // 2, weight.shape[3] // 2)
                maps.append(condense(F.conv2d(added[None].contiguous(), scaled, padding=padding)[0]))
            at = instruction.inputs[0 if known[0] is None else 1]
        if instruction is None or instruction.op != "Relu":
            return value, weight, []
        return at, scaled, maps

    def _separable(self, source: Any, weight: Tensor) -> _Pending | None:
        """A filter per channel and the 1×1 convolution of its results, together one convolution."""
        depthwise = self.program.instruction(source)
        if depthwise is None or depthwise.op != "DepthwiseConv2dNative" or weight.shape[2:] != (1, 1) or self.uses[source] > 1:
            return None
        filters = self.program.constant(depthwise.inputs[1])
        attributes = depthwise.attributes
        plain = attributes.get("data_format", "NHWC") == "NHWC" and attributes["padding"] == "SAME"
        if filters is None or not plain or {*attributes["strides"], *(attributes.get("dilations") or [1])} != {1}:
            return None
        height, width, channels, several = filters.shape
        if height % 2 == 0 or width % 2 == 0:
            return None
        pointwise = weight.reshape(-1, channels, several)
        together = torch.einsum("oim,hwim->oihw", pointwise, filters)
        return _Pending(self._name(depthwise.inputs[0]), together, torch.zeros(len(weight)))

    def _parts(self, value: Any, edges: list[list[int]], padded: bool) -> list[tuple[Any, bool, int]]:
        """What a convolution sees, by channels: each with whether it is zero-padded on the way, and its number of channels.

        Only what is joined with constants, or padded, is taken apart: two halves of a step stay one.
        """
        instruction = self.program.instruction(value)
        if instruction is not None and instruction.op == "ConcatV2" and instruction.inputs[-1] in (3, -1):
            inner = [part for each in instruction.inputs[:-1] for part in self._parts(each, edges, padded)]
            if not padded or any(self.program.constant(part) is not None for part, _, _ in inner):
                return inner
        elif instruction is not None and instruction.op == "Pad" and not padded and instruction.inputs[1] == edges:
            return self._parts(instruction.inputs[0], edges, padded=True)
        return [(value, padded, self._depth(value))]

    def _depth(self, value: Any) -> int:
        constant = self.program.constant(value)
        if constant is not None:
            return constant.shape[-1]
        return int(self.shapes[value][-1])

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """The shapes of the old program's values."""
        return shapes_of(self.program)

    def _permutation(self, instruction: Instruction) -> _Pending | None:
        """Channels in another order: reversed by a slice or a `ReverseV2`, or gathered, between two transpositions or not."""
        source: Any = None
        order: list[int] = []
        if instruction.op == "StridedSlice":
            source, _, _, strides = instruction.inputs
            if ints(strides) != [1, 1, 1, -1] or not isinstance(source, str) or instruction.attributes.get("begin_mask") != 15:
                return None
            if instruction.attributes.get("end_mask") != 15 or any(
                instruction.attributes.get(mask) for mask in ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
            ):
                return None
            order = list(range(self._depth(source)))[::-1]
        elif instruction.op == "ReverseV2" and ints(instruction.inputs[1]) in ([3], [-1]):
            source = instruction.inputs[0]
            order = list(range(self._depth(source)))[::-1]
        elif instruction.op == "Transpose" and ints(instruction.inputs[1]) == TO_ROWS:
            gather = self.program.instruction(instruction.inputs[0])
            before = self.program.instruction(gather.inputs[0]) if gather is not None and gather.op == "GatherV2" else None
            if gather is None or before is None or before.op != "Transpose" or ints(before.inputs[1]) != TO_ROWS:
                return None
            indices = self.program.constant(gather.inputs[1])
            if indices is None or ints(gather.inputs[2]) != [0]:
                return None
            source, order = before.inputs[0], ints(indices)
        elif instruction.op == "GatherV2" and ints(instruction.inputs[2]) in ([3], [-1]):
            indices = self.program.constant(instruction.inputs[1])
            if indices is None:
                return None
            source, order = instruction.inputs[0], ints(indices)
        if not order or not isinstance(source, str) or sorted(order) != list(range(self._depth(source))):
            return None
        matrix = torch.eye(len(order))[order]
        return _Pending(self._name(source), matrix[:, :, None, None], torch.zeros(len(order)))

    def _name(self, value: Any) -> Any:
        """A value of the old program as the new one calls it; a pending convolution is written down now."""
        if not isinstance(value, str) or value[0] == "#":
            return value
        if value not in self.names:
            pending = self.pending.pop(value)
            weight = self._constant(pending.weight.contiguous(memory_format=torch.channels_last))
            bias = self._constant(pending.bias)
            attributes = {"relu": True} if pending.relu else {}
            self.names[value] = self._add(Instruction("Convolve", (pending.x, weight, bias), attributes))
        return self.names[value]

    def _constant(self, constant: Tensor) -> str:
        self.constants.append(constant)
        return f"#{len(self.constants) - 1}"

    def _add(self, instruction: Instruction) -> str:
        self.instructions.append(instruction)
        return f"%{self.first + len(self.instructions) - 1}"


def shapes_of(program: Program) -> dict[str, torch.Size]:
    """The shapes of a program's values, for one image."""
    lookup: dict[str, Tensor] = {f"%{i}": torch.zeros(1, *shape, device="meta") for i, shape in enumerate(program.latent_shapes)}
    lookup |= {f"#{i}": constant.to("meta") for i, constant in enumerate(program.constants)}
    for index, instruction in enumerate(program.instructions):
        lookup[f"%{len(program.latent_shapes) + index}"] = run(instruction, lookup)
    return {value: each.shape for value, each in lookup.items()}


def _per_channel(constant: Tensor, channels: int) -> Tensor | None:
    """A constant that is added to images (B, H, W, C) as (C,) or (C, H, W); None if it is neither."""
    if constant.numel() == 1:
        return constant.reshape(1).expand(channels)
    if constant.numel() == channels == constant.shape[-1]:
        return constant.reshape(channels)
    while constant.ndim > 3 and constant.shape[0] == 1:
        constant = constant[0]
    if constant.ndim == 3 and constant.shape[-1] in (1, channels):
        return condense(constant.permute(2, 0, 1).expand(channels, -1, -1))
    return None


def _sum(a: Tensor, b: Tensor) -> Tensor:
    """The sum of two biases, (C,) or maps (C, h, w) that `spread` takes, whatever their sides."""
    if a.ndim == b.ndim == 1:
        return a + b
    maps = [each[:, None, None] if each.ndim == 1 else each for each in (a, b)]
    height, width = (max(each.shape[axis] for each in maps) for axis in (1, 2))
    return sum(spread(each, height, width) for each in maps)  # type: ignore[return-value]
