"""Pretrained weights of timm's networks: their files, on this machine or on the Hugging Face hub. Without torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from harness.models.registry import Model
from splits.errors import MissingError

CONNECT_SECONDS = 2.0
REMEDY = "pip install 'ood-data[models]', or -e '.[models]' in its checkout"
SUFFIXES = (".safetensors", ".bin", ".pth", ".npz")
# What timm calls the pretrained models; on the Hugging Face hub they are timm/….
PRETRAINED = {
    "resnet50-in21k": "resnetv2_50x1_bit.goog_in21k",
    "resnet101-in21k": "resnetv2_101x1_bit.goog_in21k",
    "densenet121-in1k": "densenet121.tv_in1k",
}


class WeightsMissing(MissingError):
    """Pretrained weights are missing; says which, where they were looked for, and how to give them."""


def local_file(name: str, repository: str, weights: str) -> Path:
    """The weights' file: the one given, else from the hub's cache, else from the hub."""
    if (file := _found(name, repository, weights)) is not None:
        return file
    import urllib.request

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


def lacking(model: Model, weights: str | None = "") -> str:
    """What a model lacks on this machine, the network not being asked; empty if nothing.

    Args:
        model: of the registry, or a user's.
        weights: its option of that name.
    """
    if model.requires and importlib.util.find_spec(model.requires) is None:
        return f"{model.requires} is not installed: {REMEDY}"
    if model.name not in PRETRAINED or weights is None:
        return ""
    try:
        found = pretrained_file(model.name, weights)
    except WeightsMissing as error:
        return str(error)
    missing = "its pretrained weights are not on this machine and must be downloaded from the Hugging Face hub"
    return "" if found is not None else missing


def _url(repository: str) -> str:
    return f"https://huggingface.co/{repository}/resolve/main/model.safetensors"
