"""Those of TensorFlow's operations that move a window over images: convolutions, pooling, resizing, blocks. Images are NHWC.

`convolve`, last, is ours: what `celebglow.convert.graph_simplify` makes of a convolution and the constants around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from celebglow.layers import spread
from splits.errors import InputError

Attributes = Mapping[str, Any]
Window = tuple[int, int]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"Relu": F.relu, "Relu6": F.relu6, "Elu": F.elu}


def nchw(x: Tensor) -> Tensor:
    """(B, H, W, C) as (B, C, H, W): the same memory, channels last."""
    return x.permute(0, 3, 1, 2)


def nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1)


def _list(value: Any) -> list[int]:
    return [int(number) for number in (value.tolist() if isinstance(value, Tensor) else value)]


def _is_nchw(attributes: Attributes) -> bool:
    layout = attributes.get("data_format") or "NHWC"
    if layout not in ("NHWC", "NCHW"):
        raise InputError(f"the layout {layout} is not supported")
    return bool(layout == "NCHW")


def _pair(attributes: Attributes, name: str) -> Window:
    """The numbers of height and width of an attribute that has one per axis."""
    values = attributes.get(name) or [1, 1, 1, 1]
    axes = (2, 3) if _is_nchw(attributes) else (1, 2)
    if any(value != 1 for axis, value in enumerate(values) if axis not in axes):
        raise InputError(f"{name} {values} reach over the batch or the channels")
    return values[axes[0]], values[axes[1]]


def _edges(attributes: Attributes, sides: Window, window: Window, strides: Window) -> list[int]:
    """The padding as torch wants it, (left, right, top, bottom), of windows with their dilation counted."""
    padding = attributes["padding"]
    if padding == "VALID":
        return [0, 0, 0, 0]
    if padding == "EXPLICIT":
        given = attributes["explicit_paddings"]
        first = 4 if _is_nchw(attributes) else 2
        return [*given[first + 2 : first + 4], *given[first : first + 2]]
    if padding != "SAME":
        raise InputError(f"unsupported padding {padding}")
    edges: list[int] = []
    for side, size, stride in zip(reversed(sides), reversed(window), reversed(strides), strict=True):
        total = max((-(-side // stride) - 1) * stride + size - side, 0)
        edges += [total // 2, total - total // 2]
    return edges


def _conv2d(attributes: Attributes, x: Tensor, kernel: Tensor) -> Tensor:
    return _convolve2d(attributes, x, kernel.permute(3, 2, 0, 1), groups=1)


def _depthwise(attributes: Attributes, x: Tensor, kernel: Tensor) -> Tensor:
    """Kernel (h, w, C, M): M filters for each channel on its own."""
    height, width, channels, _ = kernel.shape
    return _convolve2d(attributes, x, kernel.permute(2, 3, 0, 1).reshape(-1, 1, height, width), groups=channels)


def _convolve2d(attributes: Attributes, x: Tensor, weight: Tensor, groups: int) -> Tensor:
    strides, dilations = _pair(attributes, "strides"), _pair(attributes, "dilations")
    x = x if _is_nchw(attributes) else nchw(x)
    window = tuple((size - 1) * dilation + 1 for size, dilation in zip(weight.shape[2:], dilations, strict=True))
    left, right, top, bottom = _edges(attributes, (x.shape[2], x.shape[3]), (window[0], window[1]), strides)
    padding = (top, left)
    if (left, top) != (right, bottom):
        x, padding = F.pad(x, (left, right, top, bottom)), (0, 0)
    x = F.conv2d(x, weight, None, strides, padding, dilations, groups)
    return x if _is_nchw(attributes) else nhwc(x)


def _conv2d_backwards(attributes: Attributes, sizes: Any, kernel: Tensor, y: Tensor) -> Tensor:
    """`Conv2DBackpropInput`: a transposed convolution to images of the given sizes."""
    strides = _pair(attributes, "strides")
    if _pair(attributes, "dilations") != (1, 1):
        raise InputError("a transposed convolution with dilation is not supported")
    sides = _list(sizes)[2:4] if _is_nchw(attributes) else _list(sizes)[1:3]
    y = y if _is_nchw(attributes) else nchw(y)
    left, _, top, _ = _edges(attributes, (sides[0], sides[1]), (kernel.shape[0], kernel.shape[1]), strides)
    x = F.conv_transpose2d(y, kernel.permute(3, 2, 0, 1), stride=strides)
    short = [max(0, start + side - have) for start, side, have in zip((top, left), sides, x.shape[2:], strict=True)]
    x = F.pad(x, (0, short[1], 0, short[0]))[:, :, top : top + sides[0], left : left + sides[1]]
    return x if _is_nchw(attributes) else nhwc(x)


def _fused_conv2d(attributes: Attributes, x: Tensor, kernel: Tensor, *arguments: Tensor) -> Tensor:
    """`_FusedConv2D`, by TensorFlow's later optimizers: a convolution, then what `fused_ops` lists."""
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in attributes.get("fused_ops", [])]
    if not set(names) <= {"BiasAdd", *ACTIVATIONS} or _is_nchw(attributes):
        raise InputError(f"the fused operations {', '.join(names)} are not supported")
    x = _conv2d(attributes, x, kernel)
    for name in names:
        x = x + arguments[0] if name == "BiasAdd" else ACTIVATIONS[name](x)
    return x


