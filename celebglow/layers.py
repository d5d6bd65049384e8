"""The layers of a Glow: one flow step, its parts, and the priors.

Every invertible layer has `forward(x) -> (z, log_det)` and `inverse(z) -> x`; tensors are
(B, C, H, W), `log_det` is in nats and broadcasts to (B,). The parametrisation is that of the original code
(openai/glow; Kingma & Dhariwal 2018, arXiv 1807.03039, section 3), so that its weights carry over one to one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOG_SCALE = 3.0  # the original's `logscale_factor`: a learned log-scale acts as exp(3 * logs)
SIGMOID_SHIFT = 2.0  # affine coupling starts near the identity: sigmoid(h + 2)


def squeeze(x: Tensor) -> Tensor:
    """Trade space for channels: (B, C, 2H, 2W) to (B, 4C, H, W), channel order c, row, column."""
    return F.pixel_unshuffle(x, 2)


def unsqueeze(x: Tensor) -> Tensor:
    """Undo `squeeze`: (B, 4C, H, W) to (B, C, 2H, 2W)."""
    return F.pixel_shuffle(x, 2)


def border_channel(x: Tensor) -> Tensor:
    """The original's edge marker: (B, 1, H, W), 1 on the padding ring, 0 inside; x is the unpadded (B, C, H-2, W-2)."""
    inside = x.new_zeros(x.shape[0], 1, x.shape[2], x.shape[3])
    return F.pad(inside, (1, 1, 1, 1), value=1.0)


def spread(compact: Tensor, height: int, width: int) -> Tensor:
    """A map (C, h, w) over an image, (C, height, width): its middle row and column repeated, the others at the border.

    What convolutions make of the border channel, or of a constant image, is the same everywhere but near the border. A map with as
    many rows or columns as the image is as it is there.
    """
    for axis, side in ((1, height), (2, width)):
        have = compact.shape[axis]
        if have != side:
            near = have // 2
            index = torch.arange(side, device=compact.device)
            index = torch.where(index < near, index, torch.where(index >= side - near, index - side + have, near))
            compact = compact.index_select(axis, index)
    return compact


