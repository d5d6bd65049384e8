"""Run folders → tables, pictures, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import csv
import html
import io
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from harness.io.atomic import write_atomically
from harness.report import figures
from harness.report.results import PUBLISHED, Entry, score_table

PICTURES = {
    "leaderboard": (figures.leaderboard, "Leaderboard"),
    "factors": (figures.heat_map, "R² per factor"),
    "modularity": (figures.modularity, "In distribution against out of distribution"),
    "distance": (figures.distance, "Error against the distance from train"),
}
STYLE = """
:root { color-scheme: light dark; --text: #1c1c1e; --quiet: #66666b; --line: #d9d9de; --page: #fff; --panel: #f6f6f8 }
@media (prefers-color-scheme: dark) {
  :root { --text: #ececef; --quiet: #a0a0a8; --line: #3a3a40; --page: #161618; --panel: #202024 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 62rem; font: 15px/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--page) }
h1 { font-size: 1.6rem } h2 { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: 1rem } h3 { margin-bottom: .3rem }
p, li, caption, figcaption { color: var(--quiet) }
nav a { margin-right: 1rem } a { color: inherit }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line) }
th { color: var(--quiet); font-weight: 500 } td:first-child, th:first-child { text-align: left }
tr.reference td { color: var(--quiet); background: var(--panel) }
figure { margin: 1.5rem 0 } figure img { max-width: 100%; min-width: 38rem; height: auto }
"""
INTRODUCTION = """
<p>R² is the benchmark's: one minus the mean squared error over the variance of the factor on the full grid, averaged over factors.
It is not scikit-learn's. Ranking is on extrapolation.</p>
<ul>
<li><b>(train-mean)</b> answers the mean over train; <b>(ood-to-mean)</b> is perfect where train has the value and answers that mean
elsewhere; <b>(clip)</b> is perfect but answers only values that train has. A model below clip has not shown that it extrapolates.</li>
<li><b>excl. cat.</b> leaves out categorical factors, whose order means nothing. ± is the standard deviation over seeds.</li>
<li><b>published</b> numbers are the paper's, which gives few in numbers, and all of them for extrapolation.</li>
</ul>
"""


def report(rows: list[Entry], out: Path) -> list[Path]:
    """Write scores.csv, factors.csv, a PNG per picture and index.html into `out`; returns their paths.

    Args:
        rows: of `harness.report.results.collect`, at least one.
        out: made if it is not there.
    """
    out.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {"scores.csv": _csv(_score_rows(rows)), "factors.csv": _csv(_factor_table(rows))}
    sections = []
    for (dataset, kind), group in itertools.groupby(rows, key=lambda row: (row.dataset, row.kind)):
        members = list(group)
        pictures = []
        for name, (draw, title) in PICTURES.items():
            figure = draw(members)
            if figure is not None:
                files[f"{dataset}-{kind}-{name}.png"] = figures.render(figure, "png")
                pictures.append((title, figures.render(figure, "svg")))
        sections.append(_section(dataset, kind, members, pictures))
    files["index.html"] = _page(rows, sections).encode()
    for name, content in files.items():
        write_atomically(out / name, content)
    return [out / name for name in files]


def _page(rows: Sequence[Entry], sections: Iterable[str]) -> str:
    splits = dict.fromkeys((row.dataset, row.kind) for row in rows)
    links = "".join(f'<a href="#{html.escape(f"{d}-{k}")}">{html.escape(f"{d}, {k}")}</a> ' for d, k in splits)
    quick = any(row.first["preset"] == "quick" for row in rows)
    note = "<p><b>Some runs are of the preset quick</b>: few steps, and a sample of the images scored; not the paper's budget.</p>"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>ood-data report</title><style>{STYLE}</style><h1>Out-of-distribution generalisation</h1>"
        f"{INTRODUCTION}{note if quick else ''}<nav>{links}</nav>{''.join(sections)}</html>"
    )


def _section(dataset: str, kind: str, rows: Sequence[Entry], pictures: Iterable[tuple[str, bytes]]) -> str:
    title = html.escape(f"{dataset}, {kind}")
    parts = [f'<section id="{html.escape(f"{dataset}-{kind}")}"><h2>{title}</h2>', _html_table(rows)]
    others = {name: value for name, value in PUBLISHED.get((dataset, kind), {}).items() if name not in {row.model for row in rows}}
    if others:
        told = ", ".join(f"{html.escape(name)} {value / 100:.3f}" for name, value in others.items())
        parts.append(f"<p>Published and not among these runs: {told}.</p>")
    for caption, svg in pictures:
        data = base64.b64encode(svg).decode()
        parts.append(
            f'<h3>{caption}</h3><figure class="wide"><img alt="{html.escape(caption)}: {title}" src="data:image/svg+xml;base64,{data}">'
            "</figure>"
        )
    return "".join(parts) + "</section>"


def _html_table(rows: Sequence[Entry]) -> str:
    header, *lines = (line[2:] for line in score_table(list(rows)))  # the title says dataset and kind
    body = "".join(
        f"<tr{' class=reference' if line[0].startswith('(') else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in line)
        + "</tr>"
        for line in lines
    )
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _score_rows(rows: Sequence[Entry]) -> list[list[str]]:
    """A line per row of the leaderboards and per reference predictor, numbers in full, nothing where there is none."""
    columns: dict[str, Callable[[Entry], float | None]] = {
        "r2": lambda row: row.mean("r2", "mean"),
        "r2_deviation": lambda row: row.deviation("r2", "mean"),
        "r2_excl_categorical": lambda row: row.mean("r2", "mean_excl_categorical"),
        "r2_sklearn": lambda row: row.mean("r2_sklearn", "mean"),
        "mse": lambda row: row.mean("mse", "mean"),
        "train_r2": lambda row: row.mean("train", "r2", "mean"),
        "published_r2": lambda row: row.published,
        "seeds": lambda row: len(row.runs),
        "steps": lambda row: row.first["steps"],
        "n_test": lambda row: row.first["n_test"],
    }
    lines = [["dataset", "kind", "model", "config", "differs", *columns, "preset"]]
    for (dataset, kind), group in itertools.groupby(rows, key=lambda row: (row.dataset, row.kind)):
        members = list(group)
        for row in members:
            shown = [_in_full(value(row)) for value in columns.values()]
            lines.append([dataset, kind, row.model, row.config, row.differs, *shown, row.first["preset"]])
        for name, scores in members[0].first["reference"].items():
            known = {"r2": scores["mean"], "r2_excl_categorical": scores["mean_excl_categorical"]}
            shown = [_in_full(known.get(column)) for column in columns]
            lines.append([dataset, kind, f"({name.replace('_', '-')})", "", "", *shown, ""])
    return lines


def _factor_table(rows: Sequence[Entry]) -> list[list[str]]:
    """A line per model, split, seed and factor."""
    lines = [
        ["dataset", "kind", "model", "config", "seed", "factor", "r2", "r2_sklearn", "mse", "train_r2", "preset", "steps", "n_test"]
    ]
    for row in rows:
        for run in row.runs:
            for factor, r2 in run["r2"]["factors"].items():
                numbers = [
                    r2,
                    run["r2_sklearn"]["factors"][factor],
                    run["mse"]["factors"][factor],
                    run["train"]["r2"]["factors"][factor],
                ]
                what = [row.dataset, row.kind, row.model, row.config, str(run["seed"]), factor]
                lines.append([*what, *map(_in_full, numbers), run["preset"], str(run["steps"]), str(run["n_test"])])
    return lines


def _in_full(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)


def _csv(lines: Iterable[Sequence[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(lines)
    return buffer.getvalue().encode()
