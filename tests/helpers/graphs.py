"""Write frozen graphs of a Glow's decoder: a small protobuf writer, and the original code's patterns of nodes.

For graphs with something wrong or unusual in them. That graphs of the original code itself are understood is tested on files that it
wrote (test_tf_graphs.py).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from celebglow.glow import Glow
from celebglow.layers import CouplingNet, ZeroConv

TYPES = {"float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int64": 9, "bool": 10, "float16": 19}


def varint(value: int) -> bytes:
    value %= 2**64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def entry(number: int, value: int | bytes | str) -> bytes:
    """One field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def shape_message(shape: Sequence[int]) -> bytes:
    return b"".join(entry(2, entry(1, size)) for size in shape)


def tensor_message(array: np.ndarray) -> bytes:
    return (
        entry(1, TYPES[array.dtype.name]) + entry(2, shape_message(array.shape)) + entry(4, np.ascontiguousarray(array).tobytes())
    )


def attribute(value: Any) -> bytes:
    if isinstance(value, np.ndarray):
        return entry(8, tensor_message(value))
    if isinstance(value, np.dtype):
        return entry(6, TYPES[value.name])
    if isinstance(value, bool):
        return entry(5, int(value))
    if isinstance(value, int):
        return entry(3, value)
    if isinstance(value, float):
        return varint(4 << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, tuple):
        return entry(7, shape_message(value))
    if isinstance(value, list):
        return entry(1, entry(3, b"".join(varint(number) for number in value)))
    return entry(2, value)


class GraphWriter:
    """Nodes in the order in which they are added; constants by value."""

    def __init__(self) -> None:
        self.nodes: list[bytes] = []
        self.names: set[str] = set()

    def add(self, op: str, *inputs: Any, name: str = "", **attributes: Any) -> str:
        sources = [source if isinstance(source, str) else self.const(source) for source in inputs]
        name = self.unique(name or op)
        data = entry(1, name) + entry(2, op) + b"".join(entry(3, source) for source in sources)
        for key, value in attributes.items():
            data += entry(5, entry(1, key) + entry(2, attribute(value)))
        self.nodes.append(entry(1, data))
        return name

    def const(self, value: Any, name: str = "Const") -> str:
        array = np.asarray(value)
        array = array.astype({"float64": "float32", "int64": "int32"}.get(array.dtype.name, array.dtype.name))
        return self.add("Const", name=name, value=array, dtype=array.dtype)

    def unique(self, name: str) -> str:
        candidate, number = name, 0
        while candidate in self.names:
            number += 1
            candidate = f"{name}_{number}"
        self.names.add(candidate)
        return candidate

    def save(self, path: Path) -> Path:
        path.write_bytes(b"".join(self.nodes))
        return path


def nhwc(kernel: Tensor) -> np.ndarray:
    return kernel.detach().float().permute(2, 3, 1, 0).numpy()


