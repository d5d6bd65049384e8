"""PyTorch checkpoints of Glow as people have them, rewritten exactly into our `Glow`.

Three implementations are known, by the names of their weights: rosinality/glow-pytorch, chaiyujin/glow-pytorch and y0ast/Glow-PyTorch.
None stores the size of its images or the bits of its data: where the file doesn't show them, they are the implementation's defaults.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from celebglow.convert.pytorch_layouts import CHAIYUJIN, Y0AST, State, UnsupportedCheckpoint, Weights, layers, rosinality
from celebglow.glow import Glow
from splits.arrays import require_regular
from splits.errors import shown

MOST_SHARED = 2  # times a checkpoint's bytes that its weights may be: some may be there under two names
MOST_REASON = 200  # characters of an error of torch's


@dataclass(frozen=True)
class PyTorchCheckpoint:
    """A checkpoint read: `name` of the implementation and the flow."""

    name: str
    flow: Glow


def read_checkpoint(path: str | Path, resolution: int | None = None, bits: int | None = None) -> PyTorchCheckpoint:
    """A PyTorch checkpoint as our `Glow`.

    Args:
        path: of what `torch.save` wrote. It is read without running code from it.
        resolution: of its images; by default what the file shows, else 64 (rosinality, chaiyujin) or 32 (y0ast).
        bits: of its data; 5 (rosinality) or 8 by default.

    Raises:
        UnsupportedCheckpoint: saying why.
    """
    path = Path(path)
    require_regular(path)
    try:
        zipped = _unpacked_size(path) > 0
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except UnsupportedCheckpoint:
        raise
    except Exception as error:  # unpickling raises whatever it likes
        raise UnsupportedCheckpoint(
            f"{path} is not a PyTorch checkpoint of weights, or it is damaged ({_reason(error)})"
        ) from error
    try:
        return _detect(_weights(content, path), path, resolution, bits)
    except UnsupportedCheckpoint:
        raise
    except Exception as error:  # and torch too, of weights that no layer could have
        raise UnsupportedCheckpoint(f"{path}: its weights don't fit each other ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # torch's advice is then to run what is in the file
        of_code = re.search(r"Unsupported (global|class)|GLOBAL|REDUCE", str(error))
        return "it holds pickled objects, which are code and are never run" if of_code else "it is no file of torch.save"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:MOST_REASON]


def _unpacked_size(path: Path) -> int:
    """Bytes in the zip file that `torch.save` writes, which are not packed; 0 for its older format.

    Raises:
        UnsupportedCheckpoint: for one that is packed: of a small file all memory could come.
    """
    if not zipfile.is_zipfile(path):
        return 0
    with zipfile.ZipFile(path) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > path.stat().st_size:
        raise UnsupportedCheckpoint(
            f"{path} claims {size:,} bytes of weights, more than it has: it is damaged, or not of torch.save"
        )
    return size


def _detect(weights: State, path: str | Path, resolution: int | None, bits: int | None) -> PyTorchCheckpoint:
    """The implementation that wrote the weights, by their names."""
    if any(name.startswith("blocks.") for name in weights):
        return PyTorchCheckpoint("rosinality", rosinality(Weights(weights, path), resolution or 64, bits or 5))
    if any(".block.0.conv." in name for name in weights):
        return PyTorchCheckpoint("y0ast", layers(Weights(weights, path), resolution, bits or 8, Y0AST))
    if any(name.startswith("flow.layers.") for name in weights):
        return PyTorchCheckpoint("chaiyujin", layers(Weights(weights, path), resolution, bits or 8, CHAIYUJIN))
    known = "rosinality/glow-pytorch, chaiyujin/glow-pytorch, y0ast/Glow-PyTorch"
    raise UnsupportedCheckpoint(f"the weights in {path} are of no known Glow ({known}); its first is {next(iter(weights), 'none')}")


def _weights(content: Any, path: Path) -> State:
    for key in ("graph", "model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UnsupportedCheckpoint(f"{path} holds no dictionary of weights")
    total = 0
    for name, value in content.items():
        plain = value.layout == torch.strided and value.device.type == "cpu" and not (value.is_complex() or value.is_quantized)
        total += value.numel() * value.element_size()
        if not plain or total > MOST_SHARED * path.stat().st_size:  # one number can be seen as a matrix of any size
            raise UnsupportedCheckpoint(f"{path}: {shown(name)} is no plain array of weights, or of more than the file has")
    return {str(name).removeprefix("module."): value.double() for name, value in content.items()}
