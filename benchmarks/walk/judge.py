"""Judge attribute walks: does the attribute rise, do the others stay, is it still the same person?

    python benchmarks/walk/judge.py FOLDER [--out X.json] [--jobs 2]

FOLDER holds what people.py wrote. About 0.2 s per picture and job; runs in the environment of requirements.txt.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from measures import MODEL, Features, measure
from numpy.typing import NDArray
from scipy.stats import spearmanr

ATTRIBUTES = ("smile", "blond", "age")
MEASURES = (*ATTRIBUTES, "smile_dlib", "age_net", "age_emb")  # a second smile, and the two halves of age on their own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, help="JSON file for all numbers")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    report = judge(options.folder, options.jobs)
    show(report)
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


def judge(folder: Path, jobs: int = 1) -> dict[str, Any]:
    """All numbers as plain data. Changes are from the first to the last level, in standard deviations over the unwalked persons."""
    files = {name: folder / f"walk_{name}.npy" for name in ATTRIBUTES}
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:  # a fork would share thread pools
        unwalked = measured(folder / "unwalked.npy", pool)
        walks = {name: measured(file, pool) for name, file in files.items() if file.exists()}
    sd = {name: float(np.nanstd(unwalked[name])) for name in MEASURES}
    embedding = unwalked["embedding"][unwalked["found"]]
    distances = np.linalg.norm(embedding[:, None] - embedding, axis=-1)
    different_people = float(np.median(distances[np.triu_indices(len(embedding), 1)]))
    return {
        "persons": len(unwalked["found"]),
        "faces_found_pct": percent(unwalked["found"]),
        "sd_unwalked": {name: round(value, 4) for name, value in sd.items()},
        "different_people_distance": round(different_people, 3),
        "walks": {name: judge_walk(name, walk, sd, different_people) for name, walk in walks.items()},
    }


def judge_walk(name: str, walk: Features, sd: dict[str, float], different_people: float) -> dict[str, Any]:
    both = walk["found"][:, 0] & walk["found"][:, -1]
    changes = {key: (walk[key][:, -1] - walk[key][:, 0]) / sd[key] for key in MEASURES}
    changes = {key: change[np.isfinite(change)] for key, change in changes.items()}
    means = {key: round(float(change.mean()), 3) for key, change in changes.items()}
    largest_other = max((other for other in ATTRIBUTES if other != name), key=lambda other: abs(means[other]))
    ends = walk["embedding"][both][:, [0, -1]]
    apart = np.linalg.norm(ends[:, 0] - ends[:, 1], axis=-1)
    return {
        "levels": walk["found"].shape[1],
        "persons": len(both),
        "faces_found_pct": percent(walk["found"]),
        "both_ends_measured": len(changes[name]),
        "rises_pct": percent(changes[name] > 0),
        "rank_correlation_positive_pct": percent(rank_correlations(walk[name]) > 0),
        "mean_per_level": {key: [round(float(mean), 4) for mean in np.nanmean(walk[key], axis=0)] for key in ATTRIBUTES},
        "change_sd": {
            key: {"mean": means[key], "ci95": interval(change), "rises_pct": percent(change > 0)} for key, change in changes.items()
        },
        "largest_other": largest_other,
        "own_over_largest_other": round(means[name] / max(abs(means[largest_other]), 1e-9), 2),
        "identity": {
            "persons": len(apart),
            "ends_median_distance": round(float(np.median(apart)), 3),
            "closer_than_different_people_pct": percent(apart < different_people),
            "closer_than_same_person_threshold_pct": percent(apart < json.loads(MODEL.read_text())["same_person_distance"]),
        },
    }


def measured(file: Path, pool: ProcessPoolExecutor) -> Features:
    """The measures of an array file of images (..., 64, 64, 3), each with the file's leading axes."""
    images = np.load(file)
    flat = images.reshape(-1, *images.shape[-3:])
    parts = list(pool.map(measure, np.array_split(flat, len(flat) // 16 + 1)))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: value.reshape(*images.shape[:-3], *value.shape[1:]) for name, value in joined.items()}


def rank_correlations(values: NDArray[Any]) -> NDArray[Any]:
    """Spearman's, between level and measure, of each person with at least two levels measured and not all equal."""
    rows = [row[np.isfinite(row)] for row in values]
    return np.array([spearmanr(np.arange(len(row)), row).statistic for row in rows if len(row) > 1 and np.ptp(row) > 0])


def percent(values: NDArray[np.bool_]) -> float:
    return round(100 * float(np.mean(values)), 1)


def interval(values: NDArray[Any]) -> list[float]:
    """95 % bootstrap interval of the mean, over persons."""
    means = values[np.random.RandomState(0).randint(0, len(values), (2000, len(values)))].mean(axis=1)
    return [round(float(limit), 3) for limit in np.percentile(means, [2.5, 97.5])]


def show(report: dict[str, Any]) -> None:
    print(f"{report['persons']} persons, faces found in {report['faces_found_pct']} % of the unwalked pictures")
    for name, walk in report["walks"].items():
        identity = walk["identity"]
        print(
            f"{name}: {walk['levels']} levels, {walk['both_ends_measured']} of {walk['persons']} persons measured at both ends\n"
            f"  rises from the first level to the last: {walk['rises_pct']} %; "
            f"rank correlation with the level > 0: {walk['rank_correlation_positive_pct']} %\n"
            f"  mean per level: {'  '.join(f'{mean:.2f}' for mean in walk['mean_per_level'][name])}\n"
            f"  two ends closer than two different people (median, {report['different_people_distance']}): "
            f"{identity['closer_than_different_people_pct']} %; than the threshold for one person in two photographs: "
            f"{identity['closer_than_same_person_threshold_pct']} %"
        )
    print("\nmean change in s.d. of the unwalked persons (row: walk, column: measure)")
    print(f"{'':>8}" + "".join(f"{name:>9}" for name in MEASURES) + "   own / largest other")
    for name, walk in report["walks"].items():
        row = "".join(f"{walk['change_sd'][key]['mean']:9.2f}" for key in MEASURES)
        print(f"{name:>8}{row}   {walk['own_over_largest_other']:.2f} ({walk['largest_other']})")


if __name__ == "__main__":
    main()
