"""ResNets and DenseNets of timm, from scratch and pretrained. timm is imported when one is built: `pip install '.[models]'`.

timm rather than torchvision: it alone has the BiT ResNets, and it adapts a stem to one channel, for pretrained weights by summing
the weights of red, green and blue. At 64 × 64 these networks end at 2 × 2.
"""

from __future__ import annotations

import importlib.util
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from harness.models.registry import FINE_TUNED, SUPERVISED, register
from splits.errors import DependencyError, MissingError

CONNECT_SECONDS = 2.0
REMEDY = "pip install 'ood-data[models]', or '.[models]' in its checkout"
# A core trains these on tens of images a second: small batches make the most of them.
QUICK_RATE, QUICK_BATCH = 1e-3, 16
# So few steps leave much to chance, and bf16, which saves a sixth of the time, leaves more: on CelebGlow, random, two seeds, R² of
# ResNet-101 is .17 and .29, and .62 and .62 in fp32; of DenseNet-121 .36 and .60, and .55 and .65.
QUICK_PRECISION: Literal["fp32"] = "fp32"
SUFFIXES = (".safetensors", ".bin", ".pth", ".npz")
# What timm calls the pretrained models; on the Hugging Face hub they are timm/….
PRETRAINED = {
    "resnet50-in21k": "resnetv2_50x1_bit.goog_in21k",
    "resnet101-in21k": "resnetv2_101x1_bit.goog_in21k",
    "densenet121-in1k": "densenet121.tv_in1k",
}


@register(
    "resnet50",
    family="supervised",
    parameters=23_522_375,
    summary="ResNet-50 from scratch (timm)",
    reconstruction=f"the last batch norm of a block starts at zero, as timm has it (model.zero_init_last); {SUPERVISED}",
    quick_steps=80,
    quick_learning_rate=QUICK_RATE,
    quick_batch=QUICK_BATCH,
    quick_precision=QUICK_PRECISION,
    later=("zero_init_last",),
)
def resnet50(in_channels: int, num_outputs: int, zero_init_last: bool = True) -> nn.Module:
    """He et al. (2016). `zero_init_last`: the last batch norm of each block starts at zero, timm's default, and not at one."""
    return _create("resnet50", in_channels, num_outputs, zero_init_last=zero_init_last)


@register(
    "resnet101",
    family="supervised",
    parameters=42_514_503,
    summary="ResNet-101 from scratch (timm)",
    reconstruction=f"the last batch norm of a block starts at zero, as timm has it (model.zero_init_last); {SUPERVISED}",
    quick_steps=60,
    quick_learning_rate=QUICK_RATE,
    quick_batch=QUICK_BATCH,
    quick_precision=QUICK_PRECISION,
    later=("zero_init_last",),
)
def resnet101(in_channels: int, num_outputs: int, zero_init_last: bool = True) -> nn.Module:
    """He et al. (2016). `zero_init_last`: the last batch norm of each block starts at zero, timm's default, and not at one."""
    return _create("resnet101", in_channels, num_outputs, zero_init_last=zero_init_last)


@register(
    "densenet121",
    family="supervised",
    parameters=6_961_031,
    summary="DenseNet-121 from scratch (timm)",
    reconstruction=SUPERVISED,
    quick_steps=60,
    quick_learning_rate=QUICK_RATE,
    quick_batch=QUICK_BATCH,
    quick_precision=QUICK_PRECISION,
)
def densenet121(in_channels: int, num_outputs: int) -> nn.Module:
    """Huang et al. (2017)."""
    return _create("densenet121", in_channels, num_outputs)


@register(
    "resnet50-in21k",
    family="pretrained",
    parameters=23_514_695,
    summary="BiT ResNet-v2 50x1, ImageNet-21k (timm)",
    reconstruction=f"which weights: BiT's; {FINE_TUNED}",
    quick_steps=80,
    quick_learning_rate=QUICK_RATE,
    quick_batch=QUICK_BATCH,
    quick_precision=QUICK_PRECISION,
    later=("freeze",),
)
def resnet50_in21k(in_channels: int, num_outputs: int, weights: str | None = "", freeze: bool = False) -> nn.Module:
    """Kolesnikov et al. (2020). `weights`: a local file, or a folder that has it; otherwise the Hugging Face hub and its cache.
    `freeze`: train the last layer only."""
    return _pretrained(PRETRAINED["resnet50-in21k"], in_channels, num_outputs, weights, freeze)


@register(
    "resnet101-in21k",
    family="pretrained",
    parameters=42_506_823,
    summary="BiT ResNet-v2 101x1, ImageNet-21k (timm)",
    reconstruction=f"which weights: BiT's; {FINE_TUNED}",
    quick_steps=60,
    quick_learning_rate=QUICK_RATE,
    quick_batch=QUICK_BATCH,
    quick_precision=QUICK_PRECISION,
    later=("freeze",),
)
def resnet101_in21k(in_channels: int, num_outputs: int, weights: str | None = "", freeze: bool = False) -> nn.Module:
    """Kolesnikov et al. (2020). `weights`: a local file, or a folder that has it; otherwise the Hugging Face hub and its cache.
    `freeze`: train the last layer only."""
    return _pretrained(PRETRAINED["resnet101-in21k"], in_channels, num_outputs, weights, freeze)