def _mirror_pad(attributes: Attributes, x: Tensor, paddings: Any) -> Tensor:
    rows = paddings.tolist() if isinstance(paddings, Tensor) else paddings
    repeated = attributes.get("mode", "REFLECT") == "SYMMETRIC"
    for axis, (before, after) in enumerate(rows):
        if before or after:
            size = x.shape[axis]
            line = list(range(size))
            start = line[:before] if repeated else line[1 : before + 1]
            end = line[size - after :] if repeated else line[size - 1 - after : size - 1]
            x = x.index_select(axis, torch.tensor([*reversed(start), *line, *reversed(end)], device=x.device))
    return x


def _fused_pad_conv2d(attributes: Attributes, x: Tensor, paddings: Any, kernel: Tensor) -> Tensor:
    return _conv2d(attributes, _mirror_pad(attributes, x, paddings), kernel)


def _fused_resize_pad_conv2d(attributes: Attributes, x: Tensor, size: Any, paddings: Any, kernel: Tensor) -> Tensor:
    resized = _resize_bilinear({"align_corners": attributes.get("resize_align_corners", False)}, x, size)
    return _fused_pad_conv2d(attributes, resized, paddings, kernel)


def _pool(function: Callable[[Tensor], Tensor], outside: float, average: bool) -> Callable[..., Tensor]:
    def pool(attributes: Attributes, x: Tensor) -> Tensor:
        window, strides = _pair(attributes, "ksize"), _pair(attributes, "strides")
        x = x if _is_nchw(attributes) else nchw(x)
        edges = _edges(attributes, (x.shape[2], x.shape[3]), window, strides)
        count = float(math.prod(window))
        pooled = function(_windows(F.pad(x, edges, value=outside), window, strides))
        if average:  # pixels outside don't count
            inside = F.pad(torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device), edges)
            pooled = pooled / _windows(inside, window, strides).sum((4, 5)) if any(edges) else pooled / count
        return pooled if _is_nchw(attributes) else nhwc(pooled)

    return pool


def _windows(x: Tensor, window: Window, strides: Window) -> Tensor:
    """(B, C, H, W) as (B, C, H', W', h, w)."""
    return x.unfold(2, window[0], strides[0]).unfold(3, window[1], strides[1])


