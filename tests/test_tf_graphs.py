"""Graphs by the original code under TensorFlow 1.8, in the forms that people's tools make of them (golden/make_tf_graphs.py)."""

from __future__ import annotations

import functools
import io
import lzma
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from numpy.typing import NDArray
from torch import Tensor

from celebglow.convert.checkpoints import convert
from celebglow.convert.graph_compiler import compile_graph
from celebglow.convert.graph_glow import GraphGlow
from celebglow.decoder import Decoder
from celebglow.flow import Flow
from celebglow.glow import Glow

LEVEL = {"affine": 1, "eight bits": 1}  # grey levels between two values of an image, where it is not of 5 bits
EXECUTED = {"dilated", "deeper"}  # couplings that no Glow of ours has


@functools.cache
def golden() -> dict[str, NDArray[np.generic]]:
    with np.load(io.BytesIO(lzma.decompress((ROOT / "tests/golden/tf_graphs.npz.xz").read_bytes()))) as file:
        return dict(file)


def graphs() -> list[tuple[str, str]]:
    return sorted(
        (flow, form) for flow, form, what in (key.split("/") for key in golden() if key.count("/") == 2) if what == "graph"
    )


def latents_of(flow: str, shapes: list[tuple[int, int, int]], random: bool) -> Tensor:
    draw = np.random.RandomState(1)
    parts = []
    for level, (c, h, w) in enumerate(shapes):
        encoded = golden()[f"{flow}/eps_{level}"]
        eps = draw.normal(scale=0.7, size=(len(encoded), h, w, c)).astype(np.float32) if random else encoded
        parts.append(torch.from_numpy(eps).permute(0, 3, 1, 2).flatten(1))
    return torch.cat(parts, dim=1)


def assert_images(flow: Flow, name: str, form: str) -> None:
    """Equal to TensorFlow's; a value at the edge of two levels may fall to either side."""
    decode = Decoder(flow) if isinstance(flow, Glow) else flow.decode
    for key, random in (("image", False), ("random", True)):
        with torch.no_grad():
            images = flow.postprocess(decode(latents_of(name, flow.latent_shapes, random))).permute(0, 2, 3, 1).numpy()
        difference = np.abs(images.astype(int) - golden()[f"{name}/{form}/{key}"].astype(int))
        assert difference.max() <= LEVEL.get(name, 8)
        assert (difference > 0).sum() <= 1


@pytest.mark.parametrize("name, form", graphs(), ids="-".join)
def test_every_form_decodes_to_tensorflows_images(name: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "graph.pb").write_bytes(golden()[f"{name}/{form}/graph"].tobytes())
    conversion = convert(tmp_path / "graph.pb")
    assert isinstance(conversion.flow, GraphGlow if name in EXECUTED else Glow), conversion.note
    assert_images(conversion.flow, name, form)
    assert_images(GraphGlow.from_program(compile_graph(tmp_path / "graph.pb")), name, form)
    assert_images(GraphGlow.from_graph(tmp_path / "graph.pb"), name, form)


@pytest.mark.parametrize("name", sorted({flow for flow, _ in graphs()} - EXECUTED))
def test_what_becomes_a_glow_encodes_as_the_original(name: str, tmp_path: Path) -> None:
    (tmp_path / "graph.pb").write_bytes(golden()[f"{name}/plain/graph"].tobytes())
    flow = convert(tmp_path / "graph.pb").flow
    assert isinstance(flow, Glow)
    noised = torch.from_numpy(golden()[f"{name}/noised"]).permute(0, 3, 1, 2)
    expected = latents_of(name, flow.latent_shapes, random=False)
    with torch.no_grad():
        latents = flow.encode(noised).latents
        likelihood = flow.log_prob(noised)
    assert (latents - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max())) * 10
    torch.testing.assert_close(likelihood, torch.from_numpy(golden()[f"{name}/objective"]), rtol=2e-6, atol=2e-3)
