"""The inverse of a Glow, rewritten once for speed: `Glow.decode` is the definition, `Decoder` what generation runs.

Inverse matrices are computed once; every affine map (ActNorm, learned scales, the top prior) is folded into the convolution beside it;
tensors are channels last. What is left per step of flow is four convolutions, two ReLUs and one addition.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from celebglow.glow import Glow, Level
from celebglow.layers import SIGMOID_SHIFT, AffineCoupling, CouplingNet, Step, ZeroConv, border_channel, spread


class Conv(nn.Module):
    """A frozen convolution with "same" zero padding; the border channel and a context, being constant, have become part of the bias."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, inputs: int, side: int, context: Tensor | None = None) -> None:
        super().__init__()
        self.padding = weight.shape[2] // 2
        bias = bias[None, :, None, None]
        if weight.shape[1] > inputs:
            ring = border_channel(weight.new_zeros(1, 1, side, side))
            bias = bias + F.conv2d(ring, weight[:, inputs:])
            weight = weight[:, :inputs]
        if context is not None:
            bias = bias + spread(context, side, side)
        self.is_map = bias.shape[2] > 1
        self.register_buffer("weight", weight.detach().clone(memory_format=torch.channels_last))
        self.register_buffer("bias", (bias if self.is_map else bias.flatten()).detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.is_map:
            return F.conv2d(x, self.weight, padding=self.padding).add_(self.bias)
        return F.conv2d(x, self.weight, self.bias, padding=self.padding)


class InverseStep(nn.Module):
    """Coupling undone, then the 1x1 convolution and the ActNorm undone by one matrix."""

    def __init__(self, step: Step, side: int) -> None:
        super().__init__()
        net: CouplingNet = step.coupling.net
        self.affine = isinstance(step.coupling, AffineCoupling)
        half = step.mix.weight.shape[0] // 2
        width = net.weight2.shape[0]
        self.cut = half
        self.conv1 = Conv(*net.norm1.fold(net.weight1), inputs=half, side=side, context=net.context1)
        self.conv2 = Conv(*net.norm2.fold(net.weight2), inputs=width, side=side, context=net.context2)
        self.conv3 = _zero_conv(net.conv3, width, side, interleaved=self.affine)
        inverse = torch.linalg.inv(step.mix.weight.double()).to(step.mix.weight.dtype)
        inverse = inverse / step.actnorm.scale()[:, None]
        self.unmix = Conv(inverse[:, :, None, None], -step.actnorm.bias, inputs=2 * half, side=side)

    def forward(self, z: Tensor) -> Tensor:
        """Decode a step; z (B, C, H, W) is overwritten: fresh memory for every tensor costs a quarter of the time."""
        z2 = z[:, self.cut :]
        h = self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(z[:, : self.cut])))))
        if self.affine:
            shift, log_scale = h.chunk(2, dim=1)
            z2.div_(torch.sigmoid(log_scale + SIGMOID_SHIFT)).sub_(shift)
        else:
            z2.sub_(h)
        return self.unmix(z)


class InverseLevel(nn.Module):
    """Join the level's latents under their prior, undo its steps, unsqueeze."""

    def __init__(self, level: Level, side: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(InverseStep(step, side) for step in reversed(list(level)))
        self.prior = None
        if level.prior is not None:
            self.prior = _zero_conv(level.prior.conv, level.prior.conv.bias.shape[0] // 2, side, interleaved=True)

    def forward(self, x: Tensor, eps: Tensor | None) -> Tensor:
        if self.prior is not None and eps is not None:
            mean, logs = self.prior(x).chunk(2, dim=1)
            x = torch.cat([x, mean + torch.exp(logs) * eps], dim=1)
        for step in self.steps:
            x = step(x)
        return F.pixel_shuffle(x, 2)


class Decoder(nn.Module):
    """Latents (B, D) to images in the flow's range (B, C, R, R), as `Glow.decode` up to rounding.

    Args:
        flow: whose inverse; its weights are copied, in their device and dtype.
    """

    top_mean: Tensor
    top_scale: Tensor

    def __init__(self, flow: Glow) -> None:
        super().__init__()
        with torch.no_grad():
            self.latent_shapes = flow.latent_shapes
            self.sizes = [c * h * w for c, h, w in flow.latent_shapes]
            self.levels = nn.ModuleList(
                InverseLevel(level, shape[1]) for level, shape in zip(flow.each_level(), flow.latent_shapes, strict=True)
            )
            mean = logs = torch.zeros(1, *flow.latent_shapes[-1], dtype=flow.dtype, device=flow.device)
            if flow.top_prior is not None:
                mean, logs = flow.top_prior(mean)
            self.register_buffer("top_mean", mean.detach().clone())
            self.register_buffer("top_scale", torch.exp(logs).detach().clone())
        self.requires_grad_(False)

    def forward(self, latents: Tensor) -> Tensor:
        parts = [
            part.reshape(-1, *shape).contiguous(memory_format=torch.channels_last)
            for part, shape in zip(latents.split(self.sizes, dim=1), self.latent_shapes, strict=True)
        ]
        x = self.top_mean + self.top_scale * parts[-1]
        for index in range(len(self.levels) - 1, -1, -1):
            eps = parts[index] if index < len(self.levels) - 1 else None
            x = self.levels[index](x, eps)
        return x


def _zero_conv(conv: ZeroConv, inputs: int, side: int, interleaved: bool) -> Conv:
    weight, bias = conv.fold()
    context: Tensor | None = conv.context
    if interleaved:
        weight, bias, context = _deinterleave(weight), _deinterleave(bias), None if context is None else _deinterleave(context)
    return Conv(weight, bias, inputs, side, context)


def _deinterleave(h: Tensor) -> Tensor:
    """Outputs 0, 2, 4, … then 1, 3, 5, …: so that their halves are contiguous."""
    return torch.cat([h[0::2], h[1::2]])
