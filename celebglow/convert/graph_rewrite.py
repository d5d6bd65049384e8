"""Recognise a Glow in a simplified program and take its weights: a walk from the image back to the latents.

The program has its convolutions gathered (`celebglow.convert.graph_simplify`), so plain, folded and optimised graphs look alike here,
and so do couplings that are conditioned on a fixed input: what is left of the condition is a constant map. The walk only proposes:
whether the proposed flow is the graph is decided by running both (`celebglow.convert.checkpoints`).

One module, though a long one: the walk is one recursion, and what it meets on the way is read beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from celebglow.convert.graph_compiler import Instruction, Program
from celebglow.convert.graph_glow import pixels_before_rounding
from celebglow.glow import Glow
from celebglow.layers import LOG_SCALE, border_channel, spread
from splits.errors import InputError

State = dict[str, Tensor]


class NotRecognised(InputError):
    """The program is no Glow that can be rewritten, or not one written in the known way."""


def recognise(program: Program) -> Glow:
    """The flow that a simplified program seems to decode.

    Raises:
        NotRecognised: where the walk first meets something else, naming it.
    """
    return _Walk(program).flow()


@dataclass
class _Convolution:
    """A convolution, conv(x, weight) + bias: `weight` (O, I, h, w); `bias` (O,), or a map (O, h', w') that `spread` takes."""

    x: Any
    weight: Tensor
    bias: Tensor
    relu: bool


@dataclass
class _Level:
    """What the walk found of a level, the steps in the order of encoding, which is that of the walk.

    States by the names of `celebglow.layers`, but "bias" may still hold a map; `_settle` makes a border weight and a context of it.
    """

    side: int
    steps: list[State] = field(default_factory=list)
    prior: State = field(default_factory=dict)
    width: int = 1


class _Walk:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.couplings: set[str] = set()

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
        state, border, contexts = _settle(levels, top)
        _, side, _, channels = self.program.output_shape
        flow = Glow(
            resolution=side,
            channels=channels,
            steps=[len(level.steps) for level in levels],
            widths=[level.width for level in levels],
            coupling=self.couplings.pop() if self.couplings else "additive",
            bits=bits,
            border=border,
            learn_top=top is not None,
            contexts=contexts or None,
        )
        expected = flow.state_dict()
        try:
            flow.load_state_dict({name: torch.zeros_like(value) for name, value in expected.items()} | state)
        except RuntimeError as error:
            raise NotRecognised(str(error).splitlines()[-1].strip()) from error
        return flow.eval()

    # Looking at instructions

    def _is(self, value: Any, *ops: str) -> Instruction:
        instruction = self.program.instruction(value)
        if instruction is None or instruction.op not in ops:
            raise NotRecognised(f"{'a constant or latent' if instruction is None else instruction.op} where {ops[0]} is expected")
        return instruction

    def _convolution(self, value: Any) -> _Convolution:
        instruction = self._is(value, "Convolve")
        x, weight, bias = instruction.inputs
        found = self.program.constant(weight), self.program.constant(bias)
        assert found[0] is not None
        assert found[1] is not None
        return _Convolution(x, found[0], found[1], bool(instruction.attributes.get("relu")))

    def _gaussian(self, value: Any, eps: str) -> tuple[Any, Any]:
        """The mean and scale of mean + scale * eps."""
        first, second = self._is(value, "Add").inputs
        for mean, scaled in ((first, second), (second, first)):
            product = self.program.instruction(scaled)
            if product is not None and product.op == "Mul" and eps in product.inputs:
                return mean, product.inputs[1 if product.inputs[0] == eps else 0]
        raise NotRecognised("the latents come in another order")

    def _channels(self, value: Any) -> tuple[Any, slice]:
        """The x, and the channels that a slice, or a part of a split, takes of it."""
        instruction = self._is(value, "StridedSlice", "Slice", "Split", "SplitV")
        if instruction.op == "StridedSlice":
            x, begin, end, strides = instruction.inputs
            last = len(begin) - 1
            opened = [instruction.attributes.get(mask, 0) >> last & 1 for mask in ("begin_mask", "end_mask")]
            return x, slice(0 if opened[0] else begin[-1], None if opened[1] else end[-1], strides[-1])
        if instruction.op == "Slice":
            x, begin, size = instruction.inputs
            return x, slice(begin[-1], None if size[-1] < 0 else begin[-1] + size[-1], 1)
        x = instruction.inputs[1 if instruction.op == "Split" else 0]
        return x, slice(instruction.attributes["output"], None, None)  # compared by its number only

    def _halves(self, first: Any, second: Any, interleaved: bool) -> Any:
        """The value that two slices of channels are the even and odd, or first and second, part of."""
        (x, a), (y, b) = self._channels(first), self._channels(second)
        if a.step is None:
            fits = not interleaved and (a.start, b.start) == (0, 1)
        elif interleaved:
            fits = (a.step, b.step, a.start, b.start) == (2, 2, 0, 1)
        else:
            fits = a.stop == b.start and (a.step, b.step) == (1, 1)
        if x != y or not fits:
            raise NotRecognised("channels are split in another way")
        return x

    # The parts of a Glow

    def _level(self, x: Any, index: int) -> tuple[_Level, Any]:
        for op in ("Reshape", "Transpose", "Reshape"):
            x = self._is(x, op).inputs[0]
        level = _Level(self.program.latent_shapes[index][0])
        while (instruction := self.program.instruction(x)) is not None and instruction.op == "Convolve":
            step, x, width = self._step(x)
            if level.steps and level.width != width:
                raise NotRecognised("couplings of several widths in one level")
            level.width = width
            level.steps.append(step)
        if index == len(self.program.latent_shapes) - 1:
            return level, x
        first, second, _ = self._is(x, "ConcatV2").inputs
        mean, exponential = self._gaussian(second, f"%{index}")
        h = self._halves(mean, self._is(exponential, "Exp").inputs[0], interleaved=True)
        conv = self._last(h)
        if conv.x != first:
            raise NotRecognised("a prior of something else than the other half")
        level.prior = _zero_conv("conv.", conv)
        return level, first

    def _last(self, value: Any) -> _Convolution:
        """A 3×3 convolution without a ReLU; a 1×1 one is one with zeros around."""
        conv = _as_3x3(self._convolution(value))
        if conv.relu or conv.weight.shape[2:] != (3, 3):
            raise NotRecognised("a last convolution of another size, or with a ReLU")
        return conv

    def _step(self, x: Any) -> tuple[State, Any, int]:
        unmix = self._convolution(x)
        if unmix.relu or unmix.weight.shape[2:] != (1, 1) or unmix.bias.ndim != 1:
            raise NotRecognised("a step that ends in something else than a 1×1 convolution and an affine map per channel")
        matrix = unmix.weight[:, :, 0, 0].double()
        scale = matrix.square().mean(dim=1).sqrt()  # of the ActNorm: how it is shared out between the two changes nothing
        try:
            mix = torch.linalg.inv(matrix / scale[:, None]).float()
        except RuntimeError as error:
            raise NotRecognised("a 1×1 convolution that has no inverse") from error
        state = {"actnorm.bias": -unmix.bias, "actnorm.logs": -torch.log(scale).float() / LOG_SCALE, "mix.weight": mix}
        z1, changed, _ = self._is(unmix.x, "ConcatV2").inputs
        z2, h = self._is(changed, "Sub").inputs
        if (division := self.program.instruction(z2)) is not None and division.op == "RealDiv":
            self.couplings.add("affine")
            z2, sigmoid = division.inputs
            shifted = self._is(self._is(sigmoid, "Sigmoid").inputs[0], "Add")
            scale_part, two = shifted.inputs if isinstance(shifted.inputs[0], str) else shifted.inputs[::-1]
            if two != 2.0:
                raise NotRecognised("an affine coupling with another shift of its sigmoid")
            h = self._halves(h, scale_part, interleaved=True)
        else:
            self.couplings.add("additive")
        z = self._halves(z1, z2, interleaved=False)
        net, read = self._net(h)
        if read != z1:
            raise NotRecognised("a coupling whose network reads something else than its first half")
        state |= {f"coupling.net.{name}": value for name, value in net.items()}
        return state, z, net["weight2"].shape[0]

    def _net(self, value: Any) -> tuple[State, Any]:
        """A coupling's network, and what it reads: 3×3, ReLU, 1×1, ReLU, 3×3; without the 1×1, an identity takes its place."""
        last = self._last(value)
        hidden: list[_Convolution] = []
        x = last.x
        while len(hidden) < 2 and (instruction := self.program.instruction(x)) is not None and instruction.op == "Convolve":
            conv = self._convolution(x)
            if not conv.relu:
                raise NotRecognised("a coupling's network with a hidden layer that has no ReLU")
            hidden.append(conv)
            x = conv.x
        if not hidden:
            met = self.program.instruction(x)
            raise NotRecognised(f"a coupling's network with {met.op if met is not None else 'nothing'} before its last convolution")
        first = _as_3x3(hidden[-1])
        if first.weight.shape[2:] != (3, 3) or (hidden[:-1] and hidden[0].weight.shape[2:] != (1, 1)):
            raise NotRecognised("a coupling's network of other layers than 3×3, 1×1, 3×3")
        width = last.weight.shape[1]
        second = hidden[0] if len(hidden) == 2 else _Convolution(None, torch.eye(width)[:, :, None, None], torch.zeros(width), True)
        state = {"weight1": first.weight, "norm1.bias": first.bias, "weight2": second.weight, "norm2.bias": second.bias}
        return state | _zero_conv("conv3.", last), x

    def _top(self, value: Any) -> State | None:
        """The last level's prior, None for N(0, 1): `bias` is a map (2C, H, W), of means, then of log-scales."""
        last = len(self.program.latent_shapes) - 1
        height, width, channels = self.program.latent_shapes[last]
        mean, scale = torch.zeros(()), torch.ones(())
        while (instruction := self.program.instruction(value)) is not None:
            constants = [self.program.constant(each) for each in instruction.inputs]
            known = next((each for each in constants if each is not None), None)
            if known is None or len(constants) != 2 or instruction.op not in ("Add", "Mul"):
                raise NotRecognised("another prior of the last level")
            if instruction.op == "Mul":
                scale = scale * known
            else:
                mean = mean + scale * known
            value = instruction.inputs[0 if constants[0] is None else 1]
        if value != f"%{last}" or (scale <= 0).any():
            raise NotRecognised("another prior of the last level")
        maps = [part.expand(1, height, width, channels)[0].permute(2, 0, 1) for part in (mean, torch.log(scale))]
        h = torch.cat(maps)
        return {"bias": h} if h.any() else None


