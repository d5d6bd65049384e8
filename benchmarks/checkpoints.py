"""What decoding costs: the fused `Decoder` against the executed graph and a plain Glow inverse, of the same weights in one run.

The three take turns, so that a busy machine slows them alike; ratios are of medians. Run it as `python benchmarks/checkpoints.py`;
`--resolution 256 --steps 32 --levels 6 --width 512` is the published model's size, with random weights.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]

from celebglow.convert.graph_glow import GraphGlow  # noqa: E402
from celebglow.decoder import Decoder  # noqa: E402
from celebglow.glow import Glow  # noqa: E402
from helpers.graphs import GlowGraph  # noqa: E402  # the tests' writer of graphs

CELEBGLOW = 216_000  # images


def random_flow(arguments: argparse.Namespace) -> Glow:
    torch.manual_seed(0)
    flow = Glow(
        resolution=arguments.resolution,
        steps=(arguments.steps,) * arguments.levels,
        widths=arguments.width,
        coupling=arguments.coupling,
        border=True,
    )
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "conv3" in name or "prior" in name:  # not zero, as in a trained flow
                parameter.add_(0.005 * torch.randn_like(parameter))
    return flow.eval()


def seconds(function: Callable[[Tensor], Tensor], latents: Tensor) -> float:
    cuda = latents.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    function(latents)
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--coupling", default="additive", choices=["additive", "affine"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    flow = random_flow(arguments)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        path = GlowGraph(flow, folded=True).save(Path(folder) / "graph.pb")
        written = time.perf_counter()
        graph = GraphGlow.from_graph(path)
        read = time.perf_counter()
        print(
            f"graph of {path.stat().st_size / 1e6:.0f} MB: written in {written - start:.1f} s, read and compiled in {read - written:.1f} s"
        )
    latents = 0.7 * torch.randn(arguments.batch, flow.num_latents)
    flow, graph, latents = flow.to(arguments.device), graph.to(arguments.device), latents.to(arguments.device)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "fused decoder": Decoder(flow),
        "executed graph": graph.decode,
        "plain inverse": flow.decode,
    }
    expected = flow.decode(latents)
    for name, way in ways.items():
        difference = (way(latents) - expected).abs().max().item()
        assert difference < 1e-3 * max(1.0, expected.abs().max().item()), f"{name} differs by {difference}"
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            times[name].append(seconds(way, latents))
    fast = statistics.median(times["fused decoder"])
    shape = f"{arguments.levels} levels of {arguments.steps} {arguments.coupling} steps, width {arguments.width}"
    device = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else f"CPU, {torch.get_num_threads()} threads"
    print(f"{arguments.resolution} x {arguments.resolution}, {shape}, batch {arguments.batch}, {device}")
    for name, measured in times.items():
        median = statistics.median(measured)
        rate = arguments.batch / median
        print(
            f"  {name:<15} {median * 1e3 / arguments.batch:8.2f} ms per image (best {min(measured) * 1e3 / arguments.batch:.2f}), "
            f"{median / fast:.2f} x the fused decoder's time; {CELEBGLOW:,} images: {CELEBGLOW / rate / 3600:.2f} h"
        )


if __name__ == "__main__":
    main()
