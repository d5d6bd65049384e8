"""What TensorFlow's operations take: attributes, tensors, plain numbers and lists, and their types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from splits.errors import InputError

Attributes = Mapping[str, Any]
Operation = Callable[..., Any]

TORCH_DTYPES = {
    "<f4": torch.float32,
    "<f8": torch.float64,
    "<f2": torch.float16,
    "|i1": torch.int8,
    "<i2": torch.int16,
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
    """A tensor as it is, a plain number or list as one."""
    return value if isinstance(value, Tensor) else torch.tensor(value)


def dtype(name: str) -> torch.dtype:
    """Torch's type of that name of NumPy's.

    Raises:
        InputError: for one that torch does not have.
    """
    if name not in TORCH_DTYPES:
        raise InputError(f"unsupported number type ({name})")
    return TORCH_DTYPES[name]