@register(
    "densenet121-in1k",
    family="pretrained",
    parameters=6_961_031,
    summary="DenseNet-121, ImageNet-1k (torchvision's weights, through timm)",
    reconstruction=f"which weights: torchvision's; {FINE_TUNED}",
    quick_steps=60,
    quick_learning_rate=QUICK_RATE,
    quick_batch=QUICK_BATCH,
    quick_precision=QUICK_PRECISION,
    later=("freeze",),
)
def densenet121_in1k(in_channels: int, num_outputs: int, weights: str | None = "", freeze: bool = False) -> nn.Module:
    """Huang et al. (2017). `weights`: a local file, or a folder that has it; otherwise the Hugging Face hub and its cache.
    `freeze`: train the last layer only."""
    return _pretrained(PRETRAINED["densenet121-in1k"], in_channels, num_outputs, weights, freeze)


class WeightsMissing(MissingError):
    """Pretrained weights are missing; says which, where they were looked for, and how to give them."""


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


def _create(name: str, in_channels: int, num_outputs: int, **options: Any) -> nn.Module:
    network: nn.Module = _timm().create_model(name, in_chans=in_channels, num_classes=num_outputs, **options)
    return network


def _pretrained(name: str, in_channels: int, num_outputs: int, weights: str | None, freeze: bool) -> nn.Module:
    """The network with its pretrained weights and a new head, never with random weights in their place: None is for a network whose
    weights are loaded next. `freeze`: only the head is trained.

    Raises:
        WeightsMissing: if they are neither here nor on the hub; it takes seconds to find out.
    """
    facts = _timm().models.get_pretrained_cfg(name)
    options: dict[str, Any] = {}
    if weights is not None:
        overlay = {"file": str(_local_file(name, facts.hf_hub_id, weights))}
        options = {"pretrained": True, "pretrained_cfg_overlay": overlay}
    network = _create(name, in_channels, num_outputs, **options)
    # One channel: its stem is the sum of the three, so it is shown what grey is on average.
    mean, std = (facts.mean, facts.std) if in_channels == 3 else ([sum(v) / len(v)] for v in (facts.mean, facts.std))
    if not freeze:
        return Normalized(network, list(mean), list(std))
    network.requires_grad_(False)
    network.get_classifier().requires_grad_(True)  # type: ignore[operator]
    return Frozen(network, list(mean), list(std))


def _local_file(name: str, repository: str, weights: str) -> Path:
    """The weights' file: the one given, else from the hub's cache, else from the hub."""
    if (file := _found(name, repository, weights)) is not None:
        return file
    import huggingface_hub

    try:
        if huggingface_hub.constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        # A look first, as the hub's client would retry for most of a minute.
        urllib.request.urlopen(urllib.request.Request(_url(repository), method="HEAD"), timeout=CONNECT_SECONDS).close()
        return Path(huggingface_hub.hf_hub_download(repository, "model.safetensors"))
    except (OSError, RuntimeError) as error:
        raise WeightsMissing(
            f"weights of {name}: not in {huggingface_hub.constants.HF_HUB_CACHE} and the hub is out of reach ({error}); "
            f"where there is a network, fetch {_url(repository)}, save it as FOLDER/{name}{SUFFIXES[0]} and give `overrides` "
            "model.weights=FOLDER"
        ) from error


def _found(name: str, repository: str, weights: str) -> Path | None:
    """The weights' file on this machine: the one given, else in the hub's cache; None if it is in neither.

    Raises:
        WeightsMissing: if it was given and is not there.
    """
    if not weights:
        import huggingface_hub

        cached = huggingface_hub.try_to_load_from_cache(repository, "model.safetensors")
        return Path(cached) if isinstance(cached, str) else None
    given = Path(weights)
    candidates = [given / f"{name}{suffix}" for suffix in SUFFIXES] if given.is_dir() else [given]
    for file in candidates:
        if file.is_file():
            return file
    what = f"none of {', '.join(file.name for file in candidates)} in it" if given.is_dir() else "no such file"
    raise WeightsMissing(f"weights of {name}: {weights}: {what}; fetch {_url(repository)} and save it as {name}{SUFFIXES[0]}")


def pretrained_file(model: str, weights: str | None = "") -> Path | None:
    """The file of a pretrained model's weights on this machine; None for other models, and where there is none."""
    if model not in PRETRAINED or weights is None:
        return None
    return _found(PRETRAINED[model], f"timm/{PRETRAINED[model]}", weights)


def lacking(model: str, weights: str | None = "") -> str:
    """What a model of this module lacks on this machine, the network not being asked; empty if nothing.

    Args:
        model: its name in the registry.
        weights: its option of that name.
    """
    if importlib.util.find_spec("timm") is None:
        return f"timm is not installed: {REMEDY}"
    if model not in PRETRAINED or weights is None:
        return ""
    try:
        found = _found(PRETRAINED[model], f"timm/{PRETRAINED[model]}", weights)
    except WeightsMissing as error:
        return str(error)
    return (
        ""
        if found is not None
        else "its pretrained weights are not on this machine and must be downloaded from the Hugging Face hub"
    )


def _url(repository: str) -> str:
    return f"https://huggingface.co/{repository}/resolve/main/model.safetensors"
