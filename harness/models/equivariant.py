"""Group convolutions over C4, the rotations by 90 degrees (Cohen & Welling, 2016), on the topology of the benchmark's CNN.

Every feature is a field in the regular representation: four channels, one per rotation. Turning the image by 90 degrees turns the
planes and rolls those four. The CNN's convolutions, 4 × 4 with stride 2 and padding 1 on even sides, keep that exactly.
The linear head sees every rotation of every field, as orientation is a target: it is not invariant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.models.convolutional import LAYERS
from splits.errors import InputError

ROTATIONS = 4


class GroupConv2d(nn.Module):
    """A C4-equivariant convolution from `in_fields` to `out_fields`; from plain channels if `lift`.

    Channels of a field lie next to each other: (B, fields · 4, H, W), rotation r of field f at 4 f + r.
    """

    def __init__(self, in_fields: int, out_fields: int, kernel: int, stride: int, padding: int, lift: bool = False) -> None:
        super().__init__()
        self.stride, self.padding, self.lift = stride, padding, lift
        self.weight = nn.Parameter(torch.empty(out_fields, in_fields, 1 if lift else ROTATIONS, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out_fields))
        bound = 1 / math.sqrt(self.weight[0].numel())  # as torch's convolutions
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def bank(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the plain convolution that this one is: every kernel in its four rotations."""
        turned = [torch.rot90(self.weight, r, dims=(3, 4)) for r in range(ROTATIONS)]
        if not self.lift:
            turned = [torch.roll(kernel, r, dims=2) for r, kernel in enumerate(turned)]
        return torch.stack(turned, dim=1).flatten(0, 1).flatten(1, 2), self.bias.repeat_interleave(ROTATIONS)

    def forward(self, features: Tensor) -> Tensor:
        """(B, in_fields · 4 or in_channels, H, W) → (B, out_fields · 4, H′, W′)."""
        return F.conv2d(features, *self.bank(), self.stride, self.padding)


class RotationEquivariantCNN(nn.Module):
    """The CNN's layers as C4 group convolutions with `fields` per layer, ReLU after each, and a linear head.

    Raises:
        ValueError: unless there are as many numbers of fields as layers.
    """

    def __init__(self, in_channels: int, num_outputs: int, fields: Sequence[int]) -> None:
        super().__init__()
        if len(fields) != len(LAYERS):
            raise InputError(f"fields: {len(LAYERS)} numbers are expected, one per convolution, got {list(fields)}")
        layers: list[nn.Module] = []
        before = in_channels
        for position, (count, (_, kernel, stride, padding)) in enumerate(zip(fields, LAYERS, strict=True)):
            layers += [GroupConv2d(before, count, kernel, stride, padding, lift=position == 0), nn.ReLU(inplace=True)]
            before = count
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(ROTATIONS * before, num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, 64, 64) → (B, num_outputs)."""
        outputs: Tensor = self.head(self.features(images))
        return outputs
