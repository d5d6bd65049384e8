"""Networks of runs: built and looked at before they are trained, loaded once they are."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from harness.io.locks import Owner
from harness.machine import lacking
from harness.models import Model, find
from harness.models.lookup import code_hash, code_of, is_own
from harness.runs.records import CONFIG, SCORES, RunScores, RunSetup
from harness.runs.trainer import channels_last, normalized
from splits.errors import DamagedError, InputError, MissingError, OodDataError

WEIGHTS = "model.safetensors"


def built(model: Model, image_shape: Sequence[int], num_outputs: int, options: dict[str, Any]) -> nn.Module:
    """The network, untrained, once it has shown that it takes the images and answers as it should.

    Args:
        model: builds it.
        image_shape: (height, width, channels).
        num_outputs: how many factors it answers.
        options: of the model.

    Raises:
        ValueError: if what the model builds is no module, or answers in another shape; if a model of somebody's own fails.
    """
    height, width, channels = image_shape
    with _told_of_own(model, f"build({channels}, {num_outputs})"):
        network = model.build(channels, num_outputs, **options)
    if not isinstance(network, nn.Module):
        raise InputError(f"{model.name} must return a torch.nn.Module, not {type(network).__name__}")
    with (
        _told_of_own(model, f"on images (B, {channels}, {height}, {width})"),
        torch.no_grad(),
    ):  # also gives lazy layers their shapes
        outputs = network.eval()(torch.zeros(2, channels, height, width))
    if not isinstance(outputs, torch.Tensor) or outputs.shape != (2, num_outputs):
        got = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise InputError(
            f"{model.name} must return (B, {num_outputs}) for images (B, {channels}, {height}, {width}), got {got} for B = 2"
        )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise InputError(f"{model.name} has no parameters that can be trained")
    return network


@contextlib.contextmanager
def _told_of_own(model: Model, where: str) -> Iterator[None]:
    """What a model of somebody's own raises, wherever in torch it is raised, is its author's to mend."""
    try:
        yield
    except Exception as error:
        if not is_own(model.name) or isinstance(error, OSError | OodDataError) or lacking(error):
            raise
        reason = next(iter(str(error).strip().splitlines()), "")
        lines = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) in model.code]
        place = f" ({lines[-1].filename}:{lines[-1].lineno})" if lines else ""
        raise InputError(f"your {model.name} fails {where}: {type(error).__name__}: {reason}{place}") from error


def save(network: nn.Module, folder: Path, owner: Owner) -> None:
    """Write the weights, once each: safetensors takes no two names for the same memory, which is what tied weights are."""
    tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in network.state_dict().items()}
    owner.write(folder / WEIGHTS, safetensors.torch.save(tensors))


def load(folder: str | Path, trust_code: bool = False) -> nn.Module:
    """The trained network of a finished run, in eval mode on the CPU: (B, C, R, R) float32 in [0, 1] → (B, F) in [0, 1].

    Args:
        folder: of the run.
        trust_code: a run of a model of somebody's own names a module, which is looked for as Python does, in the current folder
            first. It is imported, which runs its code, only if this is true, and only if its code is what was trained.

    Raises:
        FileNotFoundError: if the run isn't finished.
        ValueError: if the run folder is damaged, a model of somebody's own is not to be trusted or can't be imported, or its code is
            not what was trained.
    """
    folder = Path(folder)
    if not (folder / SCORES).exists():
        raise MissingError(
            f"{folder} has no {SCORES}: it is not a run folder, or the run is unfinished: the same `bench` finishes it"
        )
    scores, setup = RunScores.read(folder / SCORES), RunSetup.read(folder / CONFIG)
    if setup.image_shape is None:
        raise InputError(f"{folder / CONFIG} was written by an older version, which did not record image_shape: bench again")
    channels, num_outputs = setup.image_shape[2], len(scores.r2.factors)
    state = _weights(folder / WEIGHTS)
    if is_own(setup.model):
        _check_code(setup, folder, trust_code)
        network = built(find(setup.model), setup.image_shape, num_outputs, setup.config.model)
        network = _normalized(network, channels, setup)
    else:
        network = _registered(setup, folder, state, channels, num_outputs)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise _another_network(folder) from error
    channels_last(network)  # as it was scored, to the bit
    return network.eval()


def _registered(setup: RunSetup, folder: Path, state: dict[str, torch.Tensor], channels: int, num_outputs: int) -> nn.Module:
    """A reference model, once its weights are known to be of the sizes that a stranger's config.json makes it have."""
    model = find(setup.model)
    weights = {"weights": None} if model.family == "pretrained" else {}

    def network() -> nn.Module:
        return _normalized(model.build(channels, num_outputs, **options), channels, setup)

    try:
        options = model.resolve(setup.config.model) | weights
        with torch.device("meta"):  # sizes alone, no memory
            sizes = {name: tensor.shape for name, tensor in network().state_dict().items()}
    except Exception as error:  # whatever a model makes of such options
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{folder / CONFIG} has options that {model.name} can't be built with: {reason}") from error
    if sizes != {name: tensor.shape for name, tensor in state.items()}:
        raise _another_network(folder)
    return network()


def _normalized(network: nn.Module, channels: int, setup: RunSetup) -> nn.Module:
    if setup.config.train.normalize == "none":
        return network
    return normalized(network, [0.0] * channels, [1.0] * channels)  # the statistics are among the weights


def _another_network(folder: Path) -> DamagedError:
    return DamagedError(
        f"{folder / WEIGHTS} holds another network than {folder / CONFIG} describes: delete the folder and bench again"
    )


def _check_code(setup: RunSetup, folder: Path, trusted: bool) -> None:
    """Refuse a model whose code is not what was trained, or that nobody has said to trust. Nothing of it is run."""
    code = code_of(setup.model)
    files = ", ".join(map(str, code)) or "no file"
    if code_hash(code) != setup.code:
        raise InputError(f"{setup.model} is not the code that was trained in {folder} ({files} changed since): bench again")
    if not trusted:
        raise InputError(
            f"{folder} is a run of {setup.model}: loading it runs the code in {files}. "
            "If you trust that code, load it with trust_code=True"
        )


def _weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        state: dict[str, torch.Tensor] = safetensors.torch.load_file(path)
    except FileNotFoundError as error:
        raise MissingError(f"{path} is missing: delete the folder and bench again") from error
    except safetensors.SafetensorError as error:
        raise DamagedError(f"{path} is damaged ({error}): delete the folder and bench again") from error
    return state
