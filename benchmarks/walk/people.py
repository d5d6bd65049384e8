"""Pictures of a flow's people, for judge.py: each with all attributes at 0, and along the walk of each attribute.

    python benchmarks/walk/people.py --flow bundled --persons 200 --first 5000 --out FOLDER

Writes unwalked.npy (P, 64, 64, 3) and, per attribute, walk_<name>.npy (P, levels, 64, 64, 3), uint8, from -1 to 1. Runs in the
project's own environment; judge.py has another.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from celebglow import CelebGlowPipeline


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flow", default="bundled", help="bundled, or a folder made by `ood-data flow directions`")
    parser.add_argument("--persons", type=int, default=200)
    parser.add_argument("--first", type=int, default=5000, help="number of the first person: none that a walk was tuned on")
    parser.add_argument("--levels", type=int, default=6)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    pipeline = CelebGlowPipeline.from_pretrained(options.flow)
    names = pipeline.attributes
    levels = torch.tensor(np.linspace(-1, 1, options.levels), dtype=torch.float32)
    walks = torch.einsum("l,ab->alb", levels, torch.eye(len(names)))  # one attribute walked, the others at 0
    values = torch.cat([torch.zeros(1, len(names)), walks.flatten(0, 1)])
    persons = range(options.first, options.first + options.persons)
    pictures = np.stack([pipeline.grid(pipeline.person(person), values, resolution=64) for person in persons])

    options.out.mkdir(parents=True, exist_ok=True)
    np.save(options.out / "unwalked.npy", pictures[:, 0])
    for name, walk in zip(names, np.split(pictures[:, 1:], len(names), axis=1), strict=True):
        np.save(options.out / f"walk_{name}.npy", walk)


if __name__ == "__main__":
    main()