class GlowGraph(GraphWriter):
    """The decoder of a flow. `folded`: constants evaluated, as TensorFlow's optimizer does; `conditioned`: with the extra
    low-resolution image as an input to the first level, weighted by `condition_weight`."""

    def __init__(
        self, flow: Glow, folded: bool = False, conditioned: bool = False, shapes: bool = True, condition_weight: float = 0.3
    ) -> None:
        super().__init__()
        self.flow, self.folded, self.condition_weight = flow, folded, condition_weight
        self.latents = [
            self.add("Placeholder", name="Placeholder", dtype=np.dtype("float32"), **({"shape": (-1, h, w, c)} if shapes else {}))
            for c, h, w in flow.latent_shapes
        ]
        label = self.add("Placeholder", name="input/label", dtype=np.dtype("int32"), shape=(-1,))
        self.condition = self._condition() if conditioned else None
        x = self._top(label)
        levels = flow.each_level()
        for index in range(len(levels) - 1, -1, -1):
            _, side, _ = flow.latent_shapes[index]
            channels = flow.latent_shapes[index][0] * (1 if levels[index].prior is None else 2)
            if (prior := levels[index].prior) is not None:
                h = self._zero_conv(prior.conv, x, side)
                mean, logs = self._slice(h, 0, 0, 2), self._slice(h, 1, 0, 2)
                z2 = self.add("AddV2", mean, self.add("Mul", self.add("Exp", logs), self.latents[index]))
                x = self.add("ConcatV2", x, z2, 3)
            for step in reversed(list(levels[index])):
                x = self._step(step, x, side, channels)
            x = self.add("Reshape", x, [-1, side, side, channels // 4, 2, 2])
            x = self.add("Transpose", x, [0, 1, 4, 2, 5, 3])
            x = self.add("Reshape", x, [-1, 2 * side, 2 * side, channels // 4])
        bins = float(flow.bins)
        x = self.add("Floor", self.add("Mul", self.add("AddV2", x, 0.5), bins))
        x = self.add("Maximum", self.add("Minimum", self.add("Mul", x, 256 / bins), 255.0), 0.0)
        self.add("Cast", x, name="model_1/Cast_1", SrcT=np.dtype("float32"), DstT=np.dtype("uint8"))

    def _slice(self, x: str, begin: int, end: int, step: int = 1) -> str:
        ends = [0, 0, 0, begin], [0, 0, 0, end], [1, 1, 1, step]
        return self.add("StridedSlice", x, *ends, begin_mask=7, end_mask=7 if end else 15)

    def _condition(self) -> str:
        _, side, _ = self.flow.latent_shapes[0]
        image = self.add("Placeholder", name="input/downsampled_image", dtype=np.dtype("uint8"), shape=(-1, side, side, 3))
        x = self.add("Cast", image, SrcT=np.dtype("uint8"), DstT=np.dtype("float32"))
        x = self.add("Floor", self.add("RealDiv", x, 8.0))
        return self.add("Sub", self.add("RealDiv", x, 32.0), 0.5)

    def _batch(self, x: str) -> str:
        return self.add("StridedSlice", self.add("Shape", x), [0], [1], [1], shrink_axis_mask=1)

    def _padded_conv(self, x: str, kernel: Tensor, side: int, inputs: int) -> str:
        array = nhwc(kernel)
        x = self.add("Pad", x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        if array.shape[2] > inputs:
            ring = np.ones((1, side + 2, side + 2, 1), np.float32)
            ring[:, 1:-1, 1:-1] = 0
            parts = [x, self.add("Tile", ring, self.add("Pack", self._batch(x), 1, 1, 1, axis=0))]
            if self.condition is not None and side == self.flow.latent_shapes[0][1]:
                parts.append(self.add("Pad", self.condition, [[0, 0], [1, 1], [1, 1], [0, 0]]))
                array = np.concatenate([array, np.full((3, 3, 3, array.shape[3]), self.condition_weight, np.float32)], axis=2)
            x = self.add("ConcatV2", *parts, 3)
        return self._conv(x, array, "VALID")

    def _conv(self, x: str, array: np.ndarray, padding: str) -> str:
        kernel = self.const(array, "W/read/_17__cf__17") if self.folded else self.add("Identity", array, name="W/read")
        return self.add("Conv2D", x, kernel, strides=[1, 1, 1, 1], padding=padding, data_format="NHWC", use_cudnn_on_gpu=True)

    def _affine(self, x: str, bias: Tensor, logs: Tensor) -> str:
        x = self.add("AddV2", x, self.add("Identity", bias.detach().float().numpy().reshape(1, 1, 1, -1)))
        return self.add("Mul", x, self._exp(logs))

    def _exp(self, logs: Tensor, sign: float = 1.0) -> str:
        array = logs.detach().float().numpy().reshape(1, 1, 1, -1)
        if self.folded:
            return self.const(np.exp(sign * 3 * array), "Exp/_99__cf__99")
        scaled = self.add("Mul", array, 3.0)
        return self.add("Exp", self.add("Neg", scaled) if sign < 0 else scaled)

    def _zero_conv(self, conv: ZeroConv, x: str, side: int) -> str:
        inputs = conv.weight.shape[1] - self.flow.config.border
        return self._affine(self._padded_conv(x, conv.weight, side, inputs), conv.bias, conv.logs)

    def _net(self, net: CouplingNet, x: str, side: int) -> str:
        h = self._padded_conv(x, net.weight1, side, net.weight1.shape[1] - self.flow.config.border)
        h = self.add("Relu", self._affine(h, net.norm1.bias, net.norm1.logs))
        h = self.add("Relu", self._affine(self._conv(h, nhwc(net.weight2), "VALID"), net.norm2.bias, net.norm2.logs))
        return self._zero_conv(net.conv3, h, side)

    def _step(self, step: Any, z: str, side: int, channels: int) -> str:
        z1, z2 = self._slice(z, 0, channels // 2), self._slice(z, channels // 2, 0)
        h = self._net(step.coupling.net, z1, side)
        if self.flow.config.coupling == "affine":
            shift, scale = self._slice(h, 0, 0, 2), self._slice(h, 1, 0, 2)
            z2 = self.add("Sub", self.add("RealDiv", z2, self.add("Sigmoid", self.add("AddV2", scale, 2.0))), shift)
        else:
            z2 = self.add("Sub", z2, h)
        x = self.add("ConcatV2", z1, z2, 3)
        matrix = step.mix.weight.detach().float().numpy().T
        if self.folded:
            kernel = np.linalg.inv(matrix.astype(np.float64)).astype(np.float32).reshape(1, 1, channels, channels)
            x = self._conv(x, kernel, "SAME")
        else:
            inverse = self.add("Reshape", self.add("MatrixInverse", self.add("Identity", matrix)), [1, 1, channels, channels])
            x = self.add("Conv2D", x, inverse, strides=[1, 1, 1, 1], padding="SAME", data_format="NHWC")
        x = self.add("Mul", x, self._exp(step.actnorm.logs, -1.0))
        return self.add("Sub", x, self.add("Identity", step.actnorm.bias.detach().float().numpy().reshape(1, 1, 1, -1)))

    def _top(self, label: str) -> str:
        channels, side, _ = self.flow.latent_shapes[-1]
        hot = self.add("OneHot", label, 1, 1.0, 0.0, axis=-1)
        h = self.add("Fill", self.add("Pack", self._batch(hot), side, side, 2 * channels), 0.0)
        top = self.flow.top_prior
        if top is not None:
            kernel = top.bias.new_zeros(2 * channels, 2 * channels + self.flow.config.border, 3, 3)
            if top.border_weight is not None:
                kernel[:, -1:] = top.border_weight.detach()
            condition, self.condition = self.condition, None
            h = self._affine(self._padded_conv(h, kernel, side, 2 * channels), top.bias, top.logs)
            self.condition = condition
        mean, logs = self._slice(h, 0, channels), self._slice(h, channels, 0)
        return self.add("AddV2", mean, self.add("Mul", self.add("Exp", logs), self.latents[-1]))
