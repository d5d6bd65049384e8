"""What a training of PCL can reach at best, and what its latents hold: the tables of docs/results.md.

`python benchmarks/pcl.py` prints the least loss that the task of PCL, to tell pairs of neighbouring images from shuffled ones, allows
to a classifier that knows only some of the factors, and so tells how far a logged loss has come. With RUN, the folder of a
finished run of a representation, it prints the R² of several readouts of that run's latents, each fitted with --seeds seeds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import harness  # noqa: E402
import splits  # noqa: E402
from harness.data.pairs import LaplaceSteps  # noqa: E402
from harness.data.verify import overview  # noqa: E402
from harness.models.convolutional import dense  # noqa: E402
from harness.models.representation import READOUT, Representation  # noqa: E402
from harness.scoring.r2 import grid_variance  # noqa: E402
from harness.scoring.sampling import sample  # noqa: E402

PAIRS = 400_000
NEVER = -30.0  # log ratio of a combination that no pair has
LATENTS = {"train": 100_000, "test": 50_000}
STEPS, BATCH = 8000, 256


def log_ratios(split: splits.Split) -> tuple[np.ndarray, np.ndarray]:
    """(PAIRS, F) each, of pairs and of shuffled pairs: how much likelier each factor's two values are in a pair than by themselves."""
    pairs = LaplaceSteps(split).sample(PAIRS, np.random.default_rng(0))
    before, after = (split.grid.factors(column) for column in pairs.T)
    shuffled = np.roll(before, 1, axis=0)
    true, false = np.empty(before.shape), np.empty(before.shape)
    for axis, size in enumerate(split.grid.sizes):
        joint = np.bincount(before[:, axis] * size + after[:, axis], minlength=size * size).reshape(size, size) / PAIRS
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.nan_to_num(np.log(joint / np.outer(joint.sum(1), joint.sum(0))), nan=NEVER, neginf=NEVER)
        true[:, axis], false[:, axis] = ratio[before[:, axis], after[:, axis]], ratio[shuffled[:, axis], after[:, axis]]
    return true, false


def print_bounds(split: splits.Split) -> None:
    """Loss in nats and accuracy of the best classifier that knows these factors, each taken for itself, as PCL takes its latents."""
    true, false = log_ratios(split)
    names = np.array(split.grid.names)
    print(f"least loss and accuracy of PCL on the train side of {split.dataset}, {split.kind}, knowing only")
    for count in range(1, len(names) + 1):
        for known in map(list, itertools.combinations(range(len(names)), count)):
            positive, negative = true[:, known].sum(1), false[:, known].sum(1)
            loss = (np.logaddexp(0, -positive).mean() + np.logaddexp(0, negative).mean()) / 2
            accuracy = ((positive > 0).mean() + (negative <= 0).mean()) / 2
            print(f"  {loss:.3f}  {accuracy:.3f}  {', '.join(names[known])}")


def print_readouts(run: Path, data: Path, seeds: int) -> None:
    """R² on test and on train images of readouts that are fitted on train latents, mean and standard deviation over seeds."""
    network = harness.load(run)
    if not isinstance(network, Representation):
        raise SystemExit(f"{run} is not a run of a representation")
    described = json.loads((run / "config.json").read_bytes())
    dataset = harness.open(described["dataset"], data)
    split = dataset.split(described["kind"])
    variance = torch.from_numpy(grid_variance(split.grid))

    def latents(indices: np.ndarray) -> tuple[Tensor, Tensor]:
        batches = dataset.batches(indices, BATCH, shuffle=False)
        with torch.no_grad():
            return torch.cat([network.encode(images) for images, _ in batches]), batches.targets

    (z, y), (z_test, y_test) = latents(sample(split.train, LATENTS["train"], 0)), latents(sample(split.test, LATENTS["test"], 0))

    def r2(answers: Tensor, truth: Tensor) -> Tensor:
        return 1 - (answers.double() - truth).square().mean(0) / variance

    def told(name: str, answers: Iterable[tuple[Tensor, Tensor]]) -> None:
        scores = [(r2(test, y_test), r2(train, y)) for test, train in answers]
        test, train = (torch.stack(side) for side in zip(*scores, strict=True))
        columns = {"mean": test.mean(1), **dict(zip(split.grid.names, test.T, strict=True)), "mean on train": train.mean(1)}
        print(f"  {name}: " + ", ".join(f"{column} {values.mean():.3f}{_spread(values)}" for column, values in columns.items()))

    def fitted(widths: tuple[int, ...], rate: float, standardised: bool) -> Iterator[tuple[Tensor, Tensor]]:
        inputs, inputs_test = ((v - z.mean(0)) / z.std(0) if standardised else v for v in (z, z_test))
        for seed in range(seeds):
            torch.manual_seed(seed)
            readout = nn.Sequential(*dense([z.shape[1], *widths, y.shape[1]]))
            optimizer = torch.optim.Adam(readout.parameters(), rate, fused=True)
            for _ in range(STEPS):
                rows = torch.randint(len(z), (BATCH,))
                loss = (readout(inputs[rows]) - y[rows]).square().sum(1).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            with torch.no_grad():
                yield readout(inputs_test), readout(inputs)

    print(f"R² on test of readouts of {run}, each with {seeds} seeds")
    ones, ones_test = (torch.cat([v, torch.ones(len(v), 1)], 1) for v in (z, z_test))
    weights = torch.linalg.lstsq(ones, y).solution
    told("linear", [(ones_test @ weights, ones @ weights)])
    told("one hidden layer of 64, standardised", fitted((64,), 1e-3, True))
    told("six layers", fitted(READOUT, 3e-4, False))
    told("six layers, standardised", fitted(READOUT, 3e-4, True))


def _spread(values: Tensor) -> str:
    return f" ± {values.std():.3f}" if len(values) > 1 else ""


def main() -> None:
    parser = argparse.ArgumentParser(description="The least loss of PCL, and readouts of a run's latents.")
    parser.add_argument("run", nargs="?", type=Path, help="the folder of a finished run")
    parser.add_argument("--seeds", type=int, default=3, help="of each readout")
    parser.add_argument("--data", type=Path, default=Path("data/"), help="folder of the stores")
    parser.add_argument("--dataset", default="dsprites")
    parser.add_argument("--kind", default="extrapolation")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.run is None:
        stored = any(store["name"] == arguments.dataset for store in overview(arguments.data))
        dataset = harness.open(arguments.dataset, arguments.data) if stored else splits.load_spec(arguments.dataset)
        print_bounds(dataset.split(arguments.kind))
    else:
        print_readouts(arguments.run, arguments.data, arguments.seeds)


if __name__ == "__main__":
    main()
