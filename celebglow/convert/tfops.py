"""TensorFlow 1's operations, as far as graphs of image flows use them, in torch. Images are NHWC, as in the graphs.

An operation takes the node's attributes and its inputs: tensors, or plain numbers and lists for what describes shapes. It returns a
tensor, or a tuple of them where the operation has several outputs. Tensors that don't depend on the latents have batch size 1 and
broadcast, also where TensorFlow would ask for equal sizes. Here are shapes, sums and matrices, and the table of all operations; what
goes element by element is in `celebglow.convert.tfops_elementwise`, what moves a window over images in `celebglow.convert.tfops_spatial`.

Every operation is tested against values that TensorFlow 1.8 computed (`tests/golden/tf_operations.npz`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from celebglow.convert.tfops_elementwise import ELEMENTWISE, elementwise
from celebglow.convert.tfops_spatial import SPATIAL
from celebglow.convert.tfops_values import Attributes, Operation, dtype, ints, tensor

# Shapes


def _concat(attributes: Attributes, *inputs: Any) -> Tensor:
    axis = ints(inputs[-1])[0]
    parts = [tensor(part) for part in inputs[:-1]]
    if parts[0].ndim > 1 and axis % parts[0].ndim:
        batch = max(part.shape[0] for part in parts)
        parts = [part.expand(batch, *part.shape[1:]) for part in parts]
    return torch.cat(parts, dim=axis)


def _pack(attributes: Attributes, *inputs: Any) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*map(tensor, inputs)), dim=attributes.get("axis", 0))


def _unpack(attributes: Attributes, x: Any) -> tuple[Tensor, ...]:
    return tensor(x).unbind(attributes.get("axis", 0))


def _split(attributes: Attributes, axis: Any, x: Any) -> tuple[Tensor, ...]:
    axis, x = ints(axis)[0], tensor(x)
    return x.split(x.shape[axis] // attributes["num_split"], dim=axis)


def _split_v(attributes: Attributes, x: Any, sizes: Any, axis: Any) -> tuple[Tensor, ...]:
    axis, x, sizes = ints(axis)[0], tensor(x), ints(sizes)
    return x.split([size if size >= 0 else x.shape[axis] - sum(sizes) - 1 for size in sizes], dim=axis)


def slices(attributes: Attributes, begin: Any, end: Any, strides: Any) -> tuple[Any, ...]:
    """The index that a StridedSlice takes, in Python's terms."""
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


def _strided_slice(attributes: Attributes, x: Any, *where: Any) -> Tensor:
    x = tensor(x)
    index = slices(attributes, *where)
    if not any(isinstance(each, slice) and (each.step or 1) < 0 for each in index):
        return x[index]
    shown = len([each for each in index if each is not None and each is not Ellipsis])
    full: list[Any] = []  # without the ellipsis, so that every entry has its axis
    for each in index:
        full += [slice(None)] * (x.ndim - shown) if each is Ellipsis else [each]
    axis, kept = 0, []
    for each in full:  # torch has no negative steps: those axes are gathered first
        if isinstance(each, slice) and (each.step or 1) < 0:
            x = x.index_select(axis, torch.tensor(list(range(x.shape[axis])[each]), dtype=torch.int64, device=x.device))
            each = slice(None)
        kept.append(each)
        axis += each is not None
    return x[tuple(kept)]


def _slice(attributes: Attributes, x: Any, begin: Any, size: Any) -> Tensor:
    cuts = zip(ints(begin), ints(size), strict=True)
    return tensor(x)[tuple(slice(first, None if count < 0 else first + count) for first, count in cuts)]


def _pad(attributes: Attributes, x: Any, paddings: Any, value: Any = 0) -> Tensor:
    return F.pad(tensor(x), _pad_list(paddings), value=float(tensor(value)))


def _pad_list(paddings: Any) -> list[int]:
    """Torch's order: the last axis first."""
    rows = paddings.tolist() if isinstance(paddings, Tensor) else paddings
    return [int(number) for row in reversed(rows) for number in row]


def _gather(attributes: Attributes, x: Any, indices: Any, axis: Any = 0) -> Tensor:
    x = tensor(x)
    indices, axis = tensor(indices).to(x.device).long(), ints(axis)[0] % x.ndim
    taken = x.index_select(axis, indices.flatten())
    return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _expand_dims(attributes: Attributes, x: Any, axis: Any) -> Tensor:
    return tensor(x).unsqueeze(ints(axis)[0])


