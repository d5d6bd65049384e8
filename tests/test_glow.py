"""The flow: exact inverse, exact likelihood, and the numbers of the original code."""

# mypy: allow-untyped-calls

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import normflows
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from celebglow.decoder import Decoder
from celebglow.glow import Glow
from celebglow.layers import AffineCoupling, Step
from helpers.flows import random_glow

GOLDEN = Path(__file__).parent / "golden"
FLOWS = [
    {},
    {"coupling": "affine"},
    {"border": True},
    {"coupling": "affine", "border": True, "channels": 1, "learn_top": False},
    {"steps": (1, 2, 1), "widths": (4, 6, 8), "bits": 8, "quantize": True},
    {"steps": (2,), "channels": 1},
]


def data(flow: Glow, count: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, flow.config.channels, flow.config.resolution, flow.config.resolution)
    return torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5


@pytest.mark.parametrize("config", FLOWS)
def test_decode_inverts_encode(config: dict[str, Any]) -> None:
    flow = random_glow(**config).double()
    x = data(flow, 3)
    latents, log_det = flow.encode(x)
    assert latents.shape == (3, flow.num_latents)
    assert log_det.shape == (3,)
    assert flow.num_latents == x[0].numel()
    assert (flow.decode(latents) - x).abs().max() < 1e-10


@pytest.mark.parametrize("config", FLOWS)
def test_encode_inverts_decode(config: dict[str, Any]) -> None:
    flow = random_glow(**config).double()
    latents = torch.randn(2, flow.num_latents, dtype=torch.float64)
    assert (flow.encode(flow.decode(latents)).latents - latents).abs().max() < 1e-10


@pytest.mark.parametrize("config", FLOWS)
def test_log_det_is_that_of_the_jacobian(config: dict[str, Any]) -> None:
    flow = random_glow(**config | {"resolution": 8}).double()
    x = data(flow, 1)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.encode(x).latents, x).reshape(flow.num_latents, -1)
    assert flow.encode(x).log_det.item() == pytest.approx(torch.linalg.slogdet(jacobian).logabsdet.item(), abs=1e-8)


def test_log_prob_is_the_normal_density_plus_log_det_less_the_bins() -> None:
    flow = random_glow().double()
    x = data(flow, 4)
    latents, log_det = flow.encode(x)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(latents).sum(dim=1)
    expected = normal + log_det - flow.num_latents * math.log(32)
    torch.testing.assert_close(flow.log_prob(x), expected)
    torch.testing.assert_close(flow.bits_per_dim(x), -expected / flow.num_latents / math.log(2))


