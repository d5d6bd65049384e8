"""Networks that answer in the page itself: a run's network as a list of plain layers, and their weights as bytes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.formats.dsprites import POSITIONS, SCALES, SHAPES, render_bits
from harness.models import Representation
from harness.models.backbones import Normalized
from harness.models.convolutional import CoordinateCNN, SpatialTransformer
from harness.models.equivariant import GroupConv2d, RotationEquivariantCNN
from harness.report.live_runs import live_setup
from harness.report.sprites import is_dsprites
from harness.runs.maps import MAPS, RunMaps
from harness.runs.networks import load
from harness.runs.records import SCORES, RunScores
from splits.errors import InputError, MissingError

MOST_WEIGHTS = 1_200_000  # of a network: about 3 MB of a page in 16 bits each; more would not answer within 50 ms
SMALL = 8192  # numbers of a tensor that keeps 32 bits each: of first and last layers, whose rounding moves answers most
POSES, PLACES = 64, 8  # of cells on which 16 bits must answer as 32 do
FAR = 4e-4  # of a factor's range; where rounding moves an answer by more, all weights keep 32 bits
LARGEST = 2**15 - 1  # of 16 bits

Layer = dict[str, Any]


@dataclass(frozen=True)
class LiveNetwork:
    """The network of a run, for the page.

    Attributes:
        scores: of the run.
        maps: of the run, with the split that it was scored by.
        layers: in order, each {"op": name, …}; those that have weights say their "shape", and whether it is "fixed" point.
        weights: of each of those, behind each other, little-endian: the weight, as float32, or in fixed point as the unit of each
            output as float32 and then the multiples as int16; the bias as float32.
    """

    scores: RunScores
    maps: RunMaps
    layers: list[Layer]
    weights: bytes


def live_network(folder: Path) -> LiveNetwork:
    """The network of a finished run.

    Raises:
        FileNotFoundError: if it isn't finished, or has no error maps, which say by which split it was scored.
        ValueError: if it is not of dSprites, or of a model that the page can't run.
    """
    setup = live_setup(folder)
    if not (folder / MAPS).exists():
        raise MissingError(f"`live` {folder}: no {MAPS} there: `ood-data bench rescore {folder}` makes it")
    maps = RunMaps.read(folder / MAPS)
    if not is_dsprites(maps.spec):
        raise InputError(f"`live` {folder}: a run of dsprites is expected, as the page draws these; its grid is {maps.spec.name}'s")
    network = load(folder)
    layers = layers_of(network)
    if (count := _count(layers)) > MOST_WEIGHTS:
        raise InputError(f"`live` {folder}: {setup.model} has {count:,} weights there, and the page runs {MOST_WEIGHTS:,} at most")
    plain, weights = packed(layers, bears_rounding(network, maps.spec.grid.sizes[2]))
    return LiveNetwork(RunScores.read(folder / SCORES), maps, plain, weights)


def layers_of(module: nn.Module) -> list[Layer]:
    """A network of `MODELS` as layers: {"op": "conv", "weight": Tensor, …} and so on.

    Raises:
        TypeError: for a module that is none of theirs.
    """
    match module:
        case nn.Sequential():
            return [layer for each in module for layer in layers_of(each)]
        case nn.Conv2d():
            sizes = {"stride": module.stride[0], "padding": module.padding[0]}
            return [{"op": "conv", "fixed": _large(module.weight), "weight": module.weight, "bias": module.bias, **sizes}]
        case GroupConv2d():
            (weight, bias), sizes = module.bank(), {"stride": module.stride, "padding": module.padding}
            return [{"op": "conv", "fixed": _large(module.weight), "weight": weight, "bias": bias, **sizes}]
        case nn.Linear():
            return [{"op": "linear", "fixed": _large(module.weight), "weight": module.weight, "bias": module.bias}]
        case nn.ReLU():
            return [{"op": "relu"}]
        case nn.Flatten() | nn.Identity():
            return []
        case nn.BatchNorm1d():
            assert module.running_mean is not None
            assert module.running_var is not None
            return [_affine(module.running_mean, (module.running_var + module.eps).sqrt())]
        case Normalized():
            return [_affine(module.mean, module.std), *layers_of(module.network)]
        case CoordinateCNN():
            return _with_coordinates(module)
        case SpatialTransformer():
            return [{"op": "transform", "layers": layers_of(module.localisation)}, *layers_of(module.cnn)]
        case RotationEquivariantCNN():
            return [*layers_of(module.features), *layers_of(module.head)]
        case Representation():
            latents = [*layers_of(module.encoder), {"op": "first", "count": module.latents}]
            return [*latents, *layers_of(getattr(module, "normalization", nn.Identity())), *layers_of(module.readout)]
    raise TypeError(f"the page has no {type(module).__name__}")


def _large(parameter: Tensor) -> bool:
    return parameter.numel() > SMALL


def _affine(mean: Tensor, deviation: Tensor) -> Layer:
    """(x − mean) / deviation per channel; few numbers, which are kept in full."""
    return {"op": "normalize", "mean": mean.flatten().tolist(), "deviation": deviation.flatten().tolist()}


def _with_coordinates(network: CoordinateCNN) -> list[Layer]:
    layers: list[Layer] = []
    for position, convolution in enumerate(network.convolutions):
        layers += [{"op": "coordinates"}] if position in network.coordinates_at else []
        layers += [*layers_of(convolution), {"op": "relu"}]
    return [*layers, *layers_of(network.head)]


def _count(layers: Sequence[Layer]) -> int:
    return sum(
        _count(layer["layers"]) if "layers" in layer else layer["weight"].numel()
        for layer in layers
        if {"layers", "weight"} & set(layer)
    )


def packed(layers: Sequence[Layer], rounded: bool) -> tuple[list[Layer], bytes]:
    """The layers without their tensors, and these as bytes.

    Args:
        layers: of `layers_of`.
        rounded: whether large ones may be in fixed point.
    """
    plain, parts = [], []
    for layer in layers:
        if "layers" in layer:
            inner, weights = packed(layer["layers"], rounded)
            plain.append(layer | {"layers": inner})
            parts.append(weights)
        elif "weight" in layer:
            weight, bias = (layer[name].detach().float() for name in ("weight", "bias"))
            rest = {name: value for name, value in layer.items() if name not in ("weight", "bias")}
            plain.append(rest | {"fixed": layer["fixed"] and rounded, "shape": list(weight.shape)})
            kept = fixed_point(weight) if plain[-1]["fixed"] else (weight,)
            parts += [tensor.contiguous().numpy().tobytes() for tensor in (*kept, bias)]
        else:
            plain.append(layer)
    return plain, b"".join(parts)


def fixed_point(weight: Tensor) -> tuple[Tensor, Tensor]:
    """A unit for each row, (rows,) float32, and the multiples of it that are nearest to the weights, int16.

    For weights as large as a row's, this is about four times as exact as a half-precision float, in as many bits.
    """
    units = weight.abs().flatten(1).amax(1).clamp(min=1e-30) / LARGEST
    return units, (weight / _per_row(units, weight)).round().to(torch.int16)


def _per_row(units: Tensor, weight: Tensor) -> Tensor:
    return units.view(-1, *[1] * (weight.dim() - 1))


def bears_rounding(network: nn.Module, orientations: int) -> bool:
    """Whether the answers stay as they are when the large tensors have 16 bits a number."""
    coarse = copy.deepcopy(network)
    for parameter in filter(_large, coarse.parameters()):
        units, multiples = fixed_point(parameter.data)
        parameter.data = multiples * _per_row(units, parameter)
    images = _some_images(orientations)
    with torch.no_grad():
        return float((network(images) - coarse(images)).abs().max()) <= FAR


def _some_images(orientations: int) -> Tensor:
    """(POSES · PLACES, 1, 64, 64) float32 in [0, 1], of seeded cells."""
    rng = np.random.default_rng(0)
    poses = np.stack([rng.integers(0, size, POSES) for size in (SHAPES, SCALES, orientations)], axis=1)
    bits = [render_bits(*pose)[tuple(rng.integers(0, POSITIONS, (2, PLACES)))] for pose in poses.tolist()]
    return torch.from_numpy(np.unpackbits(np.concatenate(bits), axis=2)[:, None].astype(np.float32))
