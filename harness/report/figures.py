"""The pictures of a report: leaderboards, R² per factor, modularity, error against distance."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.report.colors import colors_of
from harness.report.leaderboard import LeaderboardRow, references
from harness.scoring.baselines import BASELINES, label
from harness.scoring.records import DistanceError

BASELINE_STYLES = dict(zip(BASELINES, (":", "--", "-."), strict=True))
INK = "#5b5b61"  # of lines and letters; in an SVG, what a dark page shows is `DARK_INK`
DARK_INK = "#b9b9c0"
DPI, MOST_PIXELS = 150, 2**15  # of a PNG; along a side, of which matplotlib draws less than 2^16
FLOOR = -1.0  # of an R² that is drawn: below, only that it is bad matters; ◀ and ▼ mark what lies there
LOSSES = (0.005, 8.0)  # 1 − R² that heat maps tell apart: .99 from .90 as well as .9 from 0
STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
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
    return _in_the_dark_too(buffer.getvalue()) if kind == "svg" else buffer.getvalue()


def _in_the_dark_too(svg: bytes) -> bytes:
    """An SVG whose ink follows the reader's colour scheme, as it does where it is an image of a page."""
    style = f"<style>:root{{--ink:{INK}}}@media(prefers-color-scheme:dark){{:root{{--ink:{DARK_INK}}}}}</style>"
    head, tag, rest = svg.replace(INK.encode(), b"var(--ink)").partition(b"<defs>")
    return head + style.encode() + tag + rest


def leaderboard(rows: Sequence[LeaderboardRow]) -> Figure:
    """R² of each model on one split: test as a bar with its deviation over seeds, train as a dot, a published number as a diamond."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 1.0 + 0.3 * len(rows)))
        axes = figure.subplots()
        test = np.array([row.r2 for row in rows])
        deviations = np.array([row.deviation(lambda run: run.r2.mean) for row in rows])
        several, spread = ~np.isnan(deviations), np.nan_to_num(deviations)
        places = np.arange(len(rows))
        axes.barh(places, np.nan_to_num(test.clip(min=FLOOR)), 0.6, color=colors_of(rows))
        axes.errorbar(test[several], places[several], xerr=spread[several], fmt="none", ecolor=INK, capsize=2)
        train = [row.mean(lambda run: run.train.r2.mean) for row in rows]
        axes.plot(train, places, "o", ms=5, mfc=INK, mec="white", mew=0.8, label="train")
        published = [(row.published, place) for row, place in zip(rows, places, strict=True) if row.published is not None]
        if published:
            axes.plot(*zip(*published, strict=True), "D", ms=5, mfc="none", mec=INK, label="published")
        told = references(rows)
        for name, style in BASELINE_STYLES.items():
            value = _value(told[name].mean)
            if value < 1:  # perfect it is on every model's split, and says nothing
                axes.axvline(value, ls=style, color=INK, lw=1, label=label(name).strip("()"))
        axes.set_yticks(places, [row.label for row in rows])
        axes.invert_yaxis()
        least = min(0, _value(told["train_mean"].mean), *(test - spread).clip(min=FLOOR))
        axes.set_xlim(left=least - 0.05, right=1.02)
        for place, value in zip(places, test, strict=True):
            if value < FLOOR:
                axes.text(least, float(place), f"◀ {_brief(value)}", va="center", color="white", fontsize=8)
        axes.set_xlabel("R² (the benchmark's), mean over factors; bars: test")
        axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
        return figure


def heat_map(rows: Sequence[LeaderboardRow]) -> Figure:
    """R² per factor of each model and baseline on one split; ▲ where a model beats clip, the last of them."""
    factors = list(rows[0].first.r2.factors)
    names = [row.label for row in rows] + [label(name) for name in BASELINES]
    values = [[row.factor_r2(factor) for factor in factors] for row in rows]
    told = references(rows)
    values += [[_value(told[name].factors[factor]) for factor in factors] for name in BASELINES]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(1.8 + 0.9 * len(factors), 0.9 + 0.28 * len(names)))
        axes = figure.subplots()
        lost = np.clip(1 - np.array(values), *LOSSES)
        image = axes.imshow(lost, cmap="OrRd", norm=LogNorm(*LOSSES), aspect="auto")
        axes.set_xticks(range(len(factors)), factors, rotation=30, ha="right")
        axes.set_yticks(range(len(names)), names)
        for (row, column), value in np.ndenumerate(np.array(values)):
            shown = "–" if math.isnan(value) else _brief(value)
            shown += " ▲" if row < len(rows) and value > values[-1][column] else ""
            strong = math.log(lost[row, column] / LOSSES[0]) > 0.65 * math.log(LOSSES[1] / LOSSES[0])
            color = "white" if strong else "black"
            axes.text(column, row, shown, ha="center", va="center", color=color, fontsize=8)
        bar = figure.colorbar(image, fraction=0.05)
        marks = (0.99, 0.9, 0.5, 0, -1, -5)
        bar.set_ticks([1 - mark for mark in marks], labels=[f"{mark:g}" for mark in marks])
        bar.ax.minorticks_off()
        bar.ax.invert_yaxis()
        bar.set_label("R²: the colour is 1 − R², logarithmic")
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
        colors = colors_of(rows)
        below = False
        for color, row in zip(colors, rows, strict=True):
            for factor in factors:
                alone = [(run.modularity or {}).get(factor) for run in row.runs]
                inside, outside = (max(_mean(getattr(each, side, None) for each in alone), FLOOR) for side in ("id", "ood"))
                cut = FLOOR in (inside, outside)
                below = below or cut
                axes.plot(inside, outside, markers.get(factor, "."), color=color, mfc="none" if cut else color, ms=6, alpha=0.85)
        for color, row in zip(colors, rows, strict=True):
            axes.plot([], [], "s", color=color, label=row.label)
        for factor in factors:
            axes.plot([], [], markers.get(factor, "."), color=INK, label=factor)
        axes.plot([FLOOR, 1], [FLOOR, 1], ":", color=INK, lw=1, label="as good on both")
        axes.set(xlim=(FLOOR - 0.08, 1.05), ylim=(FLOOR - 0.08, 1.05))
        floor = f" (hollow: below {FLOOR:.0f})" if below else ""
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
        colors, told = colors_of(rows), references(rows)
        all_axes = figure.subplots(1, len(factors), sharey=True, squeeze=False)[0]
        for axes, factor in zip(all_axes, factors, strict=True):
            for color, row in zip(colors, rows, strict=True):
                steps, errors = _errors_by_steps([run.by_distance for run in row.runs], factor)
                axes.plot(steps, errors, "o-", ms=3, lw=1, color=color, label=row.label)
            for name, style in BASELINE_STYLES.items():
                steps, errors = _errors_by_steps([told[name].by_distance], factor)
                axes.plot(steps, errors, style, color=INK, lw=1, label=label(name))
            axes.set_title(factor, fontsize=9)
            axes.set_xlabel("steps from train")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        all_axes[0].set_ylabel("root mean squared error")
        all_axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)
        return figure


def _brief(value: float) -> str:
    return f"{value:z.2f}" if abs(value) < 1000 else f"{value:.0e}"


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
