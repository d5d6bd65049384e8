"""Representations learned without labels, then read out: β-VAE, Ada-GVAE, SlowVAE and PCL.

Each has an encoder, a loss on images or pairs of images, and a readout: an MLP that regresses the factors from the frozen encoder's
latents. Losses are functions of tensors, so that they can be checked by hand.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.data.pairs import ChangedFactors, LaplaceSteps
from harness.models.convolutional import FEATURES, convolutions, dense
from splits import Split
from splits.errors import InputError

if TYPE_CHECKING:
    from harness.data.batches import PairSampler

READOUT = (256, 256, 256, 256, 256)
LOG_2PI = math.log(2 * math.pi)


class Representation(nn.Module):
    """A model trained in two phases: its encoder without labels by `loss`, then `readout` on its frozen latents.

    Attributes:
        latents: z, the width of `encode`'s result.
        readout: (B, z) → (B, num_outputs).
    """

    encoder: nn.Module

    def __init__(self, num_outputs: int, latents: int) -> None:
        super().__init__()
        if latents < 1:
            raise InputError(f"model.latents must be at least 1, not {latents}")
        self.latents = latents
        self.readout = nn.Sequential(*dense([latents, *READOUT, num_outputs]))

    def pairs(self, split: Split) -> PairSampler | None:
        """How pairs of images are drawn from the train side of a split; None if the loss takes single images."""
        return None

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, 64, 64) in [0, 1] → (B, z) float32."""
        raise NotImplementedError

    def loss(self, *views: Tensor) -> dict[str, Tensor]:
        """Scalars by name, "loss" the one to minimise; `views` are (B, C, 64, 64) in [0, 1], two where there are pairs, else one."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, 64, 64) → (B, num_outputs): the factors, read out of the latents."""
        outputs: Tensor = self.readout(self.encode(images))
        return outputs


class VAE(Representation):
    """The convolutional VAE of Klindt et al.'s slow_disentanglement, on the benchmark's CNN and its mirror; Bernoulli pixels.

    Weights of linear and convolution layers start Kaiming normal, biases at zero; transposed convolutions as torch has them.

    Attributes:
        beta, gamma, rate: of the loss, as far as a subclass has them.
    """

    beta: float
    gamma: float
    rate: float

    def __init__(self, in_channels: int, num_outputs: int, latents: int, **weights: float) -> None:
        super().__init__(num_outputs, latents)
        for name, weight in weights.items():  # of a part of the loss, which less than 0 would maximise
            if not weight >= 0:
                raise InputError(f"model.{name} must be at least 0, not {weight}")
            setattr(self, name, weight)
        self.encoder = nn.Sequential(*convolutions(in_channels), nn.Linear(FEATURES, 2 * latents))
        layers: list[nn.Module] = [nn.Linear(latents, 256), nn.ReLU(inplace=True), nn.Unflatten(1, (256, 1, 1))]
        for before, after, kernel, stride, padding in ((256, 64, 4, 1, 0), (64, 64, 4, 2, 1), (64, 32, 4, 2, 1), (32, 32, 4, 2, 1)):
            layers += [nn.ConvTranspose2d(before, after, kernel, stride, padding), nn.ReLU(inplace=True)]
        self.decoder = nn.Sequential(*layers, nn.ConvTranspose2d(32, in_channels, 4, 2, 1))
        for network in (self.encoder, self.decoder):
            for module in network.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    assert module.bias is not None
                    nn.init.zeros_(module.bias)

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x), (B, z) float32 each."""
        mean, log_variance = self.encoder(images).float().chunk(2, dim=1)
        return mean, log_variance

    def encode(self, images: Tensor) -> Tensor:
        return self.posterior(images)[0]

    def reconstruction(self, images: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Cross-entropy of the pixels given a sample of z, in nats, summed over pixels, mean over images."""
        logits = self.decoder(mean + torch.randn_like(mean) * (0.5 * log_variance).exp())
        return F.binary_cross_entropy_with_logits(logits.float(), images.float(), reduction="sum") / len(images)


class BetaVAE(VAE):
    def __init__(self, in_channels: int, num_outputs: int, latents: int, beta: float) -> None:
        super().__init__(in_channels, num_outputs, latents, beta=beta)

    def loss(self, *views: Tensor) -> dict[str, Tensor]:
        (images,) = views
        posterior = self.posterior(images)
        reconstruction, kl = self.reconstruction(images, *posterior), kl_to_prior(*posterior)
        return {"loss": reconstruction + self.beta * kl, "reconstruction": reconstruction, "kl": kl}


class AdaGVAE(VAE):
    def __init__(self, in_channels: int, num_outputs: int, latents: int, beta: float, k: int) -> None:
        super().__init__(in_channels, num_outputs, latents, beta=beta)
        self.k = k

    def pairs(self, split: Split) -> PairSampler:
        return ChangedFactors(split, self.k)

    def loss(self, *views: Tensor) -> dict[str, Tensor]:
        images = torch.cat(views)
        mean, log_variance = self.posterior(images)
        posterior = share_unchanged(mean, log_variance)
        reconstruction, kl = self.reconstruction(images, *posterior), kl_to_prior(*posterior)
        return {"loss": reconstruction + self.beta * kl, "reconstruction": reconstruction, "kl": kl}


