"""What three PyTorch implementations of Glow call their weights, and how each becomes our `Glow`, exactly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from celebglow.glow import Glow
from celebglow.layers import LOG_SCALE
from splits.errors import InputError

State = dict[str, Tensor]
LARGEST_RESOLUTION = 1024  # larger images than any published Glow's
BUFFERS = ("initialized", "inited", "l_mask", "u_mask", "l_eye", "eye")  # of no consequence once trained


class UnsupportedCheckpoint(InputError):
    """A checkpoint that is damaged, unknown, or has no exact form as our `Glow`."""


class Weights:
    """The checkpoint's weights, each to be taken: one that is left over had a meaning that was missed."""

    def __init__(self, weights: State, path: str | Path) -> None:
        self.weights = {name: value for name, value in weights.items() if name.rpartition(".")[2] not in BUFFERS}
        self.path = path

    def take(self, name: str) -> Tensor:
        if name not in self.weights:
            raise UnsupportedCheckpoint(f"{self.path} lacks {name}")
        return self.weights.pop(name)

    def vector(self, name: str) -> Tensor:
        return self.take(name).flatten()

    def indices(self, pattern: str) -> list[int]:
        """The different numbers in the names that match, in order."""
        return sorted({int(match[1]) for name in self.weights if (match := re.match(pattern, name))})

    def matrix(self, prefix: str, lower: str, upper: str, diagonal: str, permutation: str, sign: str = "sign_s") -> Tensor:
        """The matrix (C, C) of an invertible 1x1 convolution, plain or as P L (U + diag(sign * exp(log s)))."""
        if prefix + "weight" in self.weights:
            weight = self.take(prefix + "weight")
            return weight.reshape(weight.shape[:2])
        if prefix + permutation not in self.weights:
            raise UnsupportedCheckpoint(
                f"{self.path} has no {prefix}weight: flows that permute channels don't keep the permutation"
            )
        p, low, up, log_s, signs = (self.take(prefix + name) for name in (permutation, lower, upper, diagonal, sign))
        scale = torch.diag(signs * torch.exp(log_s))
        return p @ (low.tril(-1) + torch.eye(len(p), dtype=p.dtype)) @ (up.triu(1) + scale)

    def finish(self, flow: Glow, state: State) -> Glow:
        if self.weights:
            raise UnsupportedCheckpoint(f"{self.path}: no known Glow has {next(iter(self.weights))}")
        for name, value in state.items():
            if not value.isfinite().all():
                raise UnsupportedCheckpoint(f"{self.path}: some weights are not finite ({name}, in our names)")
        try:
            flow.load_state_dict({name: value.float() for name, value in state.items()})
        except RuntimeError as error:
            raise UnsupportedCheckpoint(f"{self.path}: {str(error).splitlines()[-1].strip()}") from error
        return flow.eval()


def _make(weights: Weights, resolution: int, steps: list[int], widths: list[int], **config: Any) -> Glow:
    if resolution > LARGEST_RESOLUTION:
        raise UnsupportedCheckpoint(f"{weights.path}: a resolution of at most {LARGEST_RESOLUTION} is expected, not {resolution}")
    try:
        return Glow(resolution=resolution, steps=steps, widths=widths, **config)
    except ValueError as error:
        raise UnsupportedCheckpoint(f"{weights.path}: {error} (see `resolution`)") from error


def _interleave(h: Tensor, first: int, second: int) -> Tensor:
    """Outputs in two halves to the order in which half `first` lies at 0, 2, 4, … and half `second` at 1, 3, 5, …"""
    halves = h.chunk(2)
    return torch.stack([halves[first], halves[second]], dim=1).flatten(0, 1)


def rosinality(weights: Weights, resolution: int, bits: int) -> Glow:
    """Scales direct and of either sign; networks with biases for ActNorms; zero convolutions padded with ones; halves (log s, t).

    A padding of ones is zero padding plus the border channel under the sum of the kernel's inputs. A negative scale moves into the
    matrix that follows.
    """
    levels = weights.indices(r"blocks\.(\d+)\.")
    steps = [len(weights.indices(rf"blocks\.{level}\.flows\.(\d+)\.")) for level in levels]
    state: State = {}
    widths: list[int] = []
    affine = False

    def zero_conv(prefix: str, conv: str, scale: str) -> State:
        weight = weights.take(prefix + conv + "weight")
        return {
            "weight": torch.cat([weight, weight.sum(dim=1, keepdim=True)], dim=1),
            "bias": weights.vector(prefix + conv + "bias"),
            "logs": weights.vector(prefix + scale),
        }

    for level in levels:
        width = 1
        for step in range(steps[level] if level < len(steps) else 0):
            ours, theirs = f"levels.{level}.steps.{step}.", f"blocks.{level}.flows.{step}."
            scale = weights.vector(theirs + "actnorm.scale")
            matrix = weights.matrix(theirs + "invconv.", "w_l", "w_u", "w_s", "w_p", "s_sign")
            state[ours + "actnorm.bias"] = weights.vector(theirs + "actnorm.loc")
            state[ours + "actnorm.logs"] = torch.log(scale.abs()) / LOG_SCALE
            state[ours + "mix.weight"] = matrix * scale.sign()
            net = ours + "coupling.net."
            for number, layer in ((1, 0), (2, 2)):
                weight = weights.take(f"{theirs}coupling.net.{layer}.weight")
                border = weight.new_zeros(weight.shape[0], 1, 3, 3)
                state[f"{net}weight{number}"] = torch.cat([weight, border], dim=1) if number == 1 else weight
                state[f"{net}norm{number}.bias"] = weights.vector(f"{theirs}coupling.net.{layer}.bias")
                state[f"{net}norm{number}.logs"] = weight.new_zeros(weight.shape[0])
            conv3 = zero_conv(f"{theirs}coupling.net.4.", "conv.", "scale")
            width = len(state[net + "norm1.bias"])
            affine = len(conv3["bias"]) == len(scale)
            state |= {f"{net}conv3.{name}": _interleave(value, 1, 0) if affine else value for name, value in conv3.items()}
        widths.append(width)
        prior = zero_conv(f"blocks.{level}.prior.", "conv.", "scale")
        if level < len(levels) - 1:
            state |= {f"levels.{level}.prior.conv.{name}": _interleave(value, 0, 1) for name, value in prior.items()}
        else:  # a convolution of zeros: only its border acts
            state |= {f"top_prior.{name}": prior[name] for name in ("bias", "logs")}
            state["top_prior.border_weight"] = prior["weight"][:, -1:]
    coupling = "affine" if affine else "additive"
    flow = _make(weights, resolution, steps, widths, coupling=coupling, bits=bits, border=True, channels=_channels(state))
    return weights.finish(flow, state)


