"""What the store costs and saves: feeding, size, time to the first batch, conversion, memory; every figure beside its reference.

Prints ratios of one run; run it as `python benchmarks/data.py [FOLDER]` on an otherwise idle machine. FOLDER, a temporary one by
default, takes about 3 GB.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)  # and not this folder, whose splits.py would hide the package

import numpy as np  # noqa: E402
import torch  # noqa: E402

import harness  # noqa: E402
from harness.data.dataset import Dataset  # noqa: E402
from harness.data.pairs import ChangedFactors, LaplaceSteps  # noqa: E402
from harness.formats import dsprites  # noqa: E402

GOAL_FEEDING, GOAL_WORKERS = 5, 3
SECONDS = 1.5  # of each measurement
SPEC = """
name = "photographs"
[[factor]]
name = "person"
size = {persons}
kind = "categorical"
[[factor]]
name = "smile"
size = 12
kind = "ordinal"
[[factor]]
name = "age"
size = 18
kind = "ordinal"
[split.extrapolation]
test_if = "any"
held_out = {{ smile = [11], age = [17] }}
"""


class PerItem(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The usual way: an image at a time, cast at once."""

    def __init__(self, images: np.ndarray, targets: np.ndarray) -> None:
        self.images, self.targets = images, torch.from_numpy(targets)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.images[index]).permute(2, 0, 1).float() / 255, self.targets[index]


def images_per_second(batches: Callable[[], Iterator[tuple[torch.Tensor, torch.Tensor]]]) -> float:
    """Of whole epochs, until SECONDS are over; the first batch is not timed."""
    iterator, images = batches(), 0
    next(iterator)
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS:
        try:
            images += len(next(iterator)[0])
        except StopIteration:
            iterator = batches()
    return images / elapsed


def feeding(data: Dataset) -> None:
    indices = np.arange(min(len(data), 60_000))
    images = np.concatenate([data.store.read(start, min(start + 4096, len(indices))) for start in range(0, len(indices), 4096)])
    for size in (64, 256):
        loader = torch.utils.data.DataLoader(PerItem(images, data.targets[indices]), batch_size=size, shuffle=True)
        ours = {place: data.batches(indices, size, place=place) for place in ("memory", "mapped")}
        torch_dataset = torch.utils.data.DataLoader(data.torch_dataset(indices), batch_size=size, shuffle=True)
        runs: dict[str, list[float]] = {"per item": [], "memory": [], "mapped": [], "torch_dataset": []}
        for _ in range(3):  # in turn, so that whatever else the machine does hits all
            runs["per item"].append(images_per_second(lambda loader=loader: iter(loader)))
            for place, batches in ours.items():
                runs[place].append(images_per_second(lambda batches=batches: iter(batches)))
            runs["torch_dataset"].append(images_per_second(lambda loader=torch_dataset: iter(loader)))
        medians = {name: statistics.median(values) for name, values in runs.items()}
        print(f"{data.name}, batch {size}: a plain per-item DataLoader {medians['per item']:,.0f} images/s")
        for name in ("memory", "mapped", "torch_dataset"):
            goal = f" (goal {GOAL_FEEDING} x)" if (name, size) == ("memory", 256) else ""
            print(f"  {name}: {medians[name]:,.0f} images/s, {medians[name] / medians['per item']:.1f} x{goal}")


def workers(data: Dataset) -> None:
    """Two processes that feed a third, against loaders of single items, with as many and with none."""
    indices = np.arange(min(len(data), 30_000))
    plain = PerItem(data[indices][0], data.targets[indices])
    for size in (64, 256):
        how: dict[str, Any] = {"batch_size": size, "shuffle": True}
        loaders = {
            "two": torch.utils.data.DataLoader(plain, **how, num_workers=2, persistent_workers=True),
            "none": torch.utils.data.DataLoader(plain, **how),
            "ours": data.dataloader(indices, size, num_workers=2),
        }
        runs: dict[str, list[float]] = {name: [] for name in loaders}
        for _ in range(3):
            for name, loader in loaders.items():
                runs[name].append(images_per_second(lambda loader=loader: iter(loader)))
        found = {name: statistics.median(values) for name, values in runs.items()}
        print(
            f"  dataloader with 2 workers, batch {size}: {found['ours']:,.0f} images/s, {found['ours'] / found['two']:.1f} x a plain per-item "
            f"DataLoader with 2 ({found['two']:,.0f}; goal {GOAL_WORKERS} x), {found['ours'] / found['none']:.1f} x one without"
        )


def pairs(data: Dataset) -> None:
    split = data.split("extrapolation")
    batches = data.batches(split.train, 64)
    for sampler in (ChangedFactors(split), LaplaceSteps(split)):
        start, rounds = time.perf_counter(), 0
        while (drawing := time.perf_counter() - start) < 1:
            sampler.sample(64, np.random.default_rng(rounds))
            rounds += 1
        rate = images_per_second(lambda sampler=sampler: batches.pairs(sampler))
        print(f"  pairs of {type(sampler).__name__}: {rate:,.0f} pairs/s, drawing alone {64 * rounds / drawing:,.0f} pairs/s")