def condense(full: Tensor) -> Tensor:
    """The smallest map (C, 2n + 1, 2n + 1) that `spread` makes the map `full` (C, H, W) of; `full` itself where none is smaller.

    Rounding may make the middle of such a map vary in its last digits; what varies within 1e-6 of the largest value counts as equal.
    """
    _, height, width = full.shape
    tolerance = 1e-6 * max(1.0, full.abs().max().item())
    middle = full[:, height // 2, width // 2]
    rows = (full - full[:, height // 2, None, :]).abs().amax(dim=(0, 2)) > tolerance
    columns = (full - full[:, :, width // 2, None]).abs().amax(dim=(0, 1)) > tolerance
    near = 0
    for differs in (rows, columns):
        side = len(differs)
        where = torch.nonzero(differs).flatten()
        if len(where):
            near = max(near, int(torch.minimum(where, side - 1 - where).max()) + 1)
    if 2 * near + 1 >= min(height, width):
        return full
    pick = [torch.tensor([*range(near), side // 2, *range(side - near, side)], device=full.device) for side in (height, width)]
    compact = full.index_select(1, pick[0]).index_select(2, pick[1]).clone()
    compact[:, near, near] = middle
    return compact


class ActNorm(nn.Module):
    """Per-channel affine map (x + bias) * exp(3 logs), set from the first batch to zero mean and unit variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.logs = nn.Parameter(torch.zeros(channels))
        self.initializing = False

    def scale(self) -> Tensor:
        return torch.exp(LOG_SCALE * self.logs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.initializing:
            self._initialize(x)
        z = (x + self.bias[:, None, None]) * self.scale()[:, None, None]
        return z, x.shape[2] * x.shape[3] * LOG_SCALE * self.logs.sum()

    def inverse(self, z: Tensor) -> Tensor:
        return z / self.scale()[:, None, None] - self.bias[:, None, None]

    def fold(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (O, I, h, w) and bias (O,) of the convolution that equals one with `weight` followed by this map."""
        scale = self.scale()
        return weight * scale[:, None, None, None], self.bias * scale

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        std, mean = torch.std_mean(x.to(self.bias.dtype), dim=(0, 2, 3), correction=0)
        self.bias.copy_(-mean)
        self.logs.copy_(-torch.log(std + 1e-6) / LOG_SCALE)


class InvertibleConv1x1(nn.Module):
    """A learned channel mixing, initialised to a random rotation. `weight` (C, C) acts on channel columns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linalg.qr(torch.randn(channels, channels))[0].contiguous())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.shape[2] * x.shape[3] * torch.linalg.slogdet(self.weight).logabsdet
        return F.conv2d(x, self.weight[:, :, None, None]), log_det

    def inverse(self, z: Tensor) -> Tensor:
        return F.conv2d(z, torch.linalg.inv(self.weight)[:, :, None, None])


def padded_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """3x3 convolution of x (B, I, H, W), zero-padded by 1; a weight with I + 1 inputs gets the border channel as its last."""
    if weight.shape[1] == x.shape[1]:
        return F.conv2d(x, weight, bias, padding=1)
    return F.conv2d(torch.cat([F.pad(x, (1, 1, 1, 1)), border_channel(x)], dim=1), weight, bias)


def context_map(channels: int, side: int) -> nn.Parameter | None:
    """A constant map (channels, side, side) that `spread` adds to a convolution's output; None for side 0, without one."""
    return nn.Parameter(torch.zeros(channels, side, side)) if side else None


def add_context(h: Tensor, context: Tensor | None) -> Tensor:
    return h if context is None else h + spread(context, h.shape[2], h.shape[3])


class ZeroConv(nn.Module):
    """Padded 3x3 convolution, then (h + bias) * exp(3 logs) + context, all zero at the start: a fresh flow is linear."""

    def __init__(self, inputs: int, outputs: int, border: bool, context: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs + border, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.logs = nn.Parameter(torch.zeros(outputs))
        self.context = context_map(outputs, context)

    def fold(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the plain padded convolution that this is, but for its context."""
        scale = torch.exp(LOG_SCALE * self.logs)
        return self.weight * scale[:, None, None, None], self.bias * scale

    def forward(self, x: Tensor) -> Tensor:
        return add_context(padded_conv(x, *self.fold()), self.context)


class CouplingNet(nn.Module):
    """The network of a coupling: 3x3, ActNorm, ReLU, 1x1, ActNorm, ReLU, zero-initialised 3x3.

    `autocast_dtype` runs it in a lower precision, as training does. Whatever it computes, the coupling inverts exactly
    what the same call computes, so a lower precision costs likelihood but never invertibility.

    `contexts`: sides of the constant maps that are added before either ReLU and to the output, 0 for none: what a network on a
    fixed input (a gray picture, a label) comes to in a conditional Glow.
    """

    def __init__(self, inputs: int, width: int, outputs: int, border: bool, contexts: tuple[int, int, int] = (0, 0, 0)) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(0.05 * torch.randn(width, inputs + border, 3, 3))
        self.norm1 = ActNorm(width)
        self.weight2 = nn.Parameter(0.05 * torch.randn(width, width, 1, 1))
        self.norm2 = ActNorm(width)
        self.conv3 = ZeroConv(width, outputs, border, contexts[2])
        self.context1, self.context2 = context_map(width, contexts[0]), context_map(width, contexts[1])
        self.autocast_dtype: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.norm1.initializing:
            no_bias = x.new_zeros(self.weight1.shape[0])
            h = F.relu(self.norm1(padded_conv(x, self.weight1, no_bias))[0])
            h = F.relu(self.norm2(F.conv2d(h, self.weight2))[0])
            return self.conv3(h)
        with torch.autocast(x.device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None):
            h = F.relu_(add_context(padded_conv(x, *self.norm1.fold(self.weight1)), self.context1))
            h = F.relu_(add_context(F.conv2d(h, *self.norm2.fold(self.weight2)), self.context2))
            h = self.conv3(h)
        return h.to(x.dtype)


class AdditiveCoupling(nn.Module):
    """The coupling z2 = x2 + f(x1), which preserves volume."""

    def __init__(self, channels: int, width: int, border: bool, contexts: tuple[int, int, int] = (0, 0, 0)) -> None:
        super().__init__()
        self.net = CouplingNet(channels // 2, width, channels - channels // 2, border, contexts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x1, x2 = x.chunk(2, dim=1)
        return torch.cat([x1, x2 + self.net(x1)], dim=1), x.new_zeros(())

    def inverse(self, z: Tensor) -> Tensor:
        z1, z2 = z.chunk(2, dim=1)
        return torch.cat([z1, z2 - self.net(z1)], dim=1)


class AffineCoupling(nn.Module):
    """The coupling z2 = (x2 + shift) * sigmoid(h + 2); the network's channels interleave shift and h."""

    def __init__(self, channels: int, width: int, border: bool, contexts: tuple[int, int, int] = (0, 0, 0)) -> None:
        super().__init__()
        self.net = CouplingNet(channels // 2, width, channels, border, contexts)

    def _shift_and_log_scale(self, x1: Tensor) -> tuple[Tensor, Tensor]:
        h = self.net(x1)
        return h[:, 0::2], F.logsigmoid(h[:, 1::2] + SIGMOID_SHIFT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x1, x2 = x.chunk(2, dim=1)
        shift, log_scale = self._shift_and_log_scale(x1)
        return torch.cat([x1, (x2 + shift) * log_scale.exp()], dim=1), log_scale.sum(dim=(1, 2, 3))

    def inverse(self, z: Tensor) -> Tensor:
        z1, z2 = z.chunk(2, dim=1)
        shift, log_scale = self._shift_and_log_scale(z1)
        return torch.cat([z1, z2 * torch.exp(-log_scale) - shift], dim=1)


COUPLINGS: dict[str, type[AdditiveCoupling] | type[AffineCoupling]] = {
    "additive": AdditiveCoupling,
    "affine": AffineCoupling,
}


class Step(nn.Module):
    """One step of flow: ActNorm, invertible 1x1 convolution, coupling (Kingma & Dhariwal 2018, figure 2a)."""

    def __init__(self, channels: int, width: int, coupling: str, border: bool, contexts: tuple[int, int, int] = (0, 0, 0)) -> None:
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.mix = InvertibleConv1x1(channels)
        self.coupling = COUPLINGS[coupling](channels, width, border, contexts)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, norm_log_det = self.actnorm(x)
        x, mix_log_det = self.mix(x)
        x, coupling_log_det = self.coupling(x)
        return x, norm_log_det + mix_log_det + coupling_log_det

    def inverse(self, z: Tensor) -> Tensor:
        for layer in (self.coupling, self.mix, self.actnorm):
            z = layer.inverse(z)
        return z


class SplitPrior(nn.Module):
    """The Gaussian of a level's factored-out half given the half that goes on: mean and log-scale, interleaved."""

    def __init__(self, channels: int, border: bool, context: int = 0) -> None:
        super().__init__()
        self.conv = ZeroConv(channels, 2 * channels, border, context)

    def forward(self, z1: Tensor) -> tuple[Tensor, Tensor]:
        h = self.conv(z1)
        return h[:, 0::2], h[:, 1::2]


class TopPrior(nn.Module):
    """The Gaussian of the last level: a learned mean and log-scale per channel, and near the border if that is marked.

    The original convolves a tensor of zeros, so of its kernel only the border channel ever acts; that is what is kept.
    """

    def __init__(self, channels: int, border: bool, context: int = 0) -> None:
        super().__init__()
        self.context = context_map(2 * channels, context)
        self.border_weight = nn.Parameter(torch.zeros(2 * channels, 1, 3, 3)) if border else None
        self.bias = nn.Parameter(torch.zeros(2 * channels))
        self.logs = nn.Parameter(torch.zeros(2 * channels))

    def forward(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-scale, each (1, C, H, W), for latents shaped `like` (B, C, H, W)."""
        h = like.new_zeros(1, self.bias.shape[0], *like.shape[2:])
        if self.border_weight is not None:
            h = F.conv2d(border_channel(h), self.border_weight)
        h = add_context((h + self.bias[:, None, None]) * torch.exp(LOG_SCALE * self.logs)[:, None, None], self.context)
        mean, logs = h.chunk(2, dim=1)
        return mean, logs
