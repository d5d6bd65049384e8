"""The pictures of a report: leaderboards, R² per factor, modularity, error against distance."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.report.leaderboard import LeaderboardRow
from harness.scoring.baselines import BASELINES, label
from harness.scoring.records import DistanceError

COLORS = {"supervised": "#2a78d6", "pretrained": "#eb6834", "representation": "#1baf7a", "user": "#4a3aa7"}
BASELINE_STYLES = dict(zip(BASELINES, (":", "--", "-."), strict=True))
GREY = "#77777c"
DPI, MOST_PIXELS = 150, 2**15  # of a PNG; along a side, of which matplotlib draws less than 2^16
FLOOR = -4.0  # of an R² that is drawn: below, only that it is bad matters
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "text.color": GREY,
    "legend.frameon": False,
    "font.size": 9,
    "text.parse_math": False,  # a $ in a name is a $
    "svg.fonttype": "none",
    "svg.hashsalt": "ood-data",  # the same runs, the same bytes
}


def render(figure: Figure, kind: str) -> bytes:
    """The figure as "png" or "svg" bytes; its background is transparent, so that it goes with a light page and a dark one."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        metadata = {"Date": None} if kind == "svg" else None
        dpi = min(DPI, MOST_PIXELS / max(figure.get_size_inches()))
        figure.savefig(buffer, format=kind, bbox_inches="tight", dpi=dpi, transparent=kind == "svg", metadata=metadata)
    return buffer.getvalue()