def _as_3x3(conv: _Convolution) -> _Convolution:
    """A 1×1 convolution as a 3×3 one; any other as it is."""
    return replace(conv, weight=F.pad(conv.weight, (1, 1, 1, 1))) if conv.weight.shape[2:] == (1, 1) else conv


def _zero_conv(name: str, conv: _Convolution) -> State:
    return {f"{name}weight": conv.weight, f"{name}bias": conv.bias}


# Maps into border weights and contexts

# Where a map is kept and what it becomes: the bias, the weight whose border channel it may be, the context, and its name in `Glow`.
_PLACES = [
    ("coupling.net.norm1.bias", "coupling.net.weight1", "coupling.net.context1", "conv1"),
    ("coupling.net.norm2.bias", "", "coupling.net.context2", "conv2"),
    ("coupling.net.conv3.bias", "coupling.net.conv3.weight", "coupling.net.conv3.context", "conv3"),
]


def _settle(levels: list[_Level], top: State | None) -> tuple[State, bool, dict[str, list[int]]]:
    """The state of the whole flow, whether it has the border channel, and the sides of its contexts.

    Where every map is what a convolution of the border channel gives, it becomes that; else maps that are not constant stay maps.
    """
    maps: list[tuple[int, str, str, str, str]] = []  # level, prefix, bias, weight, context
    state: State = {}
    for number, level in enumerate(levels):
        for position, step in enumerate(level.steps):
            prefix = f"levels.{number}.steps.{position}."
            state |= {prefix + name: value for name, value in step.items()}
            maps += [
                (number, place, prefix + bias, weight and prefix + weight, prefix + context)
                for bias, weight, context, place in _PLACES
            ]
        if level.prior:
            prefix = f"levels.{number}.prior."
            state |= {prefix + name: value for name, value in level.prior.items()}
            maps.append((number, "prior", prefix + "conv.bias", prefix + "conv.weight", prefix + "conv.context"))
    if top is not None:
        state["top_prior.bias"] = top["bias"]
        maps.append((len(levels) - 1, "top", "top_prior.bias", "top_prior.border_weight", "top_prior.context"))
    sides = [level.side for level in levels]
    left: dict[str, tuple[int, str, Tensor]] = {}
    border = False
    for number, place, bias, weight, context in maps:
        value = state[bias]
        if value.ndim == 1:
            continue
        taps, state[bias], rest = _border_taps(value, sides[number], has_taps=bool(weight))
        if taps.any():
            border = True
            state[weight] = torch.cat([state[weight], taps], dim=1) if weight in state else taps
        if rest is not None:
            left[context] = (number, place, rest)
    if border:
        for _, _, _, weight, _ in maps:
            if weight in state and "top_prior" not in weight and _lacks_border(state, weight):
                state[weight] = F.pad(state[weight], (0, 0, 0, 0, 0, 1))
    contexts: dict[str, list[int]] = {}
    for number, place, rest in left.values():
        of_levels = contexts.setdefault(place, [0] * len(levels))
        of_levels[number] = max(of_levels[number], *rest.shape[1:])
    for name, (number, place, rest) in left.items():
        side = contexts[place][number]
        state[name] = spread(rest, side, side)
    return state, border, contexts


