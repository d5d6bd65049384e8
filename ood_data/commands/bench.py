"""`ood-data bench` and `ood-data report`: train, score, sum up."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import click

from harness.bench.names import datasets_named, kinds_named, models_named, nothing_in
from harness.data.names import stores_in
from ood_data.commands.options import Preset, Seeds, data_option, device_option, json_option, kinds_option, names, pick_device
from ood_data.commands.policy import FAILED, Command, as_options
from splits.errors import InputError, MissingError


@click.command(cls=Command, continues=True)
@click.option(
    "--model",
    "models",
    multiple=True,
    callback=names,
    metavar="NAME",
    help="A model (see --list), all, or module:function of your own, whose code is run: repeat, or separate by commas.",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    callback=names,
    metavar="NAME",
    help="A dataset in --data, or all: repeat, or separate by commas.  [default: all]",
)
@kinds_option()
@click.option(
    "--preset",
    default="quick",
    type=Preset(["quick", "full"]),
    help="quick: minutes a run, not the paper's budget; full: the protocol as far as it is known.",
)
@click.option("--seeds", default="1", type=Seeds(), help="So many seeds, 3 being 0, 1 and 2; or these: 0,4,7.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override the preset: train.steps=500, model.beta=8; repeat. --settings lists the keys.",
)
@data_option
@click.option("--out", default="runs/", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the run folders go.")
@device_option
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Runs at the same time.  [default: a CPU's cores, else 1]")
@click.option("--dry-run", is_flag=True, help="Only show the plan: the runs, what is missing, the time as far as it is known.")
@click.option("--list", "listed", is_flag=True, help="Only show what each model is.")
@click.option("--settings", "shown", metavar="MODEL", help="Only show every key that --set takes, and its value for this model.")
@json_option
def bench(
    models: tuple[str, ...],
    datasets: tuple[str, ...],
    kinds: tuple[str, ...],
    preset: str,
    seeds: int | tuple[int, ...],
    overrides: tuple[str, ...],
    data: Path,
    out: Path,
    device: str,
    jobs: int | None,
    dry_run: bool,
    listed: bool,
    shown: str | None,
    as_json: bool,
) -> None:
    """Train models on the train side of splits, score them on the test side.

    What is done is skipped, what was killed continues. Every run has a folder in --out; `ood-data report` sums them up.

    \b
    Examples:
      ood-data bench --model pcl
      ood-data bench --model cnn,my_module:build --kind extrapolation --seeds 3
      ood-data bench --model all --dry-run
      ood-data bench --settings pcl
    """
    if not listed and not shown:
        if not models:
            raise InputError("which model? --model NAME, or --model all; see ood-data bench --list")
        models, kinds, datasets = models_named(models), kinds_named(kinds), datasets_named(datasets, data)
        if not datasets and not stores_in(data):
            raise MissingError(nothing_in(data))
    elif shown:
        models_named([shown])

    # Only now what imports torch.
    from harness.bench.estimate import time_in_words
    from harness.bench.execute import execute
    from harness.bench.plan import plan
    from harness.bench.settings import settings_of
    from harness.bench.summary import summarize_models, summarize_outcomes, summarize_plan
    from harness.machine import keep_freed_memory, warn_if_bf16_is_slow
    from harness.runs.presets import Settings

    with contextlib.redirect_stdout(sys.stderr):  # what a user's model prints
        if listed:
            told = summarize_models()
        elif shown:
            told = settings_of(shown, preset, overrides)  # type: ignore[arg-type,unused-ignore]
        else:
            where = pick_device(device)
            settings = Settings(preset, overrides, where)  # type: ignore[arg-type,unused-ignore]
            planned = plan(models, data, out, datasets=datasets, kinds=kinds, seeds=seeds, settings=settings)
            told = summarize_plan(planned, in_full=dry_run)
            if any(run.config.train.precision == "bf16" for run in planned.runs):
                warn_if_bf16_is_slow(where)
            if dry_run:
                told = told.with_line(time_in_words(planned.runs, out, where, jobs))
            else:
                for line in told.lines:
                    click.echo(as_options(line), err=True)
                keep_freed_memory()
                told = summarize_outcomes(planned, execute(planned.runs, where, jobs))
    click.echo(json.dumps(told.data) if as_json else as_options("\n".join(told.lines)))
    if not told.ok:
        sys.exit(FAILED)


@click.command("report", cls=Command)
@click.argument("runs", default="runs/", type=click.Path(path_type=Path))
@click.option("--out", default="report/", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the report goes.")
@json_option
def report_command(runs: Path, out: Path, as_json: bool) -> None:
    """Sum up the run folders in RUNS: tables (CSV), pictures (PNG) and one self-contained page, index.html.

    \b
    Example:
      ood-data report runs/ --out report/
    """
    if not any(runs.glob("*/*/*/*/scores.json")):
        raise MissingError(f"no finished run in {runs}: make some with `ood-data bench --model cnn --out {runs}`")

    # Only now what imports torch and matplotlib.
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