def _squeeze(attributes: Attributes, x: Any) -> Tensor:
    x, axes = tensor(x), attributes.get("squeeze_dims") or attributes.get("axis") or []
    return x.squeeze(tuple(axes)) if axes else x.squeeze()


def _one_hot(attributes: Attributes, indices: Any, depth: Any, on: Any, off: Any) -> Tensor:
    hit = tensor(indices)[..., None] == torch.arange(ints(depth)[0])
    hot = torch.where(hit, tensor(on), tensor(off))
    axis = attributes.get("axis", -1)
    return hot if axis == -1 else hot.movedim(-1, axis)


def _diag(attributes: Attributes, x: Any) -> Tensor:
    """`Diag`: of a tensor of any rank, one of twice the rank."""
    x = tensor(x)
    return torch.diag(x.flatten()).reshape(*x.shape, *x.shape)


def _band(attributes: Attributes, x: Any, lower: Any, upper: Any) -> Tensor:
    x, lower, upper = tensor(x), ints(lower)[0], ints(upper)[0]
    x = x if upper < 0 else x.tril(upper)
    return x if lower < 0 else x.triu(-lower)


def _set_diag(attributes: Attributes, x: Any, diagonal: Any) -> Tensor:
    x, diagonal = tensor(x), tensor(diagonal)
    return x - torch.diag_embed(torch.diagonal(x, dim1=-2, dim2=-1)) + torch.diag_embed(diagonal)


# Sums and matrices


def _reduction(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Operation:
    def reduce(attributes: Attributes, x: Any, axes: Any) -> Tensor:
        x, axes = tensor(x), tuple(axis % max(tensor(x).ndim, 1) for axis in ints(axes))
        return function(x, axes, bool(attributes.get("keep_dims", False))) if axes and x.ndim else x

    return reduce


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(dim=axis, keepdim=keep)
    return x


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keep)
    count = math.prod(x.shape[axis] for axis in axes)
    return torch.div(x.sum(axes, keep), count, rounding_mode="trunc").to(x.dtype)


def _cumulate(function: Callable[..., Tensor]) -> Operation:
    def cumulate(attributes: Attributes, x: Any, axis: Any) -> Tensor:
        axis, x = ints(axis)[0], tensor(x)
        if attributes.get("reverse"):
            x = x.flip(axis)
        result = function(x, axis)
        if attributes.get("exclusive"):
            first = torch.zeros_like if function is torch.cumsum else torch.ones_like
            edge = result.narrow(axis, 0, 1)
            result = torch.cat([first(edge), result.narrow(axis, 0, result.shape[axis] - 1)], dim=axis)
        return result.flip(axis) if attributes.get("reverse") else result

    return cumulate


def _matmul(attributes: Attributes, a: Any, b: Any) -> Tensor:
    a, b = tensor(a), tensor(b)
    a = a.mT if attributes.get("transpose_a") or attributes.get("adj_x") else a
    return a @ (b.mT if attributes.get("transpose_b") or attributes.get("adj_y") else b)