def _batch_norm(
    attributes: Attributes, x: Tensor, scale: Any, offset: Any, mean: Any, variance: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise by the statistics that were learned; those of a batch would mix its images."""
    if attributes.get("is_training", True):
        raise InputError("a batch norm that takes the batch's statistics is not supported")
    scale, offset, mean, variance = (
        torch.as_tensor(each, dtype=x.dtype, device=x.device) for each in (scale, offset, mean, variance)
    )
    factor = scale * torch.rsqrt(variance + attributes.get("epsilon", 1e-4))
    shift = offset - mean * factor
    shape = (-1, 1, 1) if _is_nchw(attributes) else (-1,)
    return x * factor.reshape(shape) + shift.reshape(shape), mean, variance


# Resizing


def _resize_nearest(attributes: Attributes, x: Tensor, size: Any) -> Tensor:
    for axis, side in zip((1, 2), _list(size), strict=True):
        where = _positions(attributes, x.shape[axis], side)
        index = (where + 0.5).floor() if attributes.get("align_corners") else where.floor()
        x = x.index_select(axis, index.long().clamp(max=x.shape[axis] - 1).to(x.device))
    return x


def _resize_bilinear(attributes: Attributes, x: Tensor, size: Any) -> Tensor:
    for axis, side in zip((1, 2), _list(size), strict=True):
        where = _positions(attributes, x.shape[axis], side)
        if attributes.get("half_pixel_centers"):
            where = (where - 0.5).clamp(min=0)
        low = where.floor().long().clamp(max=x.shape[axis] - 1)
        high = (low + 1).clamp(max=x.shape[axis] - 1)
        part = (where - low).float().reshape(-1, *[1] * (3 - axis)).to(x.device)
        first, second = (x.index_select(axis, index.to(x.device)).float() for index in (low, high))
        x = first + (second - first) * part
    return x


def _positions(attributes: Attributes, inputs: int, outputs: int) -> Tensor:
    """The places where each output pixel lies among the inputs; float32 steps, as in TensorFlow's kernels."""
    pixels = torch.arange(outputs, dtype=torch.float32)
    if attributes.get("align_corners") and outputs > 1:
        return pixels * torch.tensor((inputs - 1) / (outputs - 1), dtype=torch.float32)
    scale = torch.tensor(inputs / outputs, dtype=torch.float32)
    return (pixels + 0.5) * scale if attributes.get("half_pixel_centers") else pixels * scale


# Blocks


def _space_to_depth(attributes: Attributes, x: Tensor) -> Tensor:
    block = attributes["block_size"]
    _, height, width, channels = x.shape
    x = x.reshape(-1, height // block, block, width // block, block, channels).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, height // block, width // block, block * block * channels)


def _depth_to_space(attributes: Attributes, x: Tensor) -> Tensor:
    block = attributes["block_size"]
    _, height, width, channels = x.shape
    x = x.reshape(-1, height, width, block, block, channels // block**2).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, height * block, width * block, channels // block**2)


def _space_to_batch(attributes: Attributes, x: Tensor, block: Any, paddings: Any) -> Tensor:
    """Make batches of pixels, as dilated convolutions are written; `block` for two axes."""
    (rows, columns), edges = _list(block), paddings.tolist() if isinstance(paddings, Tensor) else paddings
    x = F.pad(x, (0, 0, *map(int, edges[1]), *map(int, edges[0])))
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // rows, rows, width // columns, columns, channels).permute(2, 4, 0, 1, 3, 5)
    return x.reshape(-1, height // rows, width // columns, channels)


def _batch_to_space(attributes: Attributes, x: Tensor, block: Any, crops: Any) -> Tensor:
    (rows, columns), cut = _list(block), crops.tolist() if isinstance(crops, Tensor) else crops
    batch, height, width, channels = x.shape
    x = x.reshape(rows, columns, batch // (rows * columns), height, width, channels).permute(2, 3, 0, 4, 1, 5)
    x = x.reshape(-1, height * rows, width * columns, channels)
    (top, bottom), (left, right) = (tuple(map(int, each)) for each in cut)
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]


def convolve(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution with "same" zero padding and all that was constant around it.

    Args:
        attributes: `relu`: whether a ReLU follows.
        x: (B, H, W, I).
        weight: (O, I, h, w).
        bias: (O,), or a map (O, h', w') that is `spread` over the image.
    """
    padding = (weight.shape[2] // 2, weight.shape[3] // 2)
    h = F.conv2d(nchw(x), weight, bias if bias.ndim == 1 else None, padding=padding)
    if bias.ndim > 1:
        h = h.add_(spread(bias, h.shape[2], h.shape[3]))
    return nhwc(F.relu_(h) if attributes.get("relu") else h)


SPATIAL: dict[str, Callable[..., Any]] = {
    "AvgPool": _pool(lambda x: x.sum((4, 5)), 0.0, True),
    "BatchToSpaceND": _batch_to_space,
    "Conv2D": _conv2d,
    "Conv2DBackpropInput": _conv2d_backwards,
    "Convolve": convolve,
    "DepthToSpace": _depth_to_space,
    "DepthwiseConv2dNative": _depthwise,
    "FusedBatchNorm": _batch_norm,
    "FusedBatchNormV2": _batch_norm,
    "FusedBatchNormV3": _batch_norm,
    "FusedPadConv2D": _fused_pad_conv2d,
    "FusedResizeAndPadConv2D": _fused_resize_pad_conv2d,
    "MaxPool": _pool(lambda x: x.amax((4, 5)), float("-inf"), False),
    "MirrorPad": _mirror_pad,
    "ResizeBilinear": _resize_bilinear,
    "ResizeNearestNeighbor": _resize_nearest,
    "SpaceToBatchND": _space_to_batch,
    "SpaceToDepth": _space_to_depth,
    "_FusedConv2D": _fused_conv2d,
}
