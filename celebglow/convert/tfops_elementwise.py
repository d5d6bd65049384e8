"""TensorFlow 1's operations that take tensors element by element, in torch; see `celebglow.convert.tfops`."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from celebglow.convert.tfops_values import Attributes, Operation, tensor


def elementwise(function: Callable[..., Tensor]) -> Operation:
    """Make an operation of a function of tensors; plain numbers stay as they are beside a tensor, so that they take its type."""

    def apply(attributes: Attributes, *inputs: Any) -> Tensor:
        plain = not any(isinstance(each, Tensor) for each in inputs)
        return function(*(torch.tensor(each) if plain or isinstance(each, list) else each for each in inputs))

    return apply


def _divide(a: Any, b: Any) -> Tensor:
    """`Div`: of whole numbers, rounded towards 0."""
    whole = not any(isinstance(each, float) or (isinstance(each, Tensor) and each.is_floating_point()) for each in (a, b))
    return torch.div(tensor(a), b, rounding_mode="trunc") if whole else a / b


def _maximum(a: Any, b: Any) -> Tensor:
    return torch.maximum(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else _bounded(a, b, "min")


def _minimum(a: Any, b: Any) -> Tensor:
    return torch.minimum(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else _bounded(a, b, "max")


def _bounded(a: Any, b: Any, side: str) -> Tensor:
    x, bound = (a, b) if isinstance(a, Tensor) else (b, a)
    return x.clamp(**{side: bound})  # type: ignore[no-any-return]


def _clip(x: Any, low: Any, high: Any) -> Tensor:
    return _minimum(_maximum(tensor(x), low), high)


def _where(attributes: Attributes, condition: Any, a: Any, b: Any) -> Tensor:
    condition, a, b = tensor(condition), tensor(a), tensor(b)
    if condition.ndim == 1 and a.ndim > 1:  # `Select` chooses rows
        condition = condition.reshape(-1, *[1] * (a.ndim - 1))
    return torch.where(condition, a, b)


def _bias_add(attributes: Attributes, x: Tensor, bias: Any) -> Tensor:
    if attributes.get("data_format", "NHWC") == "NCHW":
        return x + tensor(bias).reshape(-1, *[1] * (x.ndim - 2))
    return x + tensor(bias)


def _dequantize(attributes: Attributes, x: Any, low: Any, high: Any) -> Tensor:
    """Whole numbers of 8 bits that stand for [low, high], by the three rules of TensorFlow's kernel (dequantize_op.cc)."""
    x, low, high = tensor(x), float(tensor(low)), float(tensor(high))
    signed = x.dtype == torch.int8
    mode = attributes.get("mode", "MIN_COMBINED")
    if mode == "SCALED":
        return x.float() * (max(abs(low), abs(high)) / 127 if signed else high / 255)
    offset = x.double() + (128 if signed else 0)
    scale = (high - low) / 255
    if mode == "MIN_FIRST":  # 0 is to be met exactly, so the lower end is rounded to a step
        low = round(low / scale) * scale if scale else low
    return (low + offset * scale).float()


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "Abs": torch.abs,
    "Add": operator.add,
    "AddN": lambda *parts: functools.reduce(operator.add, parts),
    "AddV2": operator.add,
    "Ceil": torch.ceil,
    "ClipByValue": _clip,
    "Cos": torch.cos,
    "Div": _divide,
    "Elu": F.elu,
    "Equal": lambda a, b: tensor(a) == b,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Expm1": torch.expm1,
    "Floor": torch.floor,
    "FloorDiv": lambda a, b: torch.div(tensor(a), b, rounding_mode="floor"),
    "FloorMod": lambda a, b: torch.remainder(tensor(a), b),
    "Greater": lambda a, b: tensor(a) > b,
    "GreaterEqual": lambda a, b: tensor(a) >= b,
    "Inv": torch.reciprocal,
    "Less": lambda a, b: tensor(a) < b,
    "LessEqual": lambda a, b: tensor(a) <= b,
    "Log": torch.log,
    "Log1p": torch.log1p,
    "LogicalAnd": torch.logical_and,
    "LogicalNot": torch.logical_not,
    "LogicalOr": torch.logical_or,
    "Maximum": _maximum,
    "Minimum": _minimum,
    "Mod": lambda a, b: torch.fmod(tensor(a), b),
    "Mul": operator.mul,
    "Neg": operator.neg,
    "NotEqual": lambda a, b: tensor(a) != b,
    "OnesLike": torch.ones_like,
    "Pow": operator.pow,
    "RealDiv": operator.truediv,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Relu6": F.relu6,
    "Rint": torch.round,
    "Round": torch.round,
    "Rsqrt": torch.rsqrt,
    "Selu": F.selu,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Square": torch.square,
    "SquaredDifference": lambda a, b: torch.square(a - b),
    "Sub": operator.sub,
    "Tan": torch.tan,
    "Tanh": torch.tanh,
    "ZerosLike": torch.zeros_like,
}

ELEMENTWISE: dict[str, Operation] = {
    **{name: elementwise(function) for name, function in _FUNCTIONS.items()},
    "BiasAdd": _bias_add,
    "Dequantize": _dequantize,
    "LeakyRelu": lambda attributes, x: F.leaky_relu(x, attributes.get("alpha", 0.2)),
    "Select": _where,
    "SelectV2": _where,
}
