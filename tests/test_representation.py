"""The losses of the representation models, against Monte Carlo, torch.distributions and arithmetic by hand."""

# mypy: allow-untyped-calls

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.distributions import Laplace, Normal, kl_divergence

from harness import models
from harness.models import representation
from harness.models.representation import kl_to_prior, laplace_cross_entropy, normal_entropy, share_unchanged

NAMES = [model.name for model in models.MODELS.values() if model.family == "representation"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def posteriors(rows: int = 8, latents: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, latents, dtype=torch.float64), torch.randn(rows, latents, dtype=torch.float64)


def test_kl_and_entropy_are_those_of_torch() -> None:
    mean, log_variance = posteriors()
    normal = Normal(mean, (0.5 * log_variance).exp())
    torch.testing.assert_close(kl_to_prior(mean, log_variance), kl_divergence(normal, Normal(0.0, 1.0)).sum(1).mean())
    torch.testing.assert_close(normal_entropy(log_variance), normal.entropy().sum(1).mean())


@pytest.mark.parametrize("rate", [1.0, 6.0])
def test_slowvaes_cross_entropy_is_what_monte_carlo_estimates(rate: float) -> None:
    mean, log_variance = posteriors(rows=6)
    samples = mean + torch.randn(200_000, *mean.shape, dtype=torch.float64) * (0.5 * log_variance).exp()
    partners = mean.roll(3, dims=0)  # of t − 1 for t, and the other way round
    estimates = -Laplace(partners, 1 / rate).log_prob(samples).sum(2)  # (samples, 2B)
    standard_error = estimates.std(0).square().sum().sqrt() / 3 / math.sqrt(len(samples))
    difference = laplace_cross_entropy(mean, log_variance, rate) - estimates.mean(0).sum() / 3
    assert abs(difference) < 4 * standard_error


def test_slowvaes_cross_entropy_by_hand() -> None:
    # No spread: −ln Laplace(D) = −ln(λ/2) + λ |D|, in both directions.
    mean = torch.tensor([[0.0, 1.0], [0.5, 3.0]], dtype=torch.float64)
    spread = torch.full_like(mean, -60.0)
    expected = 2 * (2 * -math.log(6 / 2) + 6 * (0.5 + 2.0))
    assert laplace_cross_entropy(mean, spread, 6.0).item() == pytest.approx(expected)


def test_slowvaes_loss_is_the_sum_of_its_parts() -> None:
    network: Any = models.find("slowvae").build(1, 3)
    parts = network.loss(torch.rand(4, 1, 64, 64), torch.rand(4, 1, 64, 64))
    expected = 2 * parts["reconstruction"] + 1 * parts["kl"] + 10 * parts["transition"]
    torch.testing.assert_close(parts["loss"], expected)


def test_ada_gvae_by_hand() -> None:
    # One pair, three latents: the same; a moved mean; another variance. d = 0; 4; 4 + 0 − 1 − ln 4 = 1.61; threshold 2.
    mean = torch.tensor([[1.0, 0.0, 0.5], [1.0, 2.0, 0.5]])
    log_variance = torch.tensor([[0.0, 0.0, math.log(4.0)], [0.0, 0.0, 0.0]])
    new_mean, new_log_variance = share_unchanged(mean, log_variance)
    torch.testing.assert_close(new_mean, torch.tensor([[1.0, 0.0, 0.5], [1.0, 2.0, 0.5]]))
    torch.testing.assert_close(new_log_variance, torch.tensor([[0.0, 0.0, math.log(2.5)], [0.0, 0.0, math.log(2.5)]]))


def test_ada_gvae_averages_means_too_and_judges_each_pair_by_itself() -> None:
    # Two pairs in two latents, variance 1: d is the squared distance. The first: .04 and 1; the second: 100 and 9.
    mean = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.2, 1.0], [10.0, 3.0]])
    new_mean, new_log_variance = share_unchanged(mean, torch.zeros(4, 2))
    torch.testing.assert_close(new_mean, torch.tensor([[0.1, 0.0], [0.0, 1.5], [0.1, 1.0], [10.0, 1.5]]))
    torch.testing.assert_close(new_log_variance, torch.zeros(4, 2))


def test_ada_gvaes_loss_halves_both_terms() -> None:
    network: Any = models.find("ada-gvae").build(1, 3, beta=3.0)
    first, partner = torch.rand(4, 1, 64, 64), torch.rand(4, 1, 64, 64)
    torch.manual_seed(1)
    parts = network.loss(first, partner)
    mean, log_variance = share_unchanged(*network.posterior(torch.cat([first, partner])))
    torch.manual_seed(1)
    both = network.reconstruction(torch.cat([first, partner]), mean, log_variance)  # mean over all images: ½ (rec0 + rec1)
    kl = 0.5 * (kl_to_prior(mean[:4], log_variance[:4]) + kl_to_prior(mean[4:], log_variance[4:]))
    torch.testing.assert_close(parts["loss"], both + 3 * kl)


