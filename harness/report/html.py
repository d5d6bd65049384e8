"""Run folders → tables, pictures, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import csv
import html
import io
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.io.atomic import write_atomically
from harness.io.locks import locked
from harness.report import figures
from harness.report.leaderboard import PUBLISHED, LeaderboardRow, Number, mixtures
from harness.report.tables import score_table
from harness.scoring.baselines import label
from splits import KINDS

PICTURES = {  # how each is drawn, its title, and of how many rows at most: no more lines than there are colours
    "leaderboard": (figures.leaderboard, "Leaderboard", 100),
    "factors": (figures.heat_map, "R² per factor", 100),
    "modularity": (figures.modularity, "In distribution against out of distribution", 20),
    "distance": (figures.distance, "Error against the distance from train", 20),
}
LOCK = ".lock"
MADE_BY = b"Software\0Matplotlib version"  # in the head of its PNGs
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a cell begins with that a spreadsheet calculates
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
tr.baseline td { color: var(--quiet); background: var(--panel) }
figure { margin: 1.5rem 0 } figure img { max-width: 100%; min-width: 38rem; height: auto }
"""
INTRODUCTION = """
<p>R² is the benchmark's: one minus the mean squared error over the variance of the factor on the full grid, averaged over factors.
It is not scikit-learn's. Each section ranks by its own split; the benchmark ranks models on extrapolation.</p>
<ul>
<li><b>(train-mean)</b> answers the mean over train; <b>(ood-to-mean)</b> is perfect where train has the value and answers that mean
elsewhere; <b>(clip)</b> is perfect but answers only values that train has. A factor on which a model beats clip is marked ▲ in
the table of factors: only there has it shown that it extrapolates. A mean can lie below clip's although single factors beat it.</li>
<li><b>excl. cat.</b> leaves out categorical factors, whose order means nothing. ± is the standard deviation over seeds.</li>
<li><b>published</b> numbers are from the benchmark's README of July 2021, for extrapolation; it does not state seeds or selection.
They stand beside runs of the preset full without overrides.</li>
</ul>
"""


def report(rows: list[LeaderboardRow], out: Path) -> list[Path]:
    """Write scores.csv, factors.csv, a PNG per picture and index.html into `out`; returns their paths.

    Pictures that an earlier report left there, of splits that these rows have no more, are removed.

    Args:
        rows: of `harness.report.leaderboard.collect`, at least one.
        out: made if it is not there.
    """
    files: dict[str, bytes] = {"scores.csv": _csv(_score_rows(rows)), "factors.csv": _csv(_factor_rows(rows))}
    sections = []
    for (dataset, kind), group in itertools.groupby(rows, key=lambda row: (row.dataset, row.kind)):
        members = list(group)
        pictures = []
        for name, (draw, title, most) in PICTURES.items():
            figure = draw(members[:most])
            if figure is not None:
                files[f"{dataset}-{kind}-{name}.png"] = figures.render(figure, "png")
                best = f", the best {most} of {len(members):,} rows" if len(members) > most else ""
                pictures.append((f"{title}{best}", figures.render(figure, "svg")))
        sections.append(_section(dataset, kind, members, pictures))
    files["index.html"] = _page(rows, sections).encode()
    out.mkdir(parents=True, exist_ok=True)
    with locked(out / LOCK):  # two reports into one folder: the second one's files
        for name, content in files.items():
            write_atomically(out / name, content)
        for path in _pictures(out):
            if path.name not in files:
                path.unlink()
    return [out / name for name in files]


def _pictures(out: Path) -> list[Path]:
    """Those in a folder that a report drew, by their names and what matplotlib says in them, or began to write when it was killed."""
    named = [path for kind in KINDS for name in PICTURES for path in out.glob(f"*-{kind}-{name}.png*") if path.is_file()]
    drawn = [path for path in named if path.suffix == ".png" and MADE_BY in path.read_bytes()[:1024]]
    return [*drawn, *(path for path in named if path.name.endswith(".png.partial"))]


def _page(rows: Sequence[LeaderboardRow], sections: Iterable[str]) -> str:
    splits = dict.fromkeys((row.dataset, row.kind) for row in rows)
    links = "".join(f'<a href="#{html.escape(f"{d}-{k}")}">{html.escape(f"{d}, {k}")}</a> ' for d, k in splits)
    quick = any(row.first.preset == "quick" for row in rows)
    note = "<p><b>Some runs are of the preset quick</b>: few steps, and a sample of the images scored.</p>" if quick else ""
    note += "".join(f"<p>{html.escape(line)}</p>" for line in mixtures(rows))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>ood-data report</title><style>{STYLE}</style><h1>Out-of-distribution generalisation</h1>"
        f"{INTRODUCTION}{note}<nav>{links}</nav>{''.join(sections)}</html>"
    )