def leaderboard(rows: Sequence[LeaderboardRow]) -> Figure:
    """R² of each model on one split: test as a bar with its deviation over seeds, train as a dot, a published number as a diamond."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.0 + 0.3 * len(rows)))
        axes = figure.subplots()
        families = {row.model: row.family for row in rows}
        test = [row.r2 for row in rows]
        deviations = np.array([row.deviation(lambda run: run.r2.mean) for row in rows])
        several, spread = ~np.isnan(deviations), np.nan_to_num(deviations)
        places = np.arange(len(rows))
        axes.barh(places, test, 0.6, color=[COLORS[families[row.model]] for row in rows])
        axes.errorbar(np.array(test)[several], places[several], xerr=spread[several], fmt="none", ecolor=GREY, capsize=2)
        train = [row.mean(lambda run: run.train.r2.mean) for row in rows]
        axes.plot(train, places, "o", ms=5, mfc=GREY, mec="white", mew=0.8, label="train")
        published = [(row.published, place) for row, place in zip(rows, places, strict=True) if row.published is not None]
        if published:
            axes.plot(*zip(*published, strict=True), "D", ms=5, mfc="none", mec=GREY, label="published")
        for name, style in BASELINE_STYLES.items():
            value = _value(rows[0].first.reference[name].mean)
            axes.axvline(value, ls=style, color=GREY, lw=1, label=label(name).strip("()"))
        for family in dict.fromkeys(families.values()):
            axes.bar(0, 0, color=COLORS[family], label=family)
        axes.set_yticks(places, [row.label for row in rows])
        axes.invert_yaxis()
        least = min(0, _value(rows[0].first.reference["train_mean"].mean), *(t - s for t, s in zip(test, spread, strict=True)))
        axes.set_xlim(left=max(-1.0, least) - 0.05, right=1.02)
        axes.set_xlabel("R² (the benchmark's), mean over factors; bars: test")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        return figure


def heat_map(rows: Sequence[LeaderboardRow]) -> Figure:
    """R² per factor of each model and baseline on one split; ▲ where a model beats clip, the last of them."""
    factors = list(rows[0].first.r2.factors)
    names = [row.label for row in rows] + [label(name) for name in BASELINES]
    values = [[row.factor_r2(factor) for factor in factors] for row in rows]
    values += [[_value(rows[0].first.reference[name].factors[factor]) for factor in factors] for name in BASELINES]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.8 + 0.9 * len(factors), 0.9 + 0.28 * len(names)))
        axes = figure.subplots()
        image = axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
        axes.set_xticks(range(len(factors)), factors, rotation=30, ha="right")
        axes.set_yticks(range(len(names)), names)
        for (row, column), value in np.ndenumerate(np.array(values)):
            shown = "–" if math.isnan(value) else f"{value:z.2f}" if abs(value) < 1000 else f"{value:.0e}"
            shown += " ▲" if row < len(rows) and value > values[-1][column] else ""
            axes.text(column, row, shown, ha="center", va="center", color="white" if abs(value) > 0.6 else "black", fontsize=8)
        figure.colorbar(image, label="R² (below −1: as −1)", fraction=0.05)
        return figure


def modularity(rows: Sequence[LeaderboardRow]) -> Figure | None:
    """Draw, where one factor alone is held out, its R² against the mean R² of the others. None where the split has no such samples."""
    if not rows[0].first.modularity:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 4.2))
        axes = figure.subplots()
        factors = list(rows[0].first.modularity)
        markers = dict(zip(factors, "osD^vP*X<>", strict=False))
        colors = _colors(rows)
        lowest = -1.0
        for color, row in zip(colors, rows, strict=True):
            for factor in factors:
                alone = [(run.modularity or {}).get(factor) for run in row.runs]
                inside, outside = (max(_mean(getattr(each, side, None) for each in alone), FLOOR) for side in ("id", "ood"))
                axes.plot(inside, outside, markers.get(factor, "."), color=color, ms=6, alpha=0.85)
                lowest = min(lowest, *(value for value in (inside, outside) if not math.isnan(value)), lowest)
        for color, row in zip(colors, rows, strict=True):
            axes.plot([], [], "s", color=color, label=row.label)
        for factor in factors:
            axes.plot([], [], markers.get(factor, "."), color=GREY, label=factor)
        axes.plot([lowest, 1], [lowest, 1], ":", color=GREY, lw=1, label="as good on both")
        axes.set(xlim=(lowest - 0.08, 1.05), ylim=(lowest - 0.08, 1.05))
        floor = f" (below {FLOOR:.0f}: as {FLOOR:.0f})" if lowest == FLOOR else ""
        axes.set_xlabel("mean R² of the other factors (in distribution)")
        axes.set_ylabel(f"R² of the held-out factor{floor}")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)
        return figure


def distance(rows: Sequence[LeaderboardRow]) -> Figure | None:
    """Root mean squared error of each factor by index steps from the nearest value in train. None where there are no held-out values."""
    factors = list(dict.fromkeys(error.factor for error in rows[0].first.by_distance if error.steps))
    if not factors:
        return None
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.4 * len(factors) + 1.4, 2.6))
        colors = _colors(rows)
        all_axes = figure.subplots(1, len(factors), sharey=True, squeeze=False)[0]
        for axes, factor in zip(all_axes, factors, strict=True):
            for color, row in zip(colors, rows, strict=True):
                steps, errors = _errors_by_steps([run.by_distance for run in row.runs], factor)
                axes.plot(steps, errors, "o-", ms=3, lw=1, color=color, label=row.label)
            for name, style in BASELINE_STYLES.items():
                steps, errors = _errors_by_steps([rows[0].first.reference[name].by_distance], factor)
                axes.plot(steps, errors, style, color=GREY, lw=1, label=label(name))
            axes.set_title(factor, fontsize=9)
            axes.set_xlabel("steps from train")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        all_axes[0].set_ylabel("root mean squared error")
        all_axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)
        return figure


def _colors(rows: Sequence[LeaderboardRow]) -> list[Any]:
    palette = matplotlib.colormaps["tab10" if len(rows) <= 10 else "tab20"]  # tab20's neighbours are shades of one colour
    return [palette(position % palette.N) for position in range(len(rows))]


def _errors_by_steps(runs: Sequence[Sequence[DistanceError]], factor: str) -> tuple[list[int], list[float]]:
    by_steps: dict[int, list[float]] = {}
    for run in runs:
        for error in run:
            if error.factor == factor:
                by_steps.setdefault(error.steps, []).append(error.mse)
    steps = sorted(by_steps)
    return steps, [math.sqrt(_mean(by_steps[step])) for step in steps]


def _mean(values: Iterable[float | None]) -> float:
    """The mean; nan if one of the values is None."""
    numbers = [_value(value) for value in values]
    return sum(numbers) / len(numbers)


def _value(value: float | None) -> float:
    return math.nan if value is None else value
