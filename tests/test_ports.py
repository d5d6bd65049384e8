"""Checkpoints of PyTorch implementations, against their own decoding as their conventions have it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from celebglow.convert.pytorch_checkpoints import read_checkpoint
from celebglow.convert.pytorch_layouts import UnsupportedCheckpoint
from celebglow.glow import Glow
from helpers.ports import State, layered, layered_decode, rosinality, rosinality_decode

SIDE = 16
WAYS = [(affine, lu) for affine in (False, True) for lu in (False, True)]


def save(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


def random_state(kind: str, affine: bool = False, lu: bool = False, **options: Any) -> State:
    torch.manual_seed(4)
    if kind == "rosinality":
        return rosinality(2, 3, 6, affine, lu)
    return layered(kind, 2, 3, 6, affine, lu, **options)


def decode(kind: str, state: State, flow: Glow, latents: torch.Tensor) -> torch.Tensor:
    """In our range of pixels."""
    parts = flow.split_latents(latents)
    if kind == "rosinality":
        return rosinality_decode(state, parts)
    return layered_decode(kind, state, parts) - (0.5 if kind == "chaiyujin" else 0.0)


@pytest.mark.parametrize("affine, lu", WAYS)
@pytest.mark.parametrize("kind", ["rosinality", "chaiyujin", "y0ast"])
def test_a_port_decodes_as_its_own_code(tmp_path: Path, kind: str, affine: bool, lu: bool) -> None:
    state = random_state(kind, affine, lu)
    checkpoint = read_checkpoint(save(state, tmp_path / "model.pt"), resolution=SIDE)
    assert checkpoint.name == kind
    assert checkpoint.flow.config.coupling == ("affine" if affine else "additive")
    assert checkpoint.flow.config.bits == (5 if kind == "rosinality" else 8)
    latents = torch.randn(3, checkpoint.flow.num_latents)
    torch.testing.assert_close(checkpoint.flow.decode(latents), decode(kind, state, checkpoint.flow, latents), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["chaiyujin", "y0ast"])
def test_a_top_prior_that_is_not_learned(tmp_path: Path, kind: str) -> None:
    state = random_state(kind, learn_top=False)
    flow = read_checkpoint(save(state, tmp_path / "model.pt"), resolution=SIDE).flow
    assert flow.top_prior is None
    latents = torch.randn(2, flow.num_latents)
    torch.testing.assert_close(flow.decode(latents), decode(kind, state, flow, latents), atol=2e-5, rtol=1e-5)


def test_wrappings(tmp_path: Path) -> None:
    state = random_state("chaiyujin")
    wrapped = {"graph": {f"module.{name}": value for name, value in state.items()}, "optim": {"lr": 0.1}, "global_step": 7}
    flow = read_checkpoint(save(wrapped, tmp_path / "model.pt"), SIDE).flow
    plain = read_checkpoint(save(state, tmp_path / "model.pt"), SIDE).flow
    latents = torch.randn(1, flow.num_latents)
    assert torch.equal(flow.decode(latents), plain.decode(latents))


def test_sizes_and_bits(tmp_path: Path) -> None:
    path = save(random_state("rosinality"), tmp_path / "model.pt")
    assert read_checkpoint(path).flow.config.resolution == 64
    assert read_checkpoint(path, 32, 7).flow.config.bits == 7
    shown = random_state("y0ast") | {"prior_h": torch.zeros(1, 48, 2, 2)}
    assert read_checkpoint(save(shown, tmp_path / "y0ast.pt")).flow.config.resolution == 8
    with pytest.raises(UnsupportedCheckpoint, match="resolution 30 must be divisible"):
        read_checkpoint(path, 30)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"project_ycond.weight": torch.zeros(3, 3)}, "class labels"),
        ({"prior_h": torch.ones(1, 48, 4, 4)}, "prior_h"),
        ({"flow.layers.1.extra.weight": torch.zeros(2)}, r"no known Glow has flow\.layers\.1\.extra"),
        ({"flow.layers.1.actnorm.bias": None}, r"lacks flow\.layers\.1\.actnorm\.bias"),
        ({"flow.layers.1.invconv.weight": None}, "permute"),
        ({"flow.layers.1.actnorm.bias": torch.full((12,), torch.nan)}, "not finite"),
        ({"flow.layers.2.f.0.weight": torch.zeros(7, 6, 3, 3)}, "size mismatch"),
        ({"flow.layers.1.invconv.weight": torch.zeros(())}, "don't fit each other|size mismatch"),
    ],
)
def test_what_has_no_exact_form_is_refused(tmp_path: Path, change: dict[str, torch.Tensor | None], words: str) -> None:
    state = {name: value for name, value in (random_state("chaiyujin") | change).items() if value is not None}
    with pytest.raises(UnsupportedCheckpoint, match=words):
        read_checkpoint(save(state, tmp_path / "model.pt"), SIDE)


def test_weights_of_odd_shapes_are_refused(tmp_path: Path) -> None:
    state = random_state("rosinality") | {"blocks.0.prior.conv.weight": torch.zeros(3)}
    with pytest.raises(UnsupportedCheckpoint, match="don't fit each other"):
        read_checkpoint(save(state, tmp_path / "model.pt"), SIDE)


@pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")
@pytest.mark.parametrize(
    "odd",
    [
        torch.zeros(1).expand(10**7, 10**6),
        torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (10**6, 10**6), check_invariants=True),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(3, device="meta"),
    ],
    ids=["stride 0", "sparse", "complex", "meta"],
)
def test_what_is_no_array_of_weights_is_named(tmp_path: Path, odd: torch.Tensor) -> None:
    path = save(random_state("rosinality") | {"blocks.0.flows.0.actnorm.loc": odd}, tmp_path / "model.pt")
    with pytest.raises(UnsupportedCheckpoint, match=r"blocks\.0\.flows\.0\.actnorm\.loc' is no plain array"):
        read_checkpoint(path, SIDE)


def test_a_checkpoint_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    plain = save(random_state("rosinality"), tmp_path / "model.pt")
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in source.namelist():
            packed.writestr(name, source.read(name))
        packed.writestr("model/data/9999", bytes(10**7))
    with pytest.raises(UnsupportedCheckpoint, match="more than it has"):
        read_checkpoint(tmp_path / "packed.pt", SIDE)
    old = tmp_path / "old.pt"
    torch.save(random_state("rosinality"), old, _use_new_zipfile_serialization=False)
    assert read_checkpoint(old, SIDE).name == "rosinality"


def test_numbers_that_no_flow_has(tmp_path: Path) -> None:
    path = save(random_state("rosinality"), tmp_path / "model.pt")
    for resolution in (2048, 10**9):
        with pytest.raises(UnsupportedCheckpoint, match="at most 1024 is expected"):
            read_checkpoint(path, resolution)
    numbered = {name.replace("blocks.1.", f"blocks.{'9' * 5000}."): value for name, value in random_state("rosinality").items()}
    with pytest.raises(UnsupportedCheckpoint):
        read_checkpoint(save(numbered, path), SIDE)


def test_other_files_are_refused(tmp_path: Path) -> None:
    for content, words in [({"fc.weight": torch.zeros(2)}, "no known Glow"), ([1, 2], "no dictionary"), ({}, "none")]:
        with pytest.raises(UnsupportedCheckpoint, match=words):
            read_checkpoint(save(content, tmp_path / "model.pt"))
    whole = save(random_state("y0ast"), tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnsupportedCheckpoint, match="damaged"):
        read_checkpoint(tmp_path / "model.pt")