def _section(dataset: str, kind: str, rows: Sequence[LeaderboardRow], pictures: Iterable[tuple[str, bytes]]) -> str:
    title = html.escape(f"{dataset}, {kind}")
    parts = [f'<section id="{html.escape(f"{dataset}-{kind}")}"><h2>{title}</h2>', _html_table(rows)]
    others = {name: value for name, value in PUBLISHED.get((dataset, kind), {}).items() if name not in {row.model for row in rows}}
    if others:
        numbers = ", ".join(f"{html.escape(name)} {value / 100:.3f}" for name, value in others.items())
        parts.append(f"<p>Published and not among these runs: {numbers}.</p>")
    for caption, svg in pictures:
        data = base64.b64encode(svg).decode()
        parts.append(
            f'<h3>{caption}</h3><figure class="wide"><img alt="{html.escape(caption)}: {title}" src="data:image/svg+xml;base64,{data}">'
            "</figure>"
        )
    return "".join(parts) + "</section>"


def _html_table(rows: Sequence[LeaderboardRow]) -> str:
    header, *lines = (line[2:] for line in score_table(list(rows)))  # the title says dataset and kind
    body = "".join(
        f"<tr{' class=baseline' if line[0].startswith('(') else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in line)
        + "</tr>"
        for line in lines
    )
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _score_rows(rows: Sequence[LeaderboardRow]) -> list[list[str]]:
    """A line per row of the leaderboards and per baseline, numbers in full, nothing where there is none."""
    means: dict[str, Number] = {
        "r2": lambda run: run.r2.mean,
        "r2_excl_categorical": lambda run: run.r2.mean_excl_categorical,
        "r2_sklearn": lambda run: run.r2_sklearn.mean,
        "mse": lambda run: run.mse.mean,
        "train_r2": lambda run: run.train.r2.mean,
    }
    after_r2 = ["r2_deviation", *list(means)[1:]]
    columns = ["r2", *after_r2, "published_r2", "seeds", "steps", "n_test"]
    lines = [["dataset", "kind", "model", "config", "differs", *columns, "preset"]]
    for (dataset, kind), group in itertools.groupby(rows, key=lambda row: (row.dataset, row.kind)):
        members = list(group)
        for row in members:
            numbers: dict[str, float | None] = {name: row.mean(of) for name, of in means.items()}
            numbers |= {"r2_deviation": row.deviation(means["r2"]), "published_r2": row.published}
            numbers |= {"seeds": len(row.runs), "steps": row.first.steps, "n_test": row.first.n_test}
            shown = [_in_full(numbers[column]) for column in columns]
            lines.append([dataset, kind, row.model, row.fingerprint, row.differs, *shown, row.first.preset])
        for name, baseline in members[0].first.reference.items():
            numbers = {"r2": baseline.mean, "r2_excl_categorical": baseline.mean_excl_categorical}
            shown = [_in_full(numbers.get(column)) for column in columns]
            lines.append([dataset, kind, label(name), "", "", *shown, ""])
    return lines


def _factor_rows(rows: Sequence[LeaderboardRow]) -> list[list[str]]:
    """A line per model, split, seed and factor."""
    lines = [
        ["dataset", "kind", "model", "config", "seed", "factor", "r2", "r2_sklearn", "mse", "train_r2", "preset", "steps", "n_test"]
    ]
    for row in rows:
        for run in row.runs:
            for factor in run.r2.factors:
                numbers = [each.factors[factor] for each in (run.r2, run.r2_sklearn, run.mse, run.train.r2)]
                what = [row.dataset, row.kind, row.model, row.fingerprint, str(run.seed), factor]
                lines.append([*what, *map(_in_full, numbers), run.preset, str(run.steps), str(run.n_test)])
    return lines


def _in_full(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)


def _csv(lines: Iterable[Sequence[str]]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([_cell(text) for text in line] for line in lines)
    return buffer.getvalue().encode()


def _cell(text: str) -> str:
    """Text as it is, but that no spreadsheet takes it for a formula."""
    return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
