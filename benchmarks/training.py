"""How fast cnn and beta-vae train, against the same network in a plain loop: fp32, a DataLoader that makes an item at a time, Adam.

Prints images per processor second on one thread, ratios, the R² that both reach in the same number of steps, and where our time
goes. Run it as `python benchmarks/training.py` on an otherwise idle machine; `--data FOLDER --dataset NAME` takes a store of yours,
else one of 2,592 random images is made, on which R² means little.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

import harness  # noqa: E402
from harness.data import dataset as datasets  # noqa: E402
from harness.data.store import Description  # noqa: E402
from harness.data.writer import Writer  # noqa: E402
from harness.machine import keep_freed_memory  # noqa: E402
from harness.models import Representation, find  # noqa: E402
from harness.runs.presets import resolve  # noqa: E402
from harness.runs.trainer import RunTrainer  # noqa: E402
from splits import Factor, derive_spec  # noqa: E402

GOALS = {"cnn": 2.0, "beta-vae": 1.5}
WARM_UP = 10  # steps that are not timed
CPU = torch.device("cpu")


class Items(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """An image at a time out of an array in memory, as one writes it down."""

    def __init__(self, data: datasets.Dataset, indices: np.ndarray) -> None:
        self.images, self.targets = np.asarray(data.images)[indices], data.targets[indices]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.images[item]).permute(2, 0, 1).float() / 255, torch.from_numpy(self.targets[item])


def network(name: str, data: datasets.Dataset) -> nn.Module:
    torch.manual_seed(0)
    return find(name).build(data.images.shape[3], len(data.spec.grid.sizes))


def plain(name: str, data: datasets.Dataset, steps: int, learning_rate: float) -> tuple[nn.Module, float]:
    """The trained network, and images per processor second."""
    model = network(name, data)
    loader = DataLoader(Items(data, data.split("random").train), batch_size=64, shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    step, start = 0, time.process_time()
    while step < steps:
        for images, targets in loader:
            loss = (
                model.loss(images)["loss"]
                if isinstance(model, Representation)
                else (model(images) - targets).square().sum(1).mean()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step == WARM_UP:
                start = time.process_time()
            if step == steps:
                break
    return model, 64 * (steps - WARM_UP) / (time.process_time() - start)


def ours(name: str, data: datasets.Dataset, steps: int, learning_rate: float, *settings: str) -> tuple[nn.Module, float]:
    """The same by the harness."""
    at: list[float] = []
    overrides = [f"train.steps={steps}", f"train.learning_rate={learning_rate}", "readout.steps=0", *settings]
    config = resolve(find(name), "quick", overrides)
    with tempfile.TemporaryDirectory() as folder:
        trainer = RunTrainer(
            network(name, data), data, data.split("random"), config, 0, Path(folder), CPU, lambda *_: at.append(time.process_time())
        )
        trainer.run()
    return trainer.network, 64 * (steps - WARM_UP) / (at[steps - 1] - at[WARM_UP - 1])


def feeding(data: datasets.Dataset, steps: int) -> float:
    """Images per processor second of our batches alone."""
    batches = data.batches(data.split("random").train, 64, drop_last=True).steps()
    next(batches)
    start = time.process_time()
    for _ in range(steps):
        next(batches)
    return 64 * steps / (time.process_time() - start)


def make_random_store(root: Path) -> None:
    factors = (Factor("a", 12, "categorical"), Factor("b", 6), Factor("c", 6), Factor("d", 6))
    spec = derive_spec("noise", factors, 0.3, never_held_out=("a",))
    with Writer(root, Description("noise", (len(spec.grid), 64, 64, 3), 216, False, spec.to_dict())) as writer:
        for shard in writer.missing:
            writer.publish(shard, np.random.default_rng(shard).integers(0, 256, (216, 64, 64, 3), dtype=np.uint8))
        writer.finish(lambda _: "", lambda _: b"")


def main() -> None:
    parser = argparse.ArgumentParser(description="Training speed against a plain loop.")
    parser.add_argument("--data", type=Path, help="folder of the stores")
    parser.add_argument("--dataset", default="celebglow")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--compile", action="store_true", help="measure torch.compile too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        if arguments.data is None:
            make_random_store(Path(made))
        data = harness.open(*(("noise", made) if arguments.data is None else (arguments.dataset, arguments.data)))
        fastest = resolve(find("cnn"), "quick").train.precision
        variants = {each: [f"train.precision={each}"] for each in dict.fromkeys(("fp32", fastest))}
        if arguments.compile:
            variants[f"{fastest}, compiled"] = [f"train.precision={fastest}", "train.compile=true"]
        fed = feeding(data, arguments.steps)
        print(f"feeding alone: {fed:,.0f} images per processor second")
        rate = 5e-4
        baselines = {name: plain(name, data, arguments.steps, rate) for name in GOALS}
        keep_freed_memory()  # as `ood-data bench` does, for the whole process: so after the baselines
        for name, goal in GOALS.items():
            model, base = baselines[name]
            print(f"{name}, plain loop: {base:,.0f} images per processor second{told(name, model, data)}")
            for variant, settings in variants.items():
                model, speed = ours(name, data, arguments.steps, rate, *settings)
                share = f"feeding {speed / fed:.1%}"
                print(f"{name}, {variant}: {speed:,.0f}, {speed / base:.2f} x (goal {goal} x); {share}{told(name, model, data)}")


def told(name: str, model: nn.Module, data: datasets.Dataset) -> str:
    """The mean R² on test images of a supervised network; a representation's loss on some test images."""
    split = data.split("random")
    model.eval()
    if isinstance(model, Representation):
        torch.manual_seed(1)
        with torch.no_grad():
            images, _ = next(iter(data.batches(split.test[:256], 256, shuffle=False)))
            return f"; loss on test {model.loss(images)['loss'].item():.1f}"
    return f"; R² on test {harness.score(model, data, split, limit=20_000)['r2']['mean']:.3f}"


if __name__ == "__main__":
    main()