@dataclass(frozen=True)
class Layout:
    """How an implementation whose layers are numbered through names its weights, and the middle of its pixels' range."""

    net: str
    conv: str
    learn_top: str
    lower: str
    upper: str
    resolution: int
    center: float


CHAIYUJIN = Layout(net="f", conv="", learn_top="learn_top.", lower="l", upper="u", resolution=64, center=0.5)
Y0AST = Layout(net="block", conv="conv.", learn_top="learn_top_fn.", lower="lower", upper="upper", resolution=32, center=0.0)


def layers(weights: Weights, resolution: int | None, bits: int, layout: Layout) -> Glow:
    """Log-scales of ActNorms without the factor 3; zero convolutions as ours; pixels in [0, 1] or [-1/2, 1/2]."""
    hidden = _condition(weights)
    state: State = {}
    steps, widths = [0], [1]
    affine = False
    for layer in weights.indices(r"flow\.layers\.(\d+)\."):
        theirs, level = f"flow.layers.{layer}.", len(steps) - 1
        if f"{theirs}conv.{layout.conv}weight" in weights.weights:
            prior = _zero_conv(weights, theirs + "conv.", layout.conv)
            state |= {f"levels.{level}.prior.conv.{name}": value for name, value in prior.items()}
            steps.append(0)
            widths.append(1)
            continue
        step = _step(weights, theirs, layout, layout.center if steps == [0] else 0.0)
        state |= {f"levels.{level}.steps.{steps[-1]}.{name}": value for name, value in step.items()}
        widths[-1] = len(step["coupling.net.norm1.bias"])
        affine = len(step["coupling.net.conv3.bias"]) == len(step["actnorm.bias"])
        steps[-1] += 1
    learn_top = layout.learn_top + "logs" in weights.weights
    if learn_top:
        top = _zero_conv(weights, layout.learn_top, layout.conv)
        state |= {f"top_prior.{name}": top[name] for name in ("bias", "logs")}
    if hidden is not None and resolution is None:
        resolution = int(hidden.shape[-1]) * 2 ** len(steps)
    flow = _make(
        weights,
        resolution or layout.resolution,
        steps,
        widths,
        coupling="affine" if affine else "additive",
        bits=bits,
        border=False,
        learn_top=learn_top,
        channels=_channels(state),
    )
    return weights.finish(flow, state)


def _condition(weights: Weights) -> Tensor | None:
    """What the last prior starts from, taken out of the weights: zeros, or None if it is not kept.

    Raises:
        UnsupportedCheckpoint: for a flow that depends on something.
    """
    for name in weights.weights:
        if name.startswith(("project_", "classifier")):
            raise UnsupportedCheckpoint(f"{weights.path} is a flow that depends on class labels ({name}), which ours does not")
    hidden = weights.weights.pop("prior_h", None)
    if hidden is not None and hidden.any():
        raise UnsupportedCheckpoint(f"{weights.path}: its last prior starts from values that are not 0 (prior_h)")
    return hidden


def _zero_conv(weights: Weights, prefix: str, conv: str) -> State:
    return {
        "weight": weights.take(f"{prefix}{conv}weight"),
        "bias": weights.vector(f"{prefix}{conv}bias"),
        "logs": weights.vector(prefix + "logs"),
    }


def _step(weights: Weights, theirs: str, layout: Layout, center: float) -> State:
    """One step of flow, by our names; `center` of the first layer's range becomes 0."""
    state = {
        "actnorm.bias": weights.vector(theirs + "actnorm.bias") + center,
        "actnorm.logs": weights.vector(theirs + "actnorm.logs") / LOG_SCALE,
        "mix.weight": weights.matrix(theirs + "invconv.", layout.lower, layout.upper, "log_s", "p"),
    }
    net = "coupling.net."
    for number, index in ((1, 0), (2, 2)):
        inner = f"{theirs}{layout.net}.{index}."
        state[f"{net}weight{number}"] = weights.take(f"{inner}{layout.conv}weight")
        state[f"{net}norm{number}.bias"] = weights.vector(inner + "actnorm.bias")
        state[f"{net}norm{number}.logs"] = weights.vector(inner + "actnorm.logs") / LOG_SCALE
    conv3 = _zero_conv(weights, f"{theirs}{layout.net}.4.", layout.conv)
    return state | {f"{net}conv3.{name}": value for name, value in conv3.items()}


def _channels(state: State) -> int:
    """The number of channels of the images."""
    matrix = state.get("levels.0.steps.0.mix.weight")
    return 3 if matrix is None else len(matrix) // 4
