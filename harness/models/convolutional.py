"""The plain networks: an MLP, the benchmark's CNN, and the CNN given coordinates or a spatial transformer."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from splits.errors import InputError

# Width, kernel, stride and padding of the convolutions of the benchmark's CNN: 64 × 64 → 32 → 16 → 8 → 4 → 1.
LAYERS = ((32, 4, 2, 1), (32, 4, 2, 1), (64, 4, 2, 1), (64, 4, 2, 1), (256, 4, 1, 0))
FEATURES = LAYERS[-1][0]


def mlp(in_channels: int, num_outputs: int, widths: Sequence[int]) -> nn.Module:
    """(B, C, 64, 64) → (B, num_outputs), through hidden layers of `widths`."""
    return nn.Sequential(nn.Flatten(), *dense([in_channels * 64 * 64, *widths, num_outputs]))


def cnn(in_channels: int, num_outputs: int) -> nn.Module:
    """(B, C, 64, 64) → (B, num_outputs)."""
    return nn.Sequential(*convolutions(in_channels), nn.Linear(FEATURES, num_outputs))


def convolutions(in_channels: int) -> list[nn.Module]:
    """The CNN up to its 256 features: (B, C, 64, 64) → (B, 256)."""
    layers: list[nn.Module] = []
    for width, kernel, stride, padding in LAYERS:
        layers += [nn.Conv2d(in_channels, width, kernel, stride, padding), nn.ReLU(inplace=True)]
        in_channels = width
    return [*layers, nn.Flatten()]


def dense(widths: Sequence[int]) -> list[nn.Module]:
    """Linear layers between `widths`, ReLU between them, none after the last."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
    return layers[:-1]


class CoordinateCNN(nn.Module):
    """The CNN with two channels of coordinates, x and y in [−1, 1], concatenated before the convolutions in `coordinates_at`.

    Raises:
        ValueError: for a convolution that the CNN does not have.
    """

    def __init__(self, in_channels: int, num_outputs: int, coordinates_at: Sequence[int]) -> None:
        super().__init__()
        if not set(coordinates_at) <= set(range(len(LAYERS))):
            raise InputError(f"coordinates_at is {list(coordinates_at)}, but the convolutions are 0 to {len(LAYERS) - 1}")
        self.coordinates_at = frozenset(coordinates_at)
        self.convolutions = nn.ModuleList()
        for position, (width, kernel, stride, padding) in enumerate(LAYERS):
            extra = 2 if position in self.coordinates_at else 0
            self.convolutions.append(nn.Conv2d(in_channels + extra, width, kernel, stride, padding))
            in_channels = width
        self.head = nn.Linear(FEATURES, num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, 64, 64) → (B, num_outputs)."""
        features = images
        for position, convolution in enumerate(self.convolutions):
            if position in self.coordinates_at:
                features = torch.cat([features, _coordinates(features)], dim=1)
            features = F.relu(convolution(features))
        outputs: Tensor = self.head(features.flatten(1))
        return outputs


def _coordinates(features: Tensor) -> Tensor:
    """(B, 2, H, W): x and y of each place, in [−1, 1], in the dtype of `features`."""
    batch, _, height, width = features.shape
    y = torch.linspace(-1, 1, height, device=features.device, dtype=features.dtype).view(1, 1, height, 1)
    x = torch.linspace(-1, 1, width, device=features.device, dtype=features.dtype).view(1, 1, 1, width)
    return torch.cat([x.expand(batch, 1, height, width), y.expand(batch, 1, height, width)], dim=1)


class SpatialTransformer(nn.Module):
    """Predicts an affine map per image, the identity at the start, and shows cnn the image resampled by it."""

    def __init__(self, in_channels: int, num_outputs: int, widths: Sequence[int], hidden: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise((in_channels, *widths)):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.ReLU(inplace=True)]
        side = 64 // 2 ** len(widths)
        self.localisation = nn.Sequential(*layers, nn.Flatten(), *dense([widths[-1] * side**2, hidden, 6]))
        self.cnn = cnn(in_channels, num_outputs)
        last = self.localisation[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, 64, 64) → (B, num_outputs)."""
        maps = self.localisation(images).float().view(-1, 2, 3)
        grid = F.affine_grid(maps, list(images.shape), align_corners=False)
        outputs: Tensor = self.cnn(F.grid_sample(images.float(), grid, align_corners=False))
        return outputs
