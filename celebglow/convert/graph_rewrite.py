"""Recognise a Glow in a program and take its weights: a walk from the image back to the latents.

Constants having been evaluated, plain and folded graphs look alike here. The walk only proposes: whether the proposed flow is the
graph is decided by running both (`celebglow.convert.checkpoints`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from celebglow.convert.graph_compiler import Instruction, Program
from celebglow.convert.graph_glow import pixels_before_rounding
from celebglow.glow import Glow
from celebglow.layers import LOG_SCALE, border_channel

State = dict[str, Tensor]


class NotRecognised(ValueError):
    """The program is no Glow that can be rewritten, or not one written in the known way."""


def recognise(program: Program) -> Glow:
    """The flow that a program seems to decode.

    Raises:
        NotRecognised: where the walk first meets something else, naming it.
    """
    return _Walk(program).flow()


@dataclass
class _Level:
    """What the walk found of a level, the steps in the order of encoding, which is that of the walk."""

    steps: list[State] = field(default_factory=list)
    prior: State | None = None
    width: int | None = None


class _Walk:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.couplings: set[str] = set()
        self.border = False

    def flow(self) -> Glow:
        x, bits = pixels_before_rounding(self.program)
        if x is None:
            raise NotRecognised("the image is not rounded in the usual way")
        levels: list[_Level] = []
        for index in range(len(self.program.latent_shapes)):
            level, x = self._level(x, index)
            levels.append(level)
        top = self._top(x)
        if len(self.couplings) > 1:
            raise NotRecognised("additive and affine couplings are mixed")
        _, side, _, channels = self.program.output_shape
        flow = Glow(
            resolution=side,
            channels=channels,
            steps=[len(level.steps) for level in levels],
            widths=[level.width or 1 for level in levels],
            coupling=self.couplings.pop() if self.couplings else "additive",
            bits=bits,
            border=self.border,
            learn_top=top is not None,
        )
        state: State = {} if top is None else {f"top_prior.{name}": value for name, value in top.items()}
        for number, level in enumerate(levels):
            for position, step in enumerate(level.steps):
                state |= {f"levels.{number}.steps.{position}.{name}": value for name, value in step.items()}
            state |= {f"levels.{number}.prior.conv.{name}": value for name, value in (level.prior or {}).items()}
        expected = flow.state_dict()
        for name, value in state.items():
            if name.endswith(("weight", "weight1")) and name in expected and value.shape[1] == expected[name].shape[1] - 1:
                state[name] = F.pad(value, (0, 0, 0, 0, 0, 1))  # a convolution without the border channel among others with it
        try:
            flow.load_state_dict(state)
        except RuntimeError as error:
            raise NotRecognised(str(error).splitlines()[-1].strip()) from error
        return flow.eval()

    # Looking at instructions

    def _is(self, value: Any, *ops: str) -> Instruction:
        instruction = self.program.instruction(value)
        if instruction is None or instruction.op not in ops:
            raise NotRecognised(f"{'a constant or latent' if instruction is None else instruction.op} where {ops[0]} is expected")
        return instruction

    def _with_constant(self, value: Any, *ops: str) -> tuple[Any, Tensor]:
        """x and c of an operation on one value and one constant, c being (C,) where it is per channel."""
        instruction = self._is(value, *ops)
        for x, other in (instruction.inputs, instruction.inputs[::-1]):
            constant = self.program.constant(other)
            if constant is not None and self.program.constant(x) is None:
                if constant.numel() == constant.shape[-1:].numel():
                    constant = constant.flatten()
                return x, constant
        raise NotRecognised(f"{instruction.op} without a constant")

    def _channels(self, value: Any) -> tuple[Any, slice]:
        """x and the channels that a StridedSlice takes of it."""
        x, begin, end, strides = self._is(value, "StridedSlice").inputs
        attributes = self.program.instruction(value).attributes  # type: ignore[union-attr]
        last = len(begin) - 1
        opened = [attributes.get(mask, 0) >> last & 1 for mask in ("begin_mask", "end_mask")]
        return x, slice(0 if opened[0] else begin[-1], None if opened[1] else end[-1], strides[-1])

    def _halves(self, first: Any, second: Any, interleaved: bool) -> Any:
        """The value that two slices of channels are the even and odd, or first and second, part of."""
        (x, a), (y, b) = self._channels(first), self._channels(second)
        fits = (
            (a.step, b.step, a.start, b.start) == (2, 2, 0, 1) if interleaved else a.stop == b.start and (a.step, b.step) == (1, 1)
        )
        if x != y or not fits:
            raise NotRecognised("channels are split in another way")
        return x

    def _conv(self, value: Any) -> tuple[Any, Tensor]:
        """x and the weight (O, I or I + border, h, w) of a convolution with "same" zero padding."""
        source, kernel = self._is(value, "Conv2D").inputs
        weight = self.program.constant(kernel)
        if weight is None or self.program.constant(source) is not None:
            raise NotRecognised("a convolution whose kernel is computed")
        weight = weight.permute(3, 2, 0, 1)
        if self.program.instruction(value).attributes["padding"] == "SAME":  # type: ignore[union-attr]
            return source, weight
        x: Any = None
        kept: list[int] = []
        ring: list[int] = []
        position = 0
        for part, padded in self._parts(source):
            constant = self.program.constant(part)
            if constant is None:
                if x is not None or not padded:
                    raise NotRecognised("a convolution of several values")
                x, width = part, weight.shape[1] - sum(self._depth(other) for other, _ in self._parts(source) if other != part)
                kept = list(range(position, position + width))
                position += width
                continue
            edge = border_channel(torch.zeros(1, 1, constant.shape[1] - 2, constant.shape[2] - 2))[0, 0]
            for channel in constant[0].permute(2, 0, 1):
                if channel.any():  # a channel of zeros changes nothing
                    if ring or padded or not torch.equal(channel, edge):
                        raise NotRecognised("an extra input that is not zero")
                    ring = [position]
                position += 1
        if x is None:
            raise NotRecognised("a convolution of constants")
        self.border |= bool(ring)
        return x, weight[:, kept + ring]

    def _depth(self, value: Any) -> int:
        constant = self.program.constant(value)
        if constant is None:
            raise NotRecognised("a convolution of several values")
        return constant.shape[-1]

    def _parts(self, value: Any, padded: bool = False) -> list[tuple[Any, bool]]:
        """What is concatenated on the channels, and whether it is zero-padded on the way."""
        instruction = self.program.instruction(value)
        if instruction is not None and instruction.op == "ConcatV2":
            if self._is_padding_or_constant(instruction, padded):
                return [part for each in instruction.inputs[:-1] for part in self._parts(each, padded)]
        elif instruction is not None and instruction.op == "Pad" and not padded:
            if instruction.inputs[1] != [[0, 0], [1, 1], [1, 1], [0, 0]]:
                raise NotRecognised("another padding")
            return self._parts(instruction.inputs[0], padded=True)
        return [(value, padded)]

    def _is_padding_or_constant(self, concat: Instruction, padded: bool) -> bool:
        """Whether a concatenation adds constant channels, and is not the joining of two halves."""
        return not padded or any(self.program.constant(each) is not None for each in concat.inputs[:-1])

    # The parts of a Glow

    def _level(self, x: Any, index: int) -> tuple[_Level, Any]:
        for op in ("Reshape", "Transpose", "Reshape"):
            x = self._is(x, op).inputs[0]
        level = _Level()
        while (instruction := self.program.instruction(x)) is not None and instruction.op == "Sub":
            step, x, width = self._step(x)
            if level.width not in (None, width):
                raise NotRecognised("couplings of several widths in one level")
            level.width = width
            level.steps.append(step)
        if index == len(self.program.latent_shapes) - 1:
            return level, x
        first, second, _ = self._is(x, "ConcatV2").inputs
        mean, scaled = self._is(second, "AddV2", "Add").inputs
        exponential, eps = self._is(scaled, "Mul").inputs
        if eps != f"%{index}":
            exponential, eps = eps, exponential
        if eps != f"%{index}":
            raise NotRecognised("the latents come in another order")
        h = self._halves(mean, self._is(exponential, "Exp").inputs[0], interleaved=True)
        level.prior, source = self._zero_conv(h)
        if source != first:
            raise NotRecognised("a prior of something else than the other half")
        return level, first

    def _step(self, x: Any) -> tuple[State, Any, int]:
        x, bias = self._with_constant(x, "Sub")
        x, inverse_scale = self._with_constant(x, "Mul")
        x, unmix = self._conv(x)
        state = {"actnorm.bias": bias, "actnorm.logs": -_logs(inverse_scale)}
        try:
            state["mix.weight"] = torch.linalg.inv(unmix[:, :, 0, 0].double()).float()
        except RuntimeError as error:
            raise NotRecognised("a 1x1 convolution that has no inverse") from error
        z1, changed, _ = self._is(x, "ConcatV2").inputs
        z2, h = self._is(changed, "Sub").inputs
        if (division := self.program.instruction(z2)) is not None and division.op == "RealDiv":
            self.couplings.add("affine")
            z2, sigmoid = division.inputs
            scale, two = self._with_constant(self._is(sigmoid, "Sigmoid").inputs[0], "AddV2", "Add")
            if two.numel() != 1 or two.item() != 2.0:
                raise NotRecognised("an affine coupling with another shift of its sigmoid")
            h = self._halves(h, scale, interleaved=True)
        else:
            self.couplings.add("additive")
        z = self._halves(z1, z2, interleaved=False)
        conv3, h = self._zero_conv(h)
        state |= {f"coupling.net.conv3.{name}": value for name, value in conv3.items()}
        for i in (2, 1):
            h, scale = self._with_constant(self._is(h, "Relu").inputs[0], "Mul")
            h, bias = self._with_constant(h, "AddV2", "Add")
            h, weight = self._conv(h)
            net = f"coupling.net.norm{i}."
            state |= {net + "bias": bias, net + "logs": _logs(scale), f"coupling.net.weight{i}": weight}
        if h != z1:
            raise NotRecognised("a coupling whose network reads something else than its first half")
        return state, z, state["coupling.net.weight2"].shape[0]

    def _zero_conv(self, value: Any) -> tuple[State, Any]:
        x, scale = self._with_constant(value, "Mul")
        x, bias = self._with_constant(x, "AddV2", "Add")
        x, weight = self._conv(x)
        return {"weight": weight, "bias": bias, "logs": _logs(scale)}, x

    def _top(self, value: Any) -> State | None:
        """The last level's prior, None for N(0, 1)."""
        last = len(self.program.latent_shapes) - 1
        height, width, channels = self.program.latent_shapes[last]
        mean, scale = torch.zeros(()), torch.ones(())
        if self.program.instruction(value) is not None:
            value, mean = self._with_constant(value, "AddV2", "Add")
            if self.program.instruction(value) is not None:
                value, scale = self._with_constant(value, "Mul")
        if value != f"%{last}" or (scale <= 0).any():
            raise NotRecognised("another prior of the last level")
        maps = [part.expand(1, height, width, channels)[0] for part in (mean, torch.log(scale))]
        h = torch.cat(maps, dim=2).reshape(height * width, 2 * channels).double().numpy()
        if not h.any():
            return None
        # the maps as a bias and, at the border, the nine taps of a convolution of the border channel
        columns = [torch.ones(height * width, 1)]
        if self.border:
            ring = border_channel(torch.zeros(1, 1, height, width))
            columns.append(F.unfold(ring, 3)[0].T)
        solution = np.linalg.lstsq(torch.cat(columns, dim=1).double().numpy(), h, rcond=None)[0]
        coefficients = torch.from_numpy(solution).float()
        state = {"bias": coefficients[0], "logs": torch.zeros(2 * channels)}
        if self.border:
            state["border_weight"] = coefficients[1:].T.reshape(2 * channels, 1, 3, 3)
        return state


def _logs(scale: Tensor) -> Tensor:
    if (scale <= 0).any():
        raise NotRecognised("a scale that is not positive")
    return torch.log(scale.double()).float() / LOG_SCALE
