"""TensorFlow's operations, as far as Glow's graphs use them, in torch. Images are NHWC, as in the graphs.

An operation takes the node's attributes and its inputs: tensors, or plain numbers and lists for what describes shapes. Tensors that
don't depend on the latents have batch size 1 and broadcast, also where TensorFlow would ask for equal sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from splits.errors import InputError

Attributes = Mapping[str, Any]
Operation = Callable[..., Tensor]

TORCH_DTYPES = {
    "<f4": torch.float32,
    "<f8": torch.float64,
    "<f2": torch.float16,
    "<i4": torch.int32,
    "<i8": torch.int64,
    "|u1": torch.uint8,
    "|b1": torch.bool,
}


def ints(value: Any) -> list[int]:
    """A shape, axes or the like as whole numbers."""
    if isinstance(value, Tensor):
        value = value.tolist()
    return [int(number) for number in value] if isinstance(value, list | tuple) else [int(value)]


def tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value)


def _dtype(name: str) -> torch.dtype:
    if name not in TORCH_DTYPES:
        raise InputError(f"unsupported number type ({name})")
    return TORCH_DTYPES[name]


def _elementwise(function: Callable[..., Tensor]) -> Operation:
    return lambda attributes, *inputs: function(*inputs)


def _conv2d(attributes: Attributes, x: Tensor, kernel: Tensor) -> Tensor:
    same = attributes["padding"] == "SAME"
    height, width = kernel.shape[:2]
    strides, dilations = attributes.get("strides", [1] * 4), attributes.get("dilations") or [1] * 4
    if attributes.get("data_format", "NHWC") != "NHWC" or [*strides, *dilations] != [1] * 8:
        raise InputError("only NHWC convolutions of stride and dilation 1 are supported")
    if attributes["padding"] not in ("SAME", "VALID") or (same and (height % 2 == 0 or width % 2 == 0)):
        raise InputError(f"unsupported padding {attributes['padding']} of a {height}x{width} convolution")
    padding = (height // 2, width // 2) if same else (0, 0)
    return F.conv2d(x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), padding=padding).permute(0, 2, 3, 1)


def _concat(attributes: Attributes, *inputs: Any) -> Tensor:
    axis = ints(inputs[-1])[0]
    parts = [tensor(part) for part in inputs[:-1]]
    if parts[0].ndim > 1 and axis % parts[0].ndim:
        batch = max(part.shape[0] for part in parts)
        parts = [part.expand(batch, *part.shape[1:]) for part in parts]
    return torch.cat(parts, dim=axis)


def slices(attributes: Attributes, begin: Any, end: Any, strides: Any) -> tuple[Any, ...]:
    """The index that a StridedSlice takes."""
    index: list[Any] = []
    for i, (first, last, step) in enumerate(zip(ints(begin), ints(end), ints(strides), strict=True)):
        if attributes.get("ellipsis_mask", 0) >> i & 1:
            index.append(Ellipsis)
        elif attributes.get("new_axis_mask", 0) >> i & 1:
            index.append(None)
        elif attributes.get("shrink_axis_mask", 0) >> i & 1:
            index.append(first)
        else:
            open_begin, open_end = (attributes.get(mask, 0) >> i & 1 for mask in ("begin_mask", "end_mask"))
            index.append(slice(None if open_begin else first, None if open_end else last, step))
    return tuple(index)


def _pad(attributes: Attributes, x: Tensor, paddings: Any) -> Tensor:
    rows = paddings.tolist() if isinstance(paddings, Tensor) else paddings
    return F.pad(x, [int(number) for row in reversed(rows) for number in row])


def _one_hot(attributes: Attributes, indices: Any, depth: Any, on: Any, off: Any) -> Tensor:
    if attributes.get("axis", -1) != -1:
        raise InputError("OneHot is supported on the last axis only")
    hit = tensor(indices)[..., None] == torch.arange(ints(depth)[0])
    return torch.where(hit, tensor(on), tensor(off))


def _sum(attributes: Attributes, x: Tensor, axes: Any) -> Tensor:
    axes = ints(axes)
    return tensor(x).sum(dim=axes, keepdim=attributes.get("keep_dims", False)) if axes else tensor(x)


def _matmul(attributes: Attributes, a: Tensor, b: Tensor) -> Tensor:
    a = a.mT if attributes.get("transpose_a") else a
    return a @ (b.mT if attributes.get("transpose_b") else b)


OPERATIONS: dict[str, Operation] = {
    "Abs": _elementwise(torch.abs),
    "Add": _elementwise(lambda a, b: a + b),
    "AddV2": _elementwise(lambda a, b: a + b),
    "Cast": lambda attributes, x: tensor(x).to(_dtype(attributes["DstT"])),
    "ConcatV2": _concat,
    "Conv2D": _conv2d,
    "Exp": _elementwise(torch.exp),
    "Fill": lambda attributes, shape, value: torch.full(ints(shape), tensor(value).item(), dtype=tensor(value).dtype),
    "Floor": _elementwise(torch.floor),
    "Identity": _elementwise(lambda x: x),
    "Log": _elementwise(torch.log),
    "MatMul": _matmul,
    "MatrixDeterminant": _elementwise(lambda x: torch.linalg.det(x.double()).to(x.dtype)),
    "MatrixInverse": _elementwise(lambda x: torch.linalg.inv(x.double()).to(x.dtype)),
    "Maximum": _elementwise(lambda a, b: a.clamp(min=b) if isinstance(a, Tensor) else b.clamp(min=a)),
    "Minimum": _elementwise(lambda a, b: a.clamp(max=b) if isinstance(a, Tensor) else b.clamp(max=a)),
    "Mul": _elementwise(lambda a, b: a * b),
    "Neg": _elementwise(lambda x: -x),
    "OneHot": _one_hot,
    "Pack": lambda attributes, *parts: torch.stack([tensor(part) for part in parts], dim=attributes.get("axis", 0)),
    "Pad": _pad,
    "Pow": _elementwise(lambda a, b: a**b),
    "RandomUniform": lambda attributes, shape: torch.full(ints(shape), 0.5),  # its mean: decoding draws nothing of its own
    "RealDiv": _elementwise(lambda a, b: a / b),
    "Relu": _elementwise(torch.relu),
    "Reshape": lambda attributes, x, shape: tensor(x).reshape(ints(shape)),
    "Shape": lambda attributes, x: torch.tensor(tensor(x).shape, dtype=torch.int32),
    "Sigmoid": _elementwise(torch.sigmoid),
    "StridedSlice": lambda attributes, x, *where: tensor(x)[slices(attributes, *where)],
    "Sub": _elementwise(lambda a, b: a - b),
    "Sum": _sum,
    "Tile": lambda attributes, x, multiples: tensor(x).repeat(ints(multiples)),
    "Transpose": lambda attributes, x, axes: tensor(x).permute(ints(axes)),
}