def peak_and_seconds(imports: str, body: str, *arguments: object) -> tuple[float, float]:
    """(GB, seconds) of a program in a process of its own; the imports are not timed."""
    program = (
        f"import pathlib, sys, time; import {imports}; start = time.perf_counter()\n{body}\nprint(time.perf_counter() - start, "
        "pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    result = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    seconds, kib = result.stdout.split()[-2:]
    return int(kib) * 1024 / 1e9, float(seconds)


def first_batch(data: Dataset, npz: Path) -> None:
    """From opening to the first batch of train, against numpy.load of the images of the same split and a DataLoader."""
    ours = (
        "d = harness.open(sys.argv[1], sys.argv[2])\nnext(iter(d.batches(d.split('extrapolation').train, 256, place=sys.argv[3])))"
    )
    plain = (
        "x = torch.from_numpy(numpy.load(sys.argv[1])['arr_0'])\n"
        "next(iter(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=256, shuffle=True)))"
    )
    root, imports = data.store.paths.root, "torch, harness.data.dataset, harness.data.batches"
    times = {f"store, {place}": peak_and_seconds(imports, ours, data.name, root, place) for place in ("memory", "mapped")}
    times["npz"] = peak_and_seconds("torch, numpy", plain, npz)
    print(f"{data.name}, from opening to the first batch of train:")
    for name, (memory, seconds) in times.items():
        print(
            f"  {name}: {seconds:.2f} s, {seconds / times['npz'][1]:.2f} x the npz; {memory:.2f} GB, {memory / times['npz'][0]:.2f} x"
        )


def store_bytes(data: Dataset) -> int:
    return sum(file.stat().st_size for file in data.store.paths.group.rglob("*") if file.is_file())


def photographs(folder: Path) -> Dataset:
    """Smooth colour fields with small edits, 64 x 64 x 3, converted from an npz of them."""
    persons, rng = 200, np.random.default_rng(0)
    coarse = torch.from_numpy(rng.normal(size=(persons, 3, 8, 8)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, 64, mode="bicubic")
    images = np.empty((persons, 216, 64, 64, 3), np.uint8)
    for person in range(persons):
        edits = torch.from_numpy(rng.normal(scale=0.05, size=(216, 3, 64, 64)).astype(np.float32))
        images[person] = ((fine[person] + edits) * 40 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    np.savez(folder / "photographs.npz", images=images.reshape(-1, 64, 64, 3))
    (folder / "photographs.toml").write_text(SPEC.format(persons=persons))
    size = (folder / "photographs.npz").stat().st_size
    start = time.perf_counter()
    shutil.copy(folder / "photographs.npz", folder / "copy")
    with (folder / "copy").open("rb") as file:
        os.fsync(file.fileno())
    copying = time.perf_counter() - start
    body = "harness.formats.convert.convert(sys.argv[1], None, sys.argv[2], sys.argv[3])"
    memory, seconds = peak_and_seconds(
        "harness.formats.convert", body, folder / "photographs.npz", folder, folder / "photographs.toml"
    )
    data = harness.open("photographs", folder)
    print(
        f"convert: {size / seconds / 1e6:,.0f} MB/s with hashing, checksums and fsync, {seconds / copying:.1f} x the time of a copy; "
        f"{memory:.2f} GB of memory for a file of {size / 1e9:.2f} GB (goal: less than 1.07)"
    )
    print(f"photographs: store {store_bytes(data) / size:.3f} x the npz")
    return data


def sprites(folder: Path) -> Dataset:
    start = time.perf_counter()
    white = sum(int(np.bitwise_count(bits).sum()) for bits in dsprites.all_bits())
    rendering = time.perf_counter() - start
    assert white == dsprites.WHITE_PIXELS
    start = time.perf_counter()
    dsprites.generate(folder, progress=False)
    print(f"dsprites: rendered in {rendering:.2f} s, as a store in {time.perf_counter() - start:.2f} s; {white:,} white pixels")
    return harness.open("dsprites", folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Feeding and converting.")
    parser.add_argument("folder", nargs="?", type=Path, help="where to work; the system's temporary folder if none")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.multiprocessing.set_start_method("spawn")  # of workers, as it is everywhere but on Linux
    logging.disable()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        data = photographs(folder)
        feeding(data)
        workers(data)
        pairs(data)
        train = np.concatenate(
            [data.store.read(s, min(s + data.store.rows, len(data))) for s in range(0, len(data), data.store.rows)]
        )
        np.savez(folder / "train.npz", train[data.split("extrapolation").train].transpose(0, 3, 1, 2))
        del train
        first_batch(data, folder / "train.npz")

        data = sprites(folder)
        images = np.concatenate([dsprites.render(s, s + 4096) for s in range(0, dsprites.IMAGES, 4096)])
        np.savez_compressed(folder / "dsprites.npz", images)
        print(f"dsprites: store {store_bytes(data) / (folder / 'dsprites.npz').stat().st_size:.3f} x a compressed npz")
        np.savez_compressed(folder / "train.npz", images[data.split("extrapolation").train].transpose(0, 3, 1, 2))
        del images
        first_batch(data, folder / "train.npz")
        feeding(data)
        workers(data)
        pairs(data)


if __name__ == "__main__":
    main()
