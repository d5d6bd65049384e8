"""ResNets and DenseNets of timm, from scratch and pretrained. timm is imported when one is built: `pip install -e '.[models]'`.

timm rather than torchvision: it alone has the BiT ResNets, and it adapts a stem to one channel, for pretrained weights by summing
the weights of red, green and blue. At 64 × 64 these networks end at 2 × 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.models.weights import REMEDY, local_file
from splits.errors import DependencyError


class Normalized(nn.Module):
    """A network that is shown images in [0, 1] as it was trained on them: (x − mean) / std per channel."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, 64, 64) → (B, num_outputs)."""
        outputs: Tensor = self.network((images - self.mean) / self.std)
        return outputs


class Frozen(Normalized):
    """One of whose network only the last layer is trained: batch norms keep their statistics."""

    def train(self, mode: bool = True) -> Frozen:
        """It stays in eval mode."""
        super().train(False)
        return self


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise DependencyError(f"this model needs timm: {REMEDY}") from error
    return timm


def create(name: str, in_channels: int, num_outputs: int, **options: Any) -> nn.Module:
    """timm's network of that name: (B, C, 64, 64) → (B, num_outputs).

    Raises:
        DependencyError: without timm.
    """
    network: nn.Module = _timm().create_model(name, in_chans=in_channels, num_classes=num_outputs, **options)
    return network


def pretrained(name: str, in_channels: int, num_outputs: int, weights: str | None, freeze: bool) -> nn.Module:
    """The network with its pretrained weights and a new head, never with random weights in their place: None is for a network whose
    weights are loaded next. `freeze`: only the head is trained.

    Raises:
        WeightsMissing: if they are neither here nor on the hub; it takes seconds to find out.
    """
    facts = _timm().models.get_pretrained_cfg(name)
    options: dict[str, Any] = {}
    if weights is not None:
        overlay = {"file": str(local_file(name, facts.hf_hub_id, weights))}
        options = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    network = create(name, in_channels, num_outputs, **options)
    # One channel: its stem is the sum of the three, so it is shown what grey is on average.
    mean, std = (facts.mean, facts.std) if in_channels == 3 else ([sum(v) / len(v)] for v in (facts.mean, facts.std))
    if not freeze:
        return Normalized(network, list(mean), list(std))
    network.requires_grad_(False)
    network.get_classifier().requires_grad_(True)  # type: ignore[operator]
    return Frozen(network, list(mean), list(std))