def test_beta_vae_reconstruction_is_summed_over_pixels() -> None:
    network: Any = models.find("beta-vae").build(1, 3)
    with torch.no_grad():
        for parameter in network.decoder.parameters():
            parameter.zero_()  # logit 0: ln 2 nats per pixel
        parts = network.loss(torch.rand(4, 1, 64, 64))
    assert parts["reconstruction"].item() == pytest.approx(64 * 64 * math.log(2), rel=1e-5)
    torch.testing.assert_close(parts["loss"], parts["reconstruction"] + 4 * parts["kl"])


def test_pcls_logits_by_hand() -> None:
    network: Any = models.find("pcl").build(1, 3, latents=2)
    after, before = torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([[0.5, 2.0], [0.0, 0.0]])
    # −(|1 − .5| + |2 − 2|) + 1 + 4; −(3 + 1) + 9 + 1
    torch.testing.assert_close(network.logits(after, before), torch.tensor([4.5, 6.0]))
    with torch.no_grad():
        network.a.copy_(torch.tensor([2.0, 0.0]))
        network.b.copy_(torch.tensor([1.0, 1.0]))
        network.c.copy_(torch.tensor([0.0, -1.0]))
        network.m.fill_(0.25)
    # −(|2 + .5| + |2 − 1|) + 5 + .25; −(|6| + |−1|) + 10 + .25
    torch.testing.assert_close(network.logits(after, before), torch.tensor([1.75, 3.25]))


def test_pcls_negatives_are_the_batch_rolled_by_one() -> None:
    network: Any = models.find("pcl").build(1, 3)
    before, after = torch.rand(3, 1, 64, 64), torch.rand(3, 1, 64, 64)
    parts = network.loss(before, after)
    h_before, h_after = network.encode(torch.cat([before, after])).chunk(2)
    positive = network.logits(h_after, h_before)
    negative = network.logits(h_after, h_before[[2, 0, 1]])
    expected = (torch.nn.functional.softplus(-positive).mean() + torch.nn.functional.softplus(negative).mean()) / 2
    torch.testing.assert_close(parts["loss"], expected)


def test_pcls_latents_are_normalised_or_left() -> None:
    images = torch.rand(64, 1, 64, 64)
    normalised: Any = models.find("pcl").build(1, 3, batch_norm=True)
    for factor in (1000, 1e-4):  # nor does the encoder escape by shrinking
        with torch.no_grad():
            normalised.encoder[-1].weight.mul_(factor)
            normalised.encoder[-1].bias.zero_()
        torch.testing.assert_close(normalised.encode(images).std(0, correction=0), torch.ones(10), rtol=1e-2, atol=1e-2)
    plain: Any = models.find("pcl").build(1, 3)
    torch.testing.assert_close(plain.encode(images), plain.encoder(images)[:, :10])


def test_initialisation_of_the_vaes() -> None:
    network: Any = models.find("beta-vae").build(3, 3)
    first = network.encoder[0]
    assert first.weight.std().item() == pytest.approx(math.sqrt(2 / (3 * 16)), rel=0.1)
    assert first.bias.abs().max() == 0
    assert network.decoder[3].bias.abs().max() > 0  # transposed convolutions are torch's own


@pytest.mark.parametrize("name", NAMES)
def test_it_can_learn_a_few_pairs_by_heart(name: str) -> None:
    network: Any = models.find(name).build(1, 3)
    # Four images of a bar, and their partners: the same ones. PCL tells these pairs from shuffled ones.
    images = torch.zeros(4, 1, 64, 64)
    for position in range(4):
        images[position, :, :, 16 * position : 16 * position + 12] = 1
    views = (images,) if name == "beta-vae" else (images, images)
    encoding = [p for key, p in network.named_parameters() if not key.startswith("readout.")]
    optimizer = torch.optim.Adam(encoding, 1e-3)
    losses = []
    for _ in range(60):
        parts = network.loss(*views)
        losses.append(parts["loss"].item())
        optimizer.zero_grad()
        parts["loss"].backward()
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]
    assert network.encode(images).shape == (4, 10)


def test_what_the_readout_is() -> None:
    network: Any = models.find("pcl").build(1, 4)
    widths = [layer.out_features for layer in network.readout if isinstance(layer, torch.nn.Linear)]
    assert widths == [*representation.READOUT, 4]


@pytest.mark.parametrize(
    "name, options",
    [("pcl", {"latents": 0}), ("beta-vae", {"beta": -1.0}), ("slowvae", {"gamma": -1.0}), ("ada-gvae", {"beta": math.nan})],
)
def test_options_that_no_representation_can_have_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"model.{next(iter(options))} must be at least"):
        models.find(name).build(1, 3, **options)
