"""The leaderboard in docs and the README, tables and picture of the findings, made from the records in results/: `make leaderboard`.

The leaderboard is what `ood-data report results/` prints. A page says with a comment where which table goes: see `TABLES`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

from harness.io.atomic import write_atomically  # noqa: E402
from harness.report.collect import collect  # noqa: E402
from harness.report.figures import INK, render  # noqa: E402
from harness.report.leaderboard import LeaderboardRow  # noqa: E402
from harness.report.tables import notes, overviews, score_table  # noqa: E402
from splits import KINDS  # noqa: E402

PAGES, PICTURE = (ROOT / "README.md", ROOT / "docs/leaderboard.md", ROOT / "docs/findings.md"), ROOT / "docs/findings.svg"
COLORS = ("#c8364a", "#2f6fd0")
TABLE = re.compile(r"(<!-- made by docs/leaderboard\.py: (\w+) -->\n).*?(<!-- end -->\n)", re.DOTALL)


def main() -> None:
    for path, text in pages().items():
        write_atomically(path, text.encode())
    write_atomically(PICTURE, render(picture(collect(ROOT / "results")), "svg"))


def pages(results: Path = ROOT / "results") -> dict[Path, str]:
    """What the pages are to be, each with the tables between its comments replaced."""
    rows = collect(results)
    return {
        path: TABLE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]](rows)}\n{found[3]}", path.read_text(encoding="utf-8"))
        for path in PAGES
    }


def overview(rows: list[LeaderboardRow]) -> str:
    """A table for each dataset, of R² by model and kind of split."""
    return "\n\n".join(f"**{dataset}**, R² on test:\n\n{markdown(lines)}" for dataset, lines in overviews(rows))


def details(rows: list[LeaderboardRow]) -> str:
    """Every row, and what the rows mix."""
    return "\n\n".join(["## In full", markdown(score_table(rows)), *notes(rows)])


def train_and_test(rows: list[LeaderboardRow]) -> str:
    """Of dSprites: R² on train and on test by model and kind of split, best on the last kind first."""
    lines = [["model", *(f"{kind}: train, test" for kind in KINDS)]]
    for label, of_kinds in _by_model(rows).items():
        both = [f"{_short(_train(row))}, {_short(row.r2)}" if (row := of_kinds.get(kind)) else "–" for kind in KINDS]
        lines.append([label, *both])
    return markdown(lines)


def modularity(rows: list[LeaderboardRow]) -> str:
    """Of dSprites' extrapolation: the mean R² of the other factors where one alone is held out, beside all factors' on train."""
    of_models = [row for of_kinds in _by_model(rows).values() if (row := of_kinds.get("extrapolation"))]
    factors = list(of_models[0].first.modularity or ())
    lines = [["model", "none (train)", *factors]]
    for row in of_models:
        lines.append([row.label, *map(_short, (_train(row), *(_others(row, factor) for factor in factors)))])
    return markdown(lines)


def _train(row: LeaderboardRow) -> float:
    return row.mean(lambda run: run.train.r2.mean)


def _others(row: LeaderboardRow, held_out: str) -> float:
    """The mean R² of the other factors where this one alone is held out."""
    return row.mean(lambda run: run.modularity[held_out].id if run.modularity else None)


def _by_model(rows: list[LeaderboardRow]) -> dict[str, dict[str, LeaderboardRow]]:
    """The rows of dSprites by model and kind, best on the last kind first."""
    models: dict[str, dict[str, LeaderboardRow]] = {}
    for row in sorted(rows, key=lambda row: (row.kind != KINDS[-1], -row.r2)):
        if row.dataset == "dsprites":
            models.setdefault(row.label, {})[row.kind] = row
    return models


def _short(value: float) -> str:
    """.64 for 0.64, as the text of the page has it."""
    return f"{value:z.2f}".replace("0.", ".", 1).replace("-", "−")


TABLES: dict[str, Callable[[list[LeaderboardRow]], str]] = {
    "dsprites": lambda rows: overview([row for row in rows if row.dataset == "dsprites"]),
    "all": lambda rows: f"{overview(rows)}\n\n{details(rows)}",
    "train_and_test": train_and_test,
    "modularity": modularity,
}


def markdown(lines: list[list[str]]) -> str:
    """A table, its first line the header."""
    header, *body = ("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return "\n".join([header, "|" + "---|" * len(lines[0]), *body])


def picture(rows: list[LeaderboardRow]) -> Figure:
    """Every model's R² on train and on test, a panel for each dataset and kind of split."""
    datasets = list(dict.fromkeys(row.dataset for row in rows))
    table = {(row.dataset, row.kind, row.label): row for row in rows}
    models = sorted({row.label for row in rows}, key=lambda label: -sum(row.r2 for row in rows if row.label == label))
    figure = Figure(figsize=(9, 2.4 * len(datasets) + 0.5))
    panels = figure.subplots(len(datasets), len(KINDS), sharex=True, sharey=True, squeeze=False)
    for line, dataset in zip(panels, datasets, strict=True):
        for axes, kind in zip(line, KINDS, strict=True):
            axes.axvline(0, color=INK, linewidth=0.5)
            for y, model in enumerate(models):
                if row := table.get((dataset, kind, model)):
                    train, test = _train(row), row.r2
                    axes.plot([test, train], [y, y], color=INK, linewidth=1, alpha=0.5)
                    axes.plot(train, y, "o", color=INK, markersize=5, fillstyle="none")
                    axes.plot(test, y, "o", color=COLORS[dataset == datasets[0]], markersize=5)
            axes.set_title(f"{dataset}, {kind}", fontsize=9)
            axes.set_xlim(-0.75, 1.05)
    panels[0, 0].set_yticks(range(len(models)), models)
    panels[0, 0].invert_yaxis()
    ends = [Line2D([], [], marker="o", linestyle="", color=INK, fillstyle=style) for style in ("none", "full")]
    figure.legend(ends, ["R² on train", "R² on test"], loc="lower center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0.06, 1, 1))
    return figure


if __name__ == "__main__":
    main()