def _lacks_border(state: State, weight: str) -> bool:
    """Whether a weight has no border channel yet: its inputs are then those of what it reads."""
    if weight.endswith("weight1"):
        return state[weight].shape[1] == state[weight.replace("coupling.net.weight1", "mix.weight")].shape[0] // 2
    if weight.endswith("conv3.weight"):
        return state[weight].shape[1] == state[weight.replace("conv3.weight", "weight2")].shape[0]
    return state[weight].shape[1] == state[weight].shape[0] // 2


def _border_taps(value: Tensor, side: int, has_taps: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """A map (C, h, w) as the nine taps (C, 1, 3, 3) of a convolution of the border channel, a bias (C,), and what is left, if anything.

    Fitted by least squares on the smallest image that has the map's border.
    """
    small = min(side, max(3, *value.shape[1:]))
    full = spread(value, small, small)
    ring = F.unfold(border_channel(torch.zeros(1, 1, small, small)), 3)[0].T.double()
    columns = torch.cat([torch.ones(small * small, 1, dtype=torch.float64), ring if has_taps else ring[:, :0]], dim=1)
    target = full.double().flatten(1).T
    solution = np.linalg.lstsq(columns.numpy(), target.numpy(), rcond=None)[0]
    fitted = torch.from_numpy(columns.numpy() @ solution)
    coefficients = torch.from_numpy(solution).float()
    taps = coefficients[1:].T.reshape(-1, 1, 3, 3) if has_taps else torch.zeros(len(value), 1, 3, 3)
    rest = (target - fitted).T.reshape(full.shape).float()
    if rest.abs().max() <= 1e-5 * max(1.0, float(value.abs().max())):
        return taps, coefficients[0], None
    # A map that no border channel explains is kept whole: one mechanism a place.
    middle = value[:, value.shape[1] // 2, value.shape[2] // 2].clone()
    return torch.zeros_like(taps), middle, value - middle[:, None, None]
