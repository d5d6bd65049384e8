"""Run folders → tables, pictures, and one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import csv
import html
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.io.atomic import write_atomically
from harness.io.locks import locked
from harness.report import figures
from harness.report.leaderboard import PUBLISHED, LeaderboardRow, Number, by_split, headline_first, mixtures, references
from harness.report.live import LiveNetwork
from harness.report.page import page
from harness.report.payload import payload
from harness.report.tables import score_table, spread
from harness.scoring.baselines import label
from splits import KINDS

PICTURES = {  # how each is drawn, its title, and of how many rows at most: what can be read, and no more lines than there are colours
    "leaderboard": (figures.leaderboard, "Leaderboard", 40),
    "factors": (figures.heat_map, "R² per factor", 40),
    "modularity": (figures.modularity, "In distribution against out of distribution", 20),
    "distance": (figures.distance, "Error against the distance from train", 20),
}
LOCK = ".lock"
MADE_BY = b"Software\0Matplotlib version"  # in the head of its PNGs
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a cell begins with that a spreadsheet calculates


def report(rows: list[LeaderboardRow], out: Path, data: Path | None = None, live: Sequence[LiveNetwork] = ()) -> list[Path]:
    """Write scores.csv, factors.csv, a PNG per picture and index.html into `out`; returns their paths.

    Pictures that an earlier report left there, of splits that these rows have no more, are removed.

    Args:
        rows: of `harness.report.collect.collect`, at least one.
        out: made if it is not there.
        data: folder of the stores, for the pictures of datasets other than dSprites; None: without.
        live: networks that answer in the page, of `harness.report.live.live_network`.
    """
    files: dict[str, bytes] = {"scores.csv": _csv(_score_rows(rows)), "factors.csv": _csv(_factor_rows(rows))}
    sections = []
    for members in headline_first(rows):
        dataset, kind = members[0].dataset, members[0].kind
        pictures = []
        for name, (draw, title, most) in PICTURES.items():
            figure = draw(members[:most])
            if figure is not None:
                files[f"{dataset}-{kind}-{name}.png"] = figures.render(figure, "png")
                if name == "leaderboard":  # the page's own table shows it
                    continue
                best = f", the best {most} of {len(members):,} rows" if len(members) > most else ""
                pictures.append((f"{title}{best}", figures.render(figure, "svg")))
        sections.append(_section(dataset, kind, members, pictures))
    files["index.html"] = page(payload(rows, data, live), _notes(rows), "".join(sections)).encode()
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


def _notes(rows: Sequence[LeaderboardRow]) -> list[str]:
    quick = any(row.first.preset == "quick" for row in rows)
    return [
        *(["Some runs are of the preset quick: few steps, and a sample of the images scored."] if quick else []),
        *mixtures(rows),
    ]


def _section(dataset: str, kind: str, rows: Sequence[LeaderboardRow], pictures: Iterable[tuple[str, bytes]]) -> str:
    title = html.escape(f"{dataset}, {kind}")
    parts = [f'<details id="{html.escape(f"{dataset}-{kind}")}"><summary>{title}</summary>', _html_table(rows, title)]
    parts += [f"<p>{line}</p>" for line in spread(rows)]
    others = {name: value for name, value in PUBLISHED.get((dataset, kind), {}).items() if name not in {row.model for row in rows}}
    if others:
        numbers = ", ".join(f"{html.escape(name)} {value / 100:.3f}" for name, value in others.items())
        parts.append(f"<p>Published and not among these runs: {numbers}.</p>")
    for caption, svg in pictures:
        data = base64.b64encode(svg).decode()
        parts.append(
            f'<h3>{caption}</h3><figure><img loading="lazy" alt="{html.escape(caption)}: {title}" src="data:image/svg+xml;base64,{data}">'
            "</figure>"
        )
    return "".join(parts) + "</details>"


def _html_table(rows: Sequence[LeaderboardRow], label: str) -> str:
    header, *lines = (line[2:] for line in score_table(list(rows)))  # the title says dataset and kind
    body = "".join(
        f"<tr{' class=baseline' if line[0].startswith('(') else ''}>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in line)
        + "</tr>"
        for line in lines
    )
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide" tabindex="0" role="region" aria-label="{label}">{table}</div>'


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
    for members in by_split(rows):
        split = [members[0].dataset, members[0].kind]
        for row in members:
            numbers: dict[str, float | None] = {name: row.mean(of) for name, of in means.items()}
            numbers |= {"r2_deviation": row.deviation(means["r2"]), "published_r2": row.published}
            numbers |= {"seeds": len(row.runs), "steps": row.first.steps, "n_test": row.first.n_test}
            shown = [_in_full(numbers[column]) for column in columns]
            lines.append([*split, row.model, row.fingerprint, row.differs, *shown, row.first.preset])
        for name, baseline in references(members).items():
            numbers = {"r2": baseline.mean, "r2_excl_categorical": baseline.mean_excl_categorical}
            numbers["train_r2"] = None if baseline.train is None else baseline.train.mean
            shown = [_in_full(numbers.get(column)) for column in columns]
            lines.append([*split, label(name), "", "", *shown, ""])
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
