"""What the report's page knows: an index as JSON, and per split and per row a blob, gzipped in base64, that is unpacked when looked at."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import harness
from harness.io.checkpoints import LOG
from harness.report.collapse import collapse
from harness.report.colors import color_of
from harness.report.intervals import interval, ranks
from harness.report.leaderboard import LeaderboardRow, Source, headline_first, references
from harness.report.live import LiveNetwork
from harness.report.sprites import is_dsprites, sheet
from harness.runs.maps import MAPS, SIDES, RunMaps
from harness.runs.records import SCORES, RunScores, finished_at
from harness.scoring.baselines import baselines
from harness.scoring.maps import groups_of, kept_cells
from splits.errors import InputError

logger = logging.getLogger(__name__)

MOST_BYTES = 12 * 2**20  # of all blobs, as they stand in the page; what is beyond is left out, and the page says so
MOST_LABELS = 2000  # of a factor's values that have names
MOST_POINTS = 200  # of a curve of losses


@dataclass
class Payload:
    """The index and the blobs, by name."""

    index: dict[str, Any] = field(default_factory=lambda: {"splits": [], "rows": [], "live": []})
    blobs: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, content: bytes, packed: bool = True) -> None:
        self.blobs[name] = base64.b64encode(gzip.compress(content, 6, mtime=0) if packed else content).decode()

    @property
    def size(self) -> int:
        return sum(map(len, self.blobs.values()))


def payload(rows: Sequence[LeaderboardRow], data: Path | None, live: Sequence[LiveNetwork] = ()) -> Payload:
    """All that the page shows of some rows.

    Args:
        rows: of `harness.report.collect.collect`.
        data: folder of the stores, for the pictures of those datasets that the page can't draw; None: it shows none.
        live: networks that answer in the page.
    """
    made = Payload()
    for network in live:
        _add_live(made, rows, network)
    groups = headline_first(rows)
    sheets: dict[str, str] = {}
    for number, members in enumerate(groups):
        share = made.size + (MOST_BYTES - made.size) / (len(groups) - number)
        _add_split(made, members, data, sheets, share)
    return made


def _add_split(made: Payload, rows: list[LeaderboardRow], data: Path | None, sheets: dict[str, str], most: float) -> None:
    number = len(made.index["splits"])
    maps = [_maps_of(row) for row in rows]
    first = next((each for each in maps if each is not None), None)
    told = references(rows)
    maps = [each if first and each and (each.spec, each.kept) == (first.spec, first.kept) else None for each in maps]
    about: dict[str, Any] = {
        "dataset": rows[0].dataset,
        "kind": rows[0].kind,
        "factors": list(rows[0].first.r2.factors),
        "reference": {name: each.factors | {"": each.mean} for name, each in told.items()},
    }
    reference = baselines(first.split) if first else told
    constant = reference["train_mean"].train  # R² of a constant on train; scores of before do not have it
    about["constant"] = constant.factors if constant else {}
    intervals = [interval(row, each) for row, each in zip(rows, maps, strict=True)]
    described = [
        _row(row, number) | {"half": _number(own.half), "how": own.how, "rank": rank}
        for row, own, rank in zip(rows, intervals, ranks(rows, intervals), strict=True)
    ]
    if first is not None:
        about |= _grid(first)
        about["draws"] = is_dsprites(first.spec)
        if not about["draws"]:
            about["sheet"] = _sheet(made, first, data, sheets)
        answers: list[bytes] = []
        for row, each in zip(described, maps, strict=True):
            if each is None or made.size > most:
                continue
            row["answers"] = len(answers)
            answers.append(_answers(each))
            row["collapse"] = collapse(each)
            made.add(f"maps-{len(made.index['rows']) + described.index(row)}", _pairs(each))
        made.add(f"answers-{number}", b"".join(answers))
    made.index["splits"].append(about)
    made.index["rows"] += described


def _add_live(made: Payload, rows: Sequence[LeaderboardRow], network: LiveNetwork) -> None:
    scores, maps, name = network.scores, network.maps, f"live-{len(made.index['live'])}"
    key = (scores.dataset, scores.kind, scores.model, scores.fingerprint)
    label = next((row.label for row in rows if (row.dataset, row.kind, row.model, row.fingerprint) == key), scores.model)
    about = {"dataset": scores.dataset, "kind": scores.kind, "factors": list(scores.r2.factors), "draws": True} | _grid(maps)
    about |= {"model": label, "label": f"{label}, {scores.kind}, seed {scores.seed}", "color": color_of(scores.model)}
    made.index["live"].append(about | {"layers": network.layers})
    made.add(name, network.weights)


def _maps_of(row: LeaderboardRow) -> RunMaps | None:
    """Those of the first seed that has some."""
    for source in row.sources:
        path = source.path.with_name(MAPS)
        if source.path.name == SCORES and path.exists():
            try:
                return RunMaps.read(path)
            except (InputError, OSError) as error:
                logger.warning("left out: %s", error)
    return None


def _row(row: LeaderboardRow, split: int) -> dict[str, Any]:
    first, factors = row.first, list(row.first.r2.factors)
    source = row.sources[0] if row.sources else None
    setup = source.setup if source else None
    return {
        "split": split,
        "key": f"{row.model} {row.fingerprint}",
        "label": row.label,
        "family": row.family,
        "color": color_of(row.model, row.variant),
        "preset": first.preset,
        "steps": first.steps,
        "seeds": [run.seed for run in row.runs],
        "n_test": first.n_test,
        "r2": _number(row.r2),
        "by_seed": [run.r2.mean for run in row.runs],
        "excl": _number(row.mean(lambda run: run.r2.mean_excl_categorical)),
        "train": _number(row.mean(lambda run: run.train.r2.mean)),
        "published": row.published,
        "factors": [_number(row.factor_r2(name)) for name in factors],
        "train_factors": [_number(row.mean(lambda run, name=name: run.train.r2.factors.get(name))) for name in factors],  # type: ignore[misc]
        "device": first.device,
        "seconds": [first.seconds.train, first.seconds.score],
        "settings": setup.settings() if setup else {},
        "made": {} if setup is None else setup.versions | {"commit": setup.commit, "finished": _finished(first, source)},
        "log": _log(source),
    }


def _finished(scores: RunScores, source: Source | None) -> str:
    """When a run was finished, which tells versions of a user's code apart; "" where that is not known."""
    when = None if source is None else finished_at(scores, source.path)
    return "" if when is None else datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _log(source: Source | None) -> list[list[Any]]:
    """[phase, step, loss] of the first seed, thinned."""
    if source is None:
        return []
    lines: list[list[Any]] = []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a curve that can't be read is not shown
        if source.path.name == SCORES:
            found = [json.loads(line) for line in source.path.with_name(LOG).read_text(encoding="utf-8").splitlines()]
        else:
            found = json.loads(source.path.read_text(encoding="utf-8"))["log"]
        lines = [[str(line["phase"])[:20], int(line["step"]), float(line["loss"])] for line in found]
    lines = [line for line in lines if math.isfinite(line[2])]
    return lines[:: -(-len(lines) // MOST_POINTS)] if lines else []


def _grid(maps: RunMaps) -> dict[str, Any]:
    spec, split = maps.spec, maps.split
    return {
        "sizes": spec.grid.sizes,
        "categorical": [kind == "categorical" for kind in spec.grid.kinds],
        "labels": [
            [str(value) for value in factor.values] if factor.values and factor.size <= MOST_LABELS else None
            for factor in spec.grid
        ],
        "held": [list(split.held_out.get(name, ())) for name in spec.grid.names],
        "test_if": split.test_if,
        "counts": list(split.counts),
        "kept": maps.kept,
        "groups": groups_of(spec.grid),
        # Of a random split no rule says what is test: which of the kept cells are, does.
        "random_test": None if split.test_if else [int(test) for test in split.is_test(kept_cells(spec.grid, maps.kept))],
    }


def _sheet(made: Payload, maps: RunMaps, data: Path | None, sheets: dict[str, str]) -> dict[str, Any] | None:
    """The pictures of the kept cells, once for all splits of a dataset that keep the same ones."""
    if data is None:
        return None
    try:
        dataset = harness.open(maps.spec.name, data)
    except (InputError, OSError) as error:
        logger.warning("%s is shown without pictures: %s", maps.spec.name, error)
        return None
    if dataset.spec != maps.spec:
        logger.warning("%s is shown without pictures: the one in %s has another grid or other splits", maps.spec.name, data)
        return None
    drawn = sheet(dataset, kept_cells(maps.spec.grid, maps.kept))
    key = json.dumps([maps.spec.name, maps.kept])
    if key not in sheets:
        sheets[key] = f"sheet-{len(sheets)}"
        made.add(sheets[key], drawn.webp, packed=False)
    return {"blob": sheets[key], "side": drawn.side, "columns": drawn.columns}


def _answers(maps: RunMaps) -> bytes:
    """The answers on kept cells (K, F), then for each value of each factor, of test and then of train: n as float32, rms, bias (F each)."""
    singles = sum(maps.spec.grid.sizes)
    parts = [maps.answers.tobytes()]
    for side in SIDES:
        found = maps.sides[side]
        parts += [found.n[:singles].astype("<f4").tobytes(), found.rms[:singles].tobytes(), found.bias[:singles].tobytes()]
    return b"".join(parts)


def _pairs(maps: RunMaps) -> bytes:
    """For each side: n up to 255, rms in 255ths up to 1, bias in 127ths within ±1, a byte each, of the maps over pairs of factors."""
    singles = sum(maps.spec.grid.sizes)
    parts = []
    for side in SIDES:
        found = maps.sides[side]
        parts += [
            found.n[singles:].clip(max=255).astype(np.uint8),
            _bytes(found.rms[singles:], 255, 0),
            _bytes(found.bias[singles:], 127, -1),
        ]
    return b"".join(part.tobytes() for part in parts)


def _bytes(numbers: NDArray[np.float16], scale: int, least: int) -> NDArray[Any]:
    scaled = np.round(numbers.astype(np.float32).clip(least, 1) * scale)
    return scaled.astype(np.int8 if least < 0 else np.uint8)


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(f"{value:.6g}")