@settings(max_examples=20, deadline=None)
@given(
    levels=st.integers(1, 3),
    steps=st.integers(1, 3),
    width=st.integers(1, 9),
    channels=st.integers(1, 3),
    coupling=st.sampled_from(["additive", "affine"]),
    border=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape_inverts(levels: int, steps: int, width: int, channels: int, coupling: str, border: bool, seed: int) -> None:
    flow = random_glow(
        seed, resolution=8, steps=(steps,) * levels, widths=width, channels=channels, coupling=coupling, border=border
    ).double()
    x = data(flow, 2, seed)
    latents = flow.encode(x).latents
    assert (flow.decode(latents) - x).abs().max() < 1e-9
    assert (Decoder(flow)(latents) - x).abs().max() < 1e-9


@pytest.mark.parametrize("config", FLOWS)
def test_decoder_is_the_inverse_rewritten(config: dict[str, Any]) -> None:
    flow = random_glow(**config)
    latents = torch.randn(3, flow.num_latents)
    with torch.no_grad():
        expected = flow.double().decode(latents.double())
        torch.testing.assert_close(Decoder(flow.float())(latents).double(), expected, atol=2e-5, rtol=1e-5)


def original(kind: str) -> tuple[Glow, dict[str, np.ndarray]]:
    """The flow with the original code's variables, in float64, and its results."""
    with np.load(GOLDEN / f"glow_original_{kind}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    config = json.loads(str(arrays["config"]))
    flow = Glow(
        resolution=config["image_size"],
        steps=(config["depth"],) * config["n_levels"],
        widths=config["width"],
        coupling="affine" if config["flow_coupling"] else "additive",
        bits=config["n_bits_x"],
        border=True,
        learn_top=config["learntop"],
    )

    def flat(name: str) -> Tensor:
        return torch.from_numpy(arrays[f"var:model/{name}"]).flatten()

    def kernel(name: str) -> Tensor:
        return torch.from_numpy(arrays[f"var:model/{name}"]).permute(3, 2, 0, 1)

    state: dict[str, Tensor] = {}
    for level in range(config["n_levels"]):
        for step in range(config["depth"]):
            ours, theirs = f"levels.{level}.steps.{step}.", f"{level}/{step}/"
            state[ours + "actnorm.bias"] = flat(theirs + "actnorm_center/b")
            state[ours + "actnorm.logs"] = flat(theirs + "actnorm_scale/logs")
            state[ours + "mix.weight"] = torch.from_numpy(arrays[f"var:model/{theirs}invconv/W"]).T
            for i in (1, 2):
                state[ours + f"coupling.net.weight{i}"] = kernel(f"{theirs}f1/l_{i}/W")
                state[ours + f"coupling.net.norm{i}.bias"] = flat(f"{theirs}f1/l_{i}/actnorm_center/b")
                state[ours + f"coupling.net.norm{i}.logs"] = flat(f"{theirs}f1/l_{i}/actnorm_scale/logs")
            state[ours + "coupling.net.conv3.weight"] = kernel(theirs + "f1/l_last/W")
            state[ours + "coupling.net.conv3.bias"] = flat(theirs + "f1/l_last/b")
            state[ours + "coupling.net.conv3.logs"] = flat(theirs + "f1/l_last/logs")
        if level < config["n_levels"] - 1:
            ours = f"levels.{level}.prior.conv."
            state[ours + "weight"] = kernel(f"pool{level}/conv/W")
            state[ours + "bias"] = flat(f"pool{level}/conv/b")
            state[ours + "logs"] = flat(f"pool{level}/conv/logs")
    state["top_prior.border_weight"] = kernel("prior/p/W")[:, -1:]
    state["top_prior.bias"], state["top_prior.logs"] = flat("prior/p/b"), flat("prior/p/logs")
    flow.load_state_dict(state)
    return flow.double().eval(), arrays


def nchw(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2)


@pytest.mark.parametrize("kind", ["additive", "affine"])
def test_the_original_codes_latents_and_likelihood(kind: str) -> None:
    flow, results = original(kind)
    x = nchw(results["io:x_noised"]).double()
    for level, part in enumerate(flow.split_latents(flow.encode(x).latents)):
        assert (part - nchw(results[f"io:eps_{level}"])).abs().max() < 1e-4
    np.testing.assert_allclose(flow.log_prob(x).detach().numpy(), results["io:objective"], rtol=1e-6)


@pytest.mark.parametrize("kind", ["additive", "affine"])
@pytest.mark.parametrize("latents, images", [("eps", "dec"), ("rand_eps", "rand_dec")])
def test_the_original_codes_images(kind: str, latents: str, images: str) -> None:
    flow, results = original(kind)
    eps = torch.cat([nchw(results[f"io:{latents}_{level}"]).flatten(1) for level in range(3)], dim=1).double()
    decoded = flow.decode(eps)
    assert (decoded - nchw(results[f"io:{images}_float"])).abs().max() < 1e-4
    assert torch.equal(flow.postprocess(decoded), nchw(results[f"io:{images}_x"]))
    assert (Decoder(flow)(eps) - decoded).abs().max() < 1e-10


def test_the_original_codes_preprocessing() -> None:
    flow, results = original("additive")
    difference = nchw(results["io:x_noised"]).double() - flow.preprocess(nchw(results["io:x"]))
    assert difference.min() >= 0  # the dequantization noise and nothing else
    assert difference.max() < 1 / 32


@pytest.mark.parametrize("coupling", ["additive", "affine"])
def test_a_step_against_normflows(coupling: str) -> None:
    """normflows' own layers with our weights; its `inverse` is the direction from data to latents."""
    torch.manual_seed(3)
    step = Step(8, 6, coupling, border=False).double()
    with torch.no_grad():
        for parameter in step.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64)

    norm = normflows.flows.ActNorm((8, 1, 1)).double()
    norm.data_dep_init_done = torch.tensor(1.0)
    norm.s.data = -3 * step.actnorm.logs.detach()[None, :, None, None]
    norm.t.data = -step.actnorm.bias.detach()[None, :, None, None]
    mix = normflows.flows.Invertible1x1Conv(8).double()
    mix.W.data = step.mix.weight.detach()

    class ParamMap(torch.nn.Module):
        def forward(self, x1: Tensor) -> Tensor:  # normflows subtracts the shift, and adds in "additive"
            h: Tensor = step.coupling.net(x1).clone()
            if coupling == "additive":
                return -h
            h[:, 0::2] *= -1
            return h

    affine = normflows.flows.AffineCouplingBlock(ParamMap(), scale=coupling == "affine", scale_map="sigmoid")
    total = torch.zeros(2, dtype=torch.float64)
    expected = x
    for layer in (norm, mix, affine):
        expected, log_det = layer.inverse(expected)
        total = total + log_det
    z, ours = step(x)
    torch.testing.assert_close(z, expected)
    torch.testing.assert_close(ours.expand(2), total)


def test_initialization_gives_every_actnorm_unit_statistics() -> None:
    torch.manual_seed(0)
    flow = Glow(resolution=16, steps=(2, 2), widths=8)
    images = torch.randint(0, 256, (64, 3, 16, 16), dtype=torch.uint8)
    x = flow.preprocess(images, noise=True)
    flow.initialize(x)
    std, mean = torch.std_mean(flow.levels[0].steps[0].actnorm(torch.nn.functional.pixel_unshuffle(x, 2))[0], dim=(0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(12), atol=1e-4, rtol=0)
    torch.testing.assert_close(std, torch.ones(12), atol=1e-2, rtol=0)
    assert not any(getattr(module, "initializing", False) for module in flow.modules())


def test_a_lower_precision_of_the_coupling_still_inverts() -> None:
    flow = random_glow()
    flow.set_coupling_dtype(torch.bfloat16)
    x = data(flow, 2).float()
    assert (flow.decode(flow.encode(x).latents) - x).abs().max() < 1e-4


@pytest.mark.parametrize("bits", [1, 5, 8])
def test_pixels_survive_pre_and_postprocessing(bits: int) -> None:
    flow = random_glow(bits=bits, quantize=True)
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(1, 3, 16, 16)
    levels = images // 2 ** (8 - bits) * 2 ** (8 - bits)
    assert torch.equal(flow.postprocess(flow.preprocess(images) + 1e-4), levels)
    assert torch.equal(flow.postprocess(flow.preprocess(images, noise=True) + 1e-6), levels)


def test_save_and_load(tmp_path: Path) -> None:
    flow = random_glow(coupling="affine", border=True)
    flow.save_pretrained(tmp_path)
    loaded = Glow.from_pretrained(tmp_path, low_cpu_mem_usage=False)
    assert loaded.config.coupling == "affine"
    latents = torch.randn(2, flow.num_latents)
    assert torch.equal(loaded.decode(latents), flow.decode(latents))


def test_samples_depend_on_the_generator_only() -> None:
    flow = random_glow()
    one = flow.sample(3, 0.7, torch.Generator().manual_seed(5))
    assert one.shape == (3, 3, 16, 16)
    assert one.dtype == torch.uint8
    assert torch.equal(one, flow.sample(3, 0.7, torch.Generator().manual_seed(5)))
    assert not torch.equal(one, flow.sample(3, 0.7, torch.Generator().manual_seed(6)))


@pytest.mark.parametrize(
    "config, words",
    [
        ({"resolution": 20, "steps": (1, 1, 1)}, "must be divisible"),
        ({"widths": (8, 8, 8)}, "3 widths are given for 2 levels"),
        ({"coupling": "afine"}, "expected one of additive, affine"),
        ({"bits": 9}, "bits"),
    ],
)
def test_impossible_flows(config: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        random_glow(**config)


def test_latents_of_another_flow_are_refused() -> None:
    with pytest.raises(ValueError, match="768"):
        random_glow().decode(torch.zeros(1, 100))


def test_affine_coupling_starts_near_the_identity() -> None:
    x = torch.randn(1, 4, 4, 4)
    z, _ = AffineCoupling(4, 8, border=False)(x)
    torch.testing.assert_close(z[:, 2:], x[:, 2:] * torch.sigmoid(torch.tensor(2.0)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_decodes_the_same_pictures() -> None:
    flow = random_glow()
    latents = torch.randn(4, flow.num_latents)
    with torch.no_grad():
        on_cpu = Decoder(flow)(latents)
        on_gpu = Decoder(flow.cuda())(latents.cuda()).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    "contexts, words",
    [
        ({"conv9": [3, 3]}, "unknown place of a context 'conv9'"),
        ({"conv1": [3]}, r"contexts of conv1: a side for each of 2 levels is expected, at most \[8, 4\], got \[3\]"),
        ({"prior": [9, 0]}, "contexts of prior"),
        ({"conv2": [-1, 0]}, "contexts of conv2"),
    ],
)
def test_contexts_that_no_glow_has_are_refused(contexts: dict[str, list[int]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Glow(resolution=16, steps=(1, 1), widths=8, contexts=contexts)
