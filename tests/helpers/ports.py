"""Random checkpoints as three PyTorch implementations of Glow write them, and their decoding, from each one's conventions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def random(*shape: int, scale: float = 0.07) -> Tensor:
    return scale * torch.randn(*shape)


def lu_parts(channels: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """P, L, U, sign(s), log|s| of a random invertible matrix; L and U with junk where an implementation masks them."""
    p, low, up = torch.linalg.lu(torch.linalg.qr(torch.randn(channels, channels))[0] + random(channels, channels, scale=0.02))
    diagonal = up.diagonal()
    junk = random(channels, channels)
    return p, low.tril(-1) + junk.triu(), up.triu(1) + junk.tril(), diagonal.sign(), diagonal.abs().log()


def matrix(p: Tensor, low: Tensor, up: Tensor, sign: Tensor, log_s: Tensor) -> Tensor:
    return p @ (low.tril(-1) + torch.eye(len(p))) @ (up.triu(1) + torch.diag(sign * log_s.exp()))


def unmix(x: Tensor, weight: Tensor) -> Tensor:
    return torch.einsum("ij,bjhw->bihw", torch.linalg.inv(weight), x)


def depth_to_space(x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    return x.view(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, 2 * h, 2 * w)


# rosinality/glow-pytorch


def rosinality(levels: int, steps: int, width: int, affine: bool, lu: bool) -> State:
    state: State = {}
    channels = 3
    for level in range(levels):
        channels *= 4
        for step in range(steps):
            key = f"blocks.{level}.flows.{step}."
            sign = torch.randn(1, channels, 1, 1).sign()
            state[key + "actnorm.loc"] = random(1, channels, 1, 1)
            state[key + "actnorm.scale"] = sign * random(1, channels, 1, 1).exp()
            state[key + "actnorm.initialized"] = torch.tensor(1, dtype=torch.uint8)
            if lu or level == levels - 1:
                parts = dict(zip(("w_p", "w_l", "w_u", "s_sign", "w_s"), lu_parts(channels), strict=True))
                state |= {f"{key}invconv.{name}": value for name, value in parts.items()}
                state |= {f"{key}invconv.{name}": torch.zeros(channels, channels) for name in ("u_mask", "l_mask", "l_eye")}
            else:
                state[key + "invconv.weight"] = torch.linalg.qr(torch.randn(channels, channels))[0][:, :, None, None]
            out = channels if affine else channels // 2
            state[key + "coupling.net.0.weight"] = random(width, channels // 2, 3, 3)
            state[key + "coupling.net.0.bias"] = random(width)
            state[key + "coupling.net.2.weight"] = random(width, width, 1, 1)
            state[key + "coupling.net.2.bias"] = random(width)
            state[key + "coupling.net.4.conv.weight"] = random(out, width, 3, 3)
            state[key + "coupling.net.4.conv.bias"] = random(out)
            state[key + "coupling.net.4.scale"] = random(1, out, 1, 1)
        inputs = channels if level == levels - 1 else channels // 2
        key = f"blocks.{level}.prior."
        state[key + "conv.weight"] = random(2 * inputs, inputs, 3, 3, scale=0.03)
        state[key + "conv.bias"] = random(2 * inputs)
        state[key + "scale"] = random(1, 2 * inputs, 1, 1)
        channels //= 2
    return state


def rosinality_decode(state: State, parts: Sequence[Tensor]) -> Tensor:
    """parts: standard-normal latents, fine to coarse."""

    def zero_conv(x: Tensor, key: str) -> Tensor:
        h = F.conv2d(F.pad(x, [1, 1, 1, 1], value=1), state[key + "conv.weight"], state[key + "conv.bias"])
        return h * torch.exp(state[key + "scale"] * 3)

    steps = 1 + max(int(key.split(".")[3]) for key in state if ".flows." in key)
    x = parts[-1]
    for level in range(len(parts) - 1, -1, -1):
        last = level == len(parts) - 1
        mean, log_sd = zero_conv(torch.zeros_like(x) if last else x, f"blocks.{level}.prior.").chunk(2, 1)
        z = mean + torch.exp(log_sd) * parts[level]
        x = z if last else torch.cat([x, z], 1)
        for step in range(steps - 1, -1, -1):
            key = f"blocks.{level}.flows.{step}."
            a, b = x.chunk(2, 1)
            net = key + "coupling.net."
            h = F.relu(F.conv2d(a, state[net + "0.weight"], state[net + "0.bias"], padding=1))
            h = F.relu(F.conv2d(h, state[net + "2.weight"], state[net + "2.bias"]))
            h = zero_conv(h, net + "4.")
            if h.shape[1] == x.shape[1]:
                log_s, t = h.chunk(2, 1)
                b = b / torch.sigmoid(log_s + 2) - t
            else:
                b = b - h
            x = torch.cat([a, b], 1)
            if key + "invconv.weight" in state:
                weight = state[key + "invconv.weight"].squeeze()
            else:
                weight = matrix(*(state[f"{key}invconv.{name}"] for name in ("w_p", "w_l", "w_u", "s_sign", "w_s")))
            x = unmix(x, weight) / state[key + "actnorm.scale"] - state[key + "actnorm.loc"]
        x = depth_to_space(x)
    return x


# chaiyujin/glow-pytorch and y0ast/Glow-PyTorch

NAMES = {
    "chaiyujin": {"net": "f", "conv": "", "top": "learn_top.", "l": "l", "u": "u"},
    "y0ast": {"net": "block", "conv": "conv.", "top": "learn_top_fn.", "l": "lower", "u": "upper"},
}


def layered(kind: str, levels: int, steps: int, width: int, affine: bool, lu: bool, learn_top: bool = True) -> State:
    names = NAMES[kind]
    conv = names["conv"]
    state: State = {}

    def norm(key: str, channels: int) -> None:
        state[key + "bias"] = random(1, channels, 1, 1)
        state[key + "logs"] = random(1, channels, 1, 1)

    def zero_conv(key: str, inputs: int, outputs: int, scale: float = 0.07) -> None:
        state[f"{key}{conv}weight"] = random(outputs, inputs, 3, 3, scale=scale)
        state[f"{key}{conv}bias"] = random(outputs)
        state[key + "logs"] = random(outputs, 1, 1)

    channels = 3
    for level in range(levels):
        channels *= 4
        for step in range(steps):
            key = f"flow.layers.{level * (steps + 2) + 1 + step}."
            norm(key + "actnorm.", channels)
            if lu:
                parts = dict(zip(("p", names["l"], names["u"], "sign_s", "log_s"), lu_parts(channels), strict=True))
                state.update({f"{key}invconv.{name}": value for name, value in parts.items()})
            else:
                state[key + "invconv.weight"] = torch.linalg.qr(torch.randn(channels, channels))[0]
            net = f"{key}{names['net']}."
            state[f"{net}0.{conv}weight"] = random(width, channels // 2, 3, 3)
            norm(net + "0.actnorm.", width)
            state[f"{net}2.{conv}weight"] = random(width, width, 1, 1)
            norm(net + "2.actnorm.", width)
            zero_conv(net + "4.", width, channels if affine else channels // 2)
        if level < levels - 1:
            zero_conv(f"flow.layers.{level * (steps + 2) + steps + 1}.conv.", channels // 2, channels, scale=0.03)
            channels //= 2
    if learn_top:
        zero_conv(names["top"], 2 * channels, 2 * channels)
    return state


def layered_decode(kind: str, state: State, parts: Sequence[Tensor]) -> Tensor:
    """As `rosinality_decode`; chaiyujin's pixels are in [0, 1]."""
    names = NAMES[kind]
    conv = names["conv"]

    def norm(x: Tensor, key: str) -> Tensor:
        return (x + state[key + "bias"]) * torch.exp(state[key + "logs"])

    def zero_conv(x: Tensor, key: str) -> Tensor:
        h = F.conv2d(x, state[f"{key}{conv}weight"], state[f"{key}{conv}bias"], padding=1)
        return h * torch.exp(state[key + "logs"] * 3)

    layers = {int(key.split(".")[2]) for key in state if key.startswith("flow.layers.")}
    splits = [layer for layer in layers if f"flow.layers.{layer}.conv.{conv}weight" in state]
    waiting = list(parts)
    x = waiting.pop()
    if names["top"] + "logs" in state:
        mean, logs = zero_conv(x.new_zeros(len(x), 2 * x.shape[1], *x.shape[2:]), names["top"]).chunk(2, 1)
        x = mean + torch.exp(logs) * x
    for layer in range(max(layers), -1, -1):
        key = f"flow.layers.{layer}."
        if layer in splits:
            h = zero_conv(x, key + "conv.")
            x = torch.cat([x, h[:, 0::2] + torch.exp(h[:, 1::2]) * waiting.pop()], 1)
        elif layer not in layers:
            x = depth_to_space(x)
        else:
            a, b = x.chunk(2, 1)
            net = f"{key}{names['net']}."
            h = F.relu(norm(F.conv2d(a, state[f"{net}0.{conv}weight"], padding=1), net + "0.actnorm."))
            h = F.relu(norm(F.conv2d(h, state[f"{net}2.{conv}weight"]), net + "2.actnorm."))
            h = zero_conv(h, net + "4.")
            if h.shape[1] == x.shape[1]:
                b = b / torch.sigmoid(h[:, 1::2] + 2) - h[:, 0::2]
            else:
                b = b - h
            if key + "invconv.weight" in state:
                weight = state[key + "invconv.weight"]
            else:
                weight = matrix(*(state[f"{key}invconv.{name}"] for name in ("p", names["l"], names["u"], "sign_s", "log_s")))
            x = unmix(torch.cat([a, b], 1), weight)
            x = x * torch.exp(-state[key + "actnorm.logs"]) - state[key + "actnorm.bias"]
    return x