class SlowVAE(VAE):
    def __init__(
        self, in_channels: int, num_outputs: int, latents: int, beta: float, gamma: float, rate: float, unchanged: bool
    ) -> None:
        super().__init__(in_channels, num_outputs, latents, beta=beta, gamma=gamma, rate=rate)
        self.unchanged = unchanged

    def pairs(self, split: Split) -> PairSampler:
        return LaplaceSteps(split, unchanged=self.unchanged)

    def loss(self, *views: Tensor) -> dict[str, Tensor]:
        images = torch.cat(views)
        mean, log_variance = self.posterior(images)
        reconstruction, kl = self.reconstruction(images, mean, log_variance), kl_to_prior(mean, log_variance)
        transition = laplace_cross_entropy(mean, log_variance, self.rate) - normal_entropy(log_variance)
        loss = 2 * reconstruction + self.beta * kl + self.gamma * transition
        return {"loss": loss, "reconstruction": reconstruction, "kl": kl, "transition": transition}


class PCL(Representation):
    """Its encoder ends in 2z outputs as the VAEs', of which the first z are the latents."""

    def __init__(self, in_channels: int, num_outputs: int, latents: int, batch_norm: bool, unchanged: bool) -> None:
        super().__init__(num_outputs, latents)
        self.unchanged = unchanged
        self.encoder = nn.Sequential(*convolutions(in_channels), nn.Linear(FEATURES, 2 * latents))
        # With the usual eps the encoder shrinks until eps counts, and the latents are of the scale that the loss wants after all.
        self.normalization = nn.BatchNorm1d(latents, eps=1e-12, affine=False) if batch_norm else nn.Identity()
        self.a = nn.Parameter(torch.ones(latents))
        self.b = nn.Parameter(-torch.ones(latents))
        self.c = nn.Parameter(torch.zeros(latents))
        self.m = nn.Parameter(torch.zeros(()))

    def pairs(self, split: Split) -> PairSampler:
        return LaplaceSteps(split, unchanged=self.unchanged)

    def encode(self, images: Tensor) -> Tensor:
        latents: Tensor = self.normalization(self.encoder(images).float()[:, : self.latents])
        return latents

    def loss(self, *views: Tensor) -> dict[str, Tensor]:
        before, after = self.encode(torch.cat(views)).chunk(2)
        logits = torch.cat([self.logits(after, before), self.logits(after, before.roll(1, dims=0))])
        labels = torch.cat([torch.ones(len(after)), torch.zeros(len(after))]).to(logits)
        accuracy = ((logits > 0) == (labels > 0)).float().mean()
        scale = after.detach().square().mean().sqrt()
        return {"loss": F.binary_cross_entropy_with_logits(logits, labels), "accuracy": accuracy, "scale": scale}

    def logits(self, after: Tensor, before: Tensor) -> Tensor:
        """The regressor r = −Σ |a h(x_t) + b h(x_{t−1}) + c| + Σ h(x_t)² + m, (B,), of latents (B, z)."""
        return -(self.a * after + self.b * before + self.c).abs().sum(1) + after.square().sum(1) + self.m


def normal_entropy(log_variance: Tensor) -> Tensor:
    """Entropy of N(·, v), in nats, summed over latents, mean over rows; `log_variance` (B, z)."""
    return 0.5 * (log_variance + LOG_2PI + 1).sum(1).mean()


def kl_to_prior(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(m, v) ‖ N(0, 1)), in nats, summed over latents, mean over rows; both (B, z)."""
    cross_entropy = 0.5 * (mean.square() + log_variance.exp() + LOG_2PI).sum(1).mean()
    return cross_entropy - normal_entropy(log_variance)


def share_unchanged(mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tensor]:
    """Ada-GVAE: latents in which the two posteriors of a pair are close take their average.

    d = v0/v1 + (m1 − m0)²/v1 − 1 + ln v1 − ln v0 per latent, twice the KL; close is d ≤ (max d + min d) / 2 of the pair.

    Args:
        mean, log_variance: (2B, z), the first images and then their partners, in the same order.

    Returns:
        the new ones.
    """
    (m0, m1), (l0, l1) = mean.chunk(2), log_variance.chunk(2)
    v0, v1 = l0.exp(), l1.exp()
    d = v0 / v1 + (m1 - m0).square() / v1 - 1 + l1 - l0
    changed = d > 0.5 * (d.amax(1, keepdim=True) + d.amin(1, keepdim=True))
    mean_both, log_both = 0.5 * (m0 + m1), (0.5 * (v0 + v1)).log()
    means = [torch.where(changed, own, mean_both) for own in (m0, m1)]
    logs = [torch.where(changed, own, log_both) for own in (l0, l1)]
    return torch.cat(means), torch.cat(logs)


def laplace_cross_entropy(mean: Tensor, log_variance: Tensor, rate: float) -> Tensor:
    """SlowVAE: E[−ln Laplace(z_t; m_{t−1}, 1/λ)] under z_t ~ N(m_t, v_t), plus the same with t and t−1 swapped.

    With D = m_t − m_{t−1}: −ln(λ/2) + λ (√(2v/π) e^{−D²/2v} + D (1 − 2Φ(−D/√v))), in nats, summed over latents, mean over pairs.

    Args:
        mean, log_variance: (2B, z), the first images and then their partners, in the same order.
        rate: λ.
    """
    variance, deviation = log_variance.exp(), (0.5 * log_variance).exp()
    difference = mean - mean.roll(len(mean) // 2, dims=0)
    # 1 − 2Φ(−x) = erf(x / √2)
    distance = deviation * math.sqrt(2 / math.pi) * (-difference.square() / (2 * variance)).exp()
    distance = distance + difference * torch.erf(difference / (deviation * math.sqrt(2)))
    return (rate * distance - math.log(rate / 2)).sum(1).mean() * 2
