"""`ood-data bench` and `ood-data report`: train, score, sum up."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import click

from ood_data.commands.options import FAILED, data_option, device_option, json_option, pick_device, progress_shown
from splits.errors import InputError


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="A model's name, all, or module:function of your own, whose code is run; repeat.",
)
@click.option("--dataset", "datasets", multiple=True, metavar="NAME", help="Repeat.  [default: all in --data]")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Repeat.  [default: all four]")
@click.option("--preset", default="quick", type=click.Choice(["quick", "paper"]), help="quick is not the paper's budget.")
@click.option("--seeds", default=1, metavar="N", help="Seeds 0 to N − 1.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override the preset: train.steps=500, model.beta=8; repeat."
)
@data_option
@click.option("--out", default="runs/", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the run folders go.")
@device_option
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Runs at the same time.  [default: a CPU's cores, else 1]")
@click.option("--dry-run", is_flag=True, help="Only show the plan.")
@click.option("--list", "listed", is_flag=True, help="Only show what each model is.")
@json_option
def bench(
    models: tuple[str, ...],
    datasets: tuple[str, ...],
    kinds: tuple[str, ...],
    preset: str,
    seeds: int,
    overrides: tuple[str, ...],
    data: Path,
    out: Path,
    device: str,
    jobs: int | None,
    dry_run: bool,
    listed: bool,
    as_json: bool,
) -> None:
    """Train models on the train side of splits, score them on the test side.

    What is done is skipped, what was killed continues. Every run has a folder in --out; `ood-data report` sums them up.

    \b
    Examples:
      ood-data bench --model pcl
      ood-data bench --model cnn --model my_module:build --kind extrapolation --seeds 3
      ood-data bench --model all --dry-run
    """
    from harness.bench.execute import execute
    from harness.bench.plan import plan
    from harness.bench.summary import summarize_models, summarize_outcomes, summarize_plan
    from harness.machine import keep_freed_memory
    from harness.runs.presets import Settings

    if listed:
        summary = summarize_models()
    else:
        if not models:
            raise InputError("which model? --model NAME, or --model all; see ood-data bench --list")
        where = pick_device(device)
        with contextlib.redirect_stdout(sys.stderr):  # what a user's model prints
            settings = Settings(preset, overrides, where)  # type: ignore[arg-type,unused-ignore]
            planned = plan(models, data, out, datasets=datasets, kinds=kinds, seeds=seeds, settings=settings)
            summary = summarize_plan(planned)
            if not dry_run:
                for line in summary.lines:
                    click.echo(line, err=True)
                keep_freed_memory()
                outcomes = execute(planned.runs, where, jobs, progress_shown())
                summary = summarize_outcomes(planned, outcomes)
    click.echo(json.dumps(summary.data) if as_json else "\n".join(summary.lines))
    if not summary.ok:
        sys.exit(FAILED)


@click.command("report")
@click.argument("runs", default="runs/", type=click.Path(path_type=Path))
@click.option("--out", default="report/", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the report goes.")
@json_option
def report_command(runs: Path, out: Path, as_json: bool) -> None:
    """Sum up the run folders in RUNS: tables (CSV), pictures (PNG) and one self-contained page, index.html.

    \b
    Example:
      ood-data report runs/ --out report/
    """
    from harness.report.html import report
    from harness.report.results import collect, score_table
    from harness.scoring.baselines import EXPLAINED
    from splits.formatting import table

    rows = collect(runs)
    files = report(rows, out)
    if as_json:
        click.echo(json.dumps({"files": [str(file) for file in files]}))
    else:
        click.echo("\n".join([*table(score_table(rows)), EXPLAINED]))
        click.echo(f"open {out / 'index.html'}")
