"""The leaderboard in docs and the README, and the picture of the findings, made from the records in results/: `make leaderboard`.

What it writes is what `ood-data report results/` prints.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402

from harness.io.atomic import write_atomically  # noqa: E402
from harness.report.collect import collect  # noqa: E402
from harness.report.figures import INK, render  # noqa: E402
from harness.report.leaderboard import LeaderboardRow, mixtures  # noqa: E402
from harness.report.tables import overviews, score_table  # noqa: E402
from splits import KINDS  # noqa: E402

README, PAGE, PICTURE = ROOT / "README.md", ROOT / "docs/leaderboard.md", ROOT / "docs/findings.svg"
COLORS = ("#c8364a", "#2f6fd0")
BEGIN, END = "<!-- made by docs/leaderboard.py -->\n", "<!-- end -->\n"


def main() -> None:
    for path, text in pages().items():
        write_atomically(path, text.encode())
    write_atomically(PICTURE, render(picture(collect(ROOT / "results")), "svg"))


def pages(results: Path = ROOT / "results") -> dict[Path, str]:
    """What the README and the page of the docs are to be, each with the part between the two comments replaced."""
    rows = collect(results)
    of_readme = [row for row in rows if row.dataset == "dsprites"]
    return {README: replaced(README, overview(of_readme)), PAGE: replaced(PAGE, f"{overview(rows)}\n{details(rows)}")}


def replaced(path: Path, made: str) -> str:
    before, _, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def overview(rows: list[LeaderboardRow]) -> str:
    """A table for each dataset, of R² by model and kind of split."""
    return "\n\n".join(f"**{dataset}**, R² on test:\n\n{markdown(lines)}" for dataset, lines in overviews(rows))


def details(rows: list[LeaderboardRow]) -> str:
    """Every row, and what the rows mix."""
    return "\n\n".join(["## In full", markdown(score_table(rows)), *mixtures(rows)])


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
                    train, test = row.mean(lambda run: run.train.r2.mean), row.r2
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