def _in_double(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Inverses and determinants in double precision, as they are computed once and everything depends on them."""
    return lambda *inputs: function(*(tensor(x).double() for x in inputs)).to(tensor(inputs[0]).dtype)


def _solve_triangular(attributes: Attributes, a: Any, b: Any) -> Tensor:
    a, lower = tensor(a), bool(attributes.get("lower", True))
    if attributes.get("adjoint"):
        a, lower = a.mT, not lower
    return _in_double(lambda a, b: torch.linalg.solve_triangular(a, b, upper=not lower))(a, b)


def _inverse_permutation(attributes: Attributes, x: Any) -> Tensor:
    return torch.argsort(tensor(x)).to(tensor(x).dtype)


def _log_determinant(attributes: Attributes, x: Any) -> tuple[Tensor, Tensor]:
    sign, log_det = torch.linalg.slogdet(tensor(x).double())
    return sign.to(x.dtype), log_det.to(x.dtype)


def _full(attributes: Attributes, shape: Any, value: Any) -> Tensor:
    return torch.full(ints(shape), tensor(value).item(), dtype=tensor(value).dtype)


def _range(attributes: Attributes, start: Any, limit: Any, delta: Any) -> Tensor:
    numbers = [tensor(each).item() for each in (start, limit, delta)]
    return torch.arange(*numbers, dtype=tensor(start).dtype)


def _identity(attributes: Attributes, x: Any) -> Tensor:
    return tensor(x)


IDENTITIES = frozenset(
    {"Identity", "Snapshot", "StopGradient", "PreventGradient", "PlaceholderWithDefault", "CheckNumerics", "EnsureShape"}
)

OPERATIONS: dict[str, Operation] = {
    **SPATIAL,
    **ELEMENTWISE,
    **dict.fromkeys(IDENTITIES, _identity),
    "All": _reduction(lambda x, axes, keep: x.all(axes, keep)),
    "Any": _reduction(lambda x, axes, keep: x.any(axes, keep)),
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "Cholesky": elementwise(_in_double(torch.linalg.cholesky)),
    "BroadcastTo": lambda attributes, x, shape: tensor(x).expand(ints(shape)),
    "Cast": lambda attributes, x: tensor(x).to(dtype(attributes["DstT"])),
    "Concat": lambda attributes, axis, *parts: _concat(attributes, *parts, axis),
    "ConcatV2": _concat,
    "Cumprod": _cumulate(torch.cumprod),
    "Cumsum": _cumulate(torch.cumsum),
    "Diag": _diag,
    "DiagPart": lambda attributes, x: torch.diagonal(tensor(x)),
    "ExpandDims": _expand_dims,
    "Fill": _full,
    "Gather": _gather,
    "GatherV2": _gather,
    "InvertPermutation": _inverse_permutation,
    "L2Loss": lambda attributes, x: tensor(x).square().sum() / 2,
    "LogMatrixDeterminant": _log_determinant,
    "LogSoftmax": lambda attributes, x: torch.log_softmax(tensor(x), dim=-1),
    "MatMul": _matmul,
    "MatrixBandPart": _band,
    "MatrixDeterminant": elementwise(_in_double(torch.linalg.det)),
    "MatrixInverse": elementwise(_in_double(torch.linalg.inv)),
    "MatrixSolve": elementwise(_in_double(torch.linalg.solve)),
    "MatrixDiag": lambda attributes, x: torch.diag_embed(tensor(x)),
    "MatrixDiagPart": lambda attributes, x: torch.diagonal(tensor(x), dim1=-2, dim2=-1),
    "MatrixSetDiag": _set_diag,
    "MatrixTriangularSolve": _solve_triangular,
    "Max": _reduction(lambda x, axes, keep: x.amax(axes, keep)),
    "Mean": _reduction(_mean),
    "Min": _reduction(lambda x, axes, keep: x.amin(axes, keep)),
    "OneHot": _one_hot,
    "Pack": _pack,
    "Pad": _pad,
    "PadV2": _pad,
    "Prod": _reduction(_product),
    # their means: decoding draws nothing of its own
    "RandomUniform": lambda attributes, shape: torch.full(ints(shape), 0.5),
    "RandomStandardNormal": lambda attributes, shape: torch.zeros(ints(shape)),
    "Range": _range,
    "Rank": lambda attributes, x: torch.tensor(tensor(x).ndim, dtype=torch.int32),
    "Reshape": lambda attributes, x, shape: tensor(x).reshape(ints(shape)),
    "ReverseV2": lambda attributes, x, axes: tensor(x).flip(ints(axes)),
    "Shape": lambda attributes, x: torch.tensor(tensor(x).shape, dtype=torch.int32),
    "ShapeN": lambda attributes, *parts: tuple(torch.tensor(tensor(x).shape, dtype=torch.int32) for x in parts),
    "Size": lambda attributes, x: torch.tensor(tensor(x).numel(), dtype=torch.int32),
    "Slice": _slice,
    "Softmax": lambda attributes, x: torch.softmax(tensor(x), dim=-1),
    "Split": _split,
    "SplitV": _split_v,
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Sum": _reduction(lambda x, axes, keep: x.sum(axes, keep)),
    "Tile": lambda attributes, x, multiples: tensor(x).repeat(ints(multiples)),
    "Transpose": lambda attributes, x, axes: tensor(x).permute(ints(axes)),
    "Unpack": _unpack,
}
