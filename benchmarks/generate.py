"""How fast CelebGlow is made: the whole command, and its decoding, against a straightforward inverse of the same weights.

    python benchmarks/generate.py [--persons 1000]

Baseline: the inverse as the layers define it, one operation after another: eager, fp32, NCHW, a person's 216 images at a time,
matrices inverted at every call, on all cores.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from celebglow.glow import Glow
from celebglow.layers import LOG_SCALE, ActNorm, ZeroConv
from celebglow.pipeline import CelebGlowPipeline
from harness.machine import keep_freed_memory

PER_PERSON = 216


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--persons", type=int, default=1000, help="people that the command makes")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each decoder is timed")
    options = parser.parse_args()

    seconds, memory = command(options.persons)  # first: this process's own memory must not count
    whole = options.persons * PER_PERSON / seconds
    cores = torch.get_num_threads()
    pipeline = CelebGlowPipeline.from_pretrained("bundled")
    values = torch.tensor(list(itertools.product(torch.linspace(-1, 1, 6).tolist(), repeat=3)))

    def plain(person: int) -> None:
        directions = pipeline.directions
        latents = directions.walk(directions.base(pipeline.person(person)[None])[0], values)
        with torch.inference_mode():
            pipeline.flow.postprocess(straightforward(pipeline.flow, latents))

    def fused(person: int, precision: str = "fp32") -> None:
        pipeline.grid(pipeline.person(person), values, precision)

    latents = torch.randn(2, pipeline.flow.num_latents)
    with torch.inference_mode():  # the same map, or the comparison says nothing
        torch.testing.assert_close(straightforward(pipeline.flow, latents), pipeline.flow.decode(latents), atol=1e-3, rtol=0)
    baseline = rate(plain, 1, options.seconds)
    torch.set_num_threads(1)
    keep_freed_memory()
    rates = {"fused, fp32": rate(fused, cores, options.seconds)}
    rates["fused, bf16"] = rate(lambda person: fused(person, "bf16"), cores, options.seconds)

    print(f"torch {torch.__version__}, {cores} cores, flow {pipeline.sha256()[:12]}")
    print(f"{'baseline: layer by layer, batch 216':<40} {baseline:8.0f} images/s   1.00x")
    for name, value in rates.items():
        print(f"{name + ', a person per core':<40} {value:8.0f} images/s   {value / baseline:.2f}x")
    print(f"{'the command, all included':<40} {whole:8.0f} images/s   {whole / baseline:.2f}x")
    print(f"{options.persons} persons: {seconds:.0f} s, peak memory {memory / 2**30:.2f} GiB")


def straightforward(flow: Glow, latents: Tensor) -> Tensor:
    """`Glow.decode` without folding anything into the convolutions (additive coupling, no border channel)."""

    def scaled(h: Tensor, module: ActNorm | ZeroConv) -> Tensor:
        return (h + module.bias[:, None, None]) * torch.exp(LOG_SCALE * module.logs)[:, None, None]

    def zero_conv(h: Tensor, module: ZeroConv) -> Tensor:
        return scaled(F.conv2d(h, module.weight, padding=1), module)

    *parts, x = flow.split_latents(latents)
    mean, logs = flow.top_prior(x)
    x = mean + torch.exp(logs) * x
    for level, eps in zip(reversed(flow.each_level()), [None, *reversed(parts)], strict=True):
        if level.prior is not None:
            h = zero_conv(x, level.prior.conv)
            x = torch.cat([x, h[:, 0::2] + torch.exp(h[:, 1::2]) * eps], dim=1)
        for step in reversed(list(level)):
            z1, z2 = x.chunk(2, dim=1)
            net = step.coupling.net
            h = F.relu(scaled(F.conv2d(z1, net.weight1, padding=1), net.norm1))
            h = F.relu(scaled(F.conv2d(h, net.weight2), net.norm2))
            x = step.actnorm.inverse(step.mix.inverse(torch.cat([z1, z2 - zero_conv(h, net.conv3)], dim=1)))
        x = F.pixel_shuffle(x, 2)
    return x


def rate(work: object, workers: int, seconds: float) -> float:
    """Images per second of ``work(person)`` run by ``workers`` threads for about ``seconds``, after a warm-up."""
    work(0)  # type: ignore[operator]
    started, done = time.perf_counter(), 0
    with ThreadPoolExecutor(workers) as pool:
        while time.perf_counter() - started < seconds:
            done += len(list(pool.map(work, range(2 * workers))))  # type: ignore[arg-type]
    return done * PER_PERSON / (time.perf_counter() - started)


def command(persons: int) -> tuple[float, int]:
    """Wall seconds and peak bytes of the real command, imports and all, in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "cli", "generate", "celebglow", "--out", folder, "--persons", str(persons), "--device", "cpu"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=Path(__file__).parents[1],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )
        return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


if __name__ == "__main__":
    main()
