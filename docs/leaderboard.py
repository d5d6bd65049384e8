"""The leaderboard in docs and the README, made from the records in results/: `make leaderboard`.

What it writes is what `ood-data report results/` prints.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from harness.io.atomic import write_atomically  # noqa: E402
from harness.report.leaderboard import LeaderboardRow, collect, mixtures  # noqa: E402
from harness.report.tables import overviews, score_table  # noqa: E402

README, PAGE = ROOT / "README.md", ROOT / "docs/leaderboard.md"
BEGIN, END = "<!-- made by docs/leaderboard.py -->\n", "<!-- end -->\n"


def main() -> None:
    for path, text in pages().items():
        write_atomically(path, text.encode())


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


if __name__ == "__main__":
    main()
