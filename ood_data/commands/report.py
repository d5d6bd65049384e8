"""`ood-data report`: sum up what was trained and scored."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from harness.report.finished import records_in, runs_in
from ood_data.commands.options import data_option, json_option
from ood_data.commands.policy import Command
from splits.errors import InputError, missing_in


@click.command("report", cls=Command)
@click.argument("runs", default="runs/", type=click.Path(path_type=Path))
@click.option(
    "--out", default="report/", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help="Where the report goes."
)
@click.option(
    "--live",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Put the network of this run's folder into the page, where it answers to pictures off the grid: one that sees dSprites, of the"
    " supervised models without timm or of the representations. May be repeated.",
)
@data_option
@json_option
def report_command(runs: Path, out: Path, live: tuple[Path, ...], data: Path, as_json: bool) -> None:
    """Sum up the run folders, or the records, in RUNS: tables (CSV), pictures (PNG) and one self-contained page, index.html.

    The page shows where models fail, as far as the runs kept that; pictures of datasets other than dSprites are taken from --data.

    \b
    Example:
      ood-data report runs/ --out report/
      ood-data report runs/ --live runs/dsprites/extrapolation/cnn/0-265d0b4c
    """
    if not runs_in(runs) and not records_in(runs):
        raise missing_in(
            runs, f"no finished run in {runs}: give the folder of your runs, or make some with `ood-data bench --model cnn`"
        )
    if live:
        _check_live(live)

    # Only now what imports torch and matplotlib.
    from harness.report.collect import collect
    from harness.report.html import report
    from harness.report.live import live_network
    from harness.report.tables import notes, overviews, score_table
    from harness.scoring.baselines import EXPLAINED
    from splits.formatting import table

    rows = collect(runs)
    files = report(rows, out, data if data.is_dir() else None, [live_network(run) for run in live])
    if as_json:
        click.echo(json.dumps({"files": [str(file) for file in files]}))
    else:
        for dataset, lines in overviews(rows):
            click.echo("\n".join([f"{dataset}, R² on test:", *table(lines), ""]))
        click.echo("\n".join([*table(score_table(rows)), EXPLAINED, *notes(rows)]))
        click.echo(f"open {out / 'index.html'}")


def _check_live(runs: Sequence[Path]) -> None:
    """Refuse runs whose networks no page can run, before torch is imported."""
    from harness.report.live_runs import MOST, live_setup

    if len(runs) > MOST:
        raise InputError(f"--live is given {len(runs)} times, and a page has room for {MOST} networks")
    for run in runs:
        live_setup(run)
