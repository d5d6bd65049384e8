"""`ood-data bench`: train and score.

A little long, as each group of commands is: most of it is options and their help.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from harness.bench.names import check_asked, models_named
from harness.models import NAMES
from harness.models.lookup import is_own
from harness.runs.presets import check_overrides
from harness.runs.watch import check_watchers
from ood_data.commands.options import (
    Preset,
    Seeds,
    completing,
    data_option,
    device_option,
    json_option,
    kinds_option,
    known_models,
    names,
    stores_there,
)
from ood_data.commands.places import Place, answer, cluster_in, cluster_option, place_of, wait_option
from ood_data.commands.policy import Group, as_options
from ood_data.commands.replay import replay
from ood_data.commands.rescore import rescore
from splits.errors import InputError, how_many

if TYPE_CHECKING:
    from harness.bench.plan import Plan
    from splits.formatting import Report


class Bench(Group):
    """The group `bench`, in which the name of a TOML file is a study's."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0].endswith(".toml"):
            if any(each.partition("=")[0] in ("--model", "--dataset", "--kind", "--seeds", "--set", "--preset") for each in args):
                raise click.UsageError(
                    f'a study says itself what it runs: {args[0]} has keys for that, as settings = {{ "train.steps" = 20 }}', ctx
                )
            args = ["study", *args]
        elif args[0].endswith(".py"):
            raise click.UsageError(f"did you mean `ood-data bench --model {args[0].removesuffix('.py')}:build`?", ctx)
        elif args[0] in NAMES or is_own(args[0]):
            raise click.UsageError(f"{args[0]} is a model, no command; did you mean `ood-data bench --model {args[0]}`?", ctx)
        return super().resolve_command(ctx, args)


out_option = click.option(
    "--out", default="runs/", type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help="Where the run folders go."
)
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many runs go at the same time.  [default: one per CPU core, 1 on a GPU]",
)
log_option = click.option(
    "--log",
    "logs",
    multiple=True,
    callback=names,
    metavar="NAME",
    help="Tell the numbers of each run, while they come, to tensorboard, in the run's folder; or to module:function of your own, whose code "
    "is run. Repeat, or separate by commas.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Only show the plan: the runs, what is missing, and an estimate of the time."
)


@click.group(cls=Bench, invoke_without_command=True, continues=True)
@click.option(
    "--model",
    "models",
    multiple=True,
    callback=names,
    shell_complete=completing(known_models),
    metavar="NAME",
    help="A model (see --list), all, or module:function of your own, whose code is run: repeat, or separate by commas.",
)
@click.option(
    "--dataset",
    "datasets",
    multiple=True,
    callback=names,
    shell_complete=completing(stores_there),
    metavar="NAME",
    help="A dataset in --data, or all: repeat, or separate by commas.  [default: all]",
)
@kinds_option()
@click.option(
    "--preset",
    default="quick",
    type=Preset(["quick", "full"]),
    help="quick: a minute or two a run; full: the protocol as far as it is known, 200,000 steps.",
)
@click.option("--seeds", default="1", type=Seeds(), help="How many seeds (3 means 0, 1 and 2), or a list of them: 0,4,7.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a setting, such as train.steps=500 or model.beta=8; may be repeated. --settings lists the keys.",
)
@data_option
@out_option
@device_option
@jobs_option
@cluster_option
@wait_option
@log_option
@dry_run_option
@click.option("--list", "listed", is_flag=True, help="Only list the models and what each one is.")
@click.option("--settings", "shown", metavar="MODEL", help="Only list the keys that --set takes, with their values for MODEL.")
@json_option
@click.pass_context
def bench(
    ctx: click.Context,
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
    cluster: Path | None,
    wait: bool,
    logs: tuple[str, ...],
    dry_run: bool,
    listed: bool,
    shown: str | None,
    as_json: bool,
) -> None:
    """Train models on the train side of splits and score them on the test side.

    Finished runs are skipped, interrupted ones continue. Every run gets a folder in --out; `ood-data report` sums them up.

    \b
    Examples:
      ood-data bench --model pcl
      ood-data bench --model cnn,my_module:build --kind extrapolation --seeds 3
      ood-data bench --model all --dry-run
      ood-data bench --model cnn --log tensorboard
      ood-data bench studies/laptop.toml
      ood-data bench --model all --cluster cluster.toml
      ood-data bench --settings pcl
    """
    if ctx.invoked_subcommand is not None:
        given = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if given:
            raise click.UsageError(f"options go behind the word {ctx.invoked_subcommand}", ctx)
        return
    if not listed and not shown:
        if not models:
            raise InputError("name a model: --model NAME, or --model all; ood-data bench --list shows the names")
        check_asked(models, datasets, kinds, seeds, overrides, data)
        check_watchers(logs)
    elif shown:
        models_named([shown])
        check_overrides(overrides)

    there = cluster_in(cluster, wait)

    from harness.bench.plan import plan
    from harness.bench.settings import settings_of
    from harness.bench.summary import summarize_models
    from harness.runs.presets import Settings

    with contextlib.redirect_stdout(sys.stderr):  # what a user's model prints
        if listed:
            report = summarize_models().with_line("The options of a model: ood-data bench --settings MODEL.")
        elif shown:
            report = settings_of(shown, preset, overrides)  # type: ignore[arg-type,unused-ignore]
        else:
            place = place_of(device, there, wait)
            settings = Settings(preset, overrides, place.device)  # type: ignore[arg-type,unused-ignore]
            planned = plan(models, data, out, datasets=datasets, kinds=kinds, seeds=seeds, settings=settings)
            report = _carried_out(planned.watched(logs), out, place, jobs, dry_run)
    answer(report, as_json)


@bench.command("study", continues=True)
@click.argument("file", type=click.Path(path_type=Path))
@data_option
@out_option
@device_option
@jobs_option
@cluster_option
@wait_option
@log_option
@dry_run_option
@json_option
@click.pass_context
def study(
    ctx: click.Context,
    file: Path,
    data: Path,
    out: Path,
    device: str,
    jobs: int | None,
    cluster: Path | None,
    wait: bool,
    logs: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make every run of a study: groups of models, datasets, kinds and settings, written down in a TOML file.

    `ood-data bench FILE.toml` does the same. What is done is skipped, what was killed continues. A study may name models of your own,
    module:function, whose code is run, for --dry-run too: read a study of somebody else's first. What it says of data, out and cluster,
    options overrule.

    \b
    Examples:
      ood-data bench studies/laptop.toml --dry-run
      ood-data bench studies/laptop.toml --data data/ --out runs/
    """
    from harness.bench.study import plan_study, read_study, runs_of_absent

    written = read_study(file)
    given = {name for name in ("data", "out") if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    data = data if "data" in given else written.path(written.data) or data
    out = out if "out" in given else written.path(written.out) or out
    there = cluster_in(cluster or written.path(written.cluster), wait)
    written.check(data)
    check_watchers(logs)
    with contextlib.redirect_stdout(sys.stderr):
        place = place_of(device, there, wait)
        planned = plan_study(written, data, out, place.device)
        report = _carried_out(planned.watched(logs), out, place, jobs, dry_run, runs_of_absent(written, planned))
    answer(report, as_json)


@bench.command("status")
@out_option
@json_option
def status(out: Path, as_json: bool) -> None:
    """Say how far the runs are that were handed to a cluster: done, running, queued, failed and why, or left, and how long they take.

    Exits with 1 if a run has failed, or is left: neither done nor queued.

    \b
    Example:
      ood-data bench status --out runs/
    """
    from harness.bench.submissions import status

    answer(status(out), as_json)


@bench.command("cancel")
@out_option
@json_option
def cancel(out: Path, as_json: bool) -> None:
    """Cancel the tasks that were handed to a cluster and are not over. The same `bench` submits their runs again, and they continue.

    A task that a Dask worker has begun goes on until that worker is stopped.

    \b
    Example:
      ood-data bench cancel --out runs/
    """
    from harness.bench.submissions import RunQueue

    answer(RunQueue(out).cancel("ood-data bench"), as_json)


bench.add_command(replay)
bench.add_command(rescore)


def _carried_out(planned: Plan, out: Path, place: Place, jobs: int | None, dry_run: bool, absent: str = "") -> Report:
    """What came of a plan, or what would; of a study, `absent` says how many runs it would have beside these."""
    from harness.bench.estimate import time_in_words
    from harness.bench.summary import summarize_outcomes, summarize_plan
    from harness.io.atomic import check_writable
    from harness.machine import keep_freed_memory, warn_if_bf16_is_slow

    report = summarize_plan(planned, in_full=dry_run).with_line(absent)
    if place.cluster is None and any(run.config.train.precision == "bf16" for run in planned.runs):
        warn_if_bf16_is_slow(place.device)
    if dry_run:
        together = place.cluster.workers * (jobs or 1) if place.cluster else jobs
        return report.with_line(time_in_words(planned.runs, out, place.device, together))
    done = sum(run.state == "done" for run in planned.runs)
    if done < len(planned.runs):
        check_writable(out)
    if planned.runs:  # of what has no runs, the answer says why
        for line in report.lines:
            click.echo(as_options(line), err=True)
        if any(gap.state == "absent" and not gap.asked for gap in planned.gaps):
            click.echo("ood-data bench … --dry-run says how to get these", err=True)
    if done and any(run.watchers for run in planned.runs):
        click.echo(f"skipped, and not told to --log: {how_many(done, 'finished run')} (another --out makes them anew)", err=True)
    keep_freed_memory()
    if place.cluster is None:
        from harness.bench.execute import execute

        outcomes = execute(planned.runs, place.device, jobs)
    else:
        from harness.bench.submissions import execute_there, submit_runs

        if not place.wait:
            return submit_runs(planned.runs, place.cluster, out, place.device, jobs)
        outcomes = execute_there(planned.runs, place.cluster, out, place.device, jobs)
    defects = any(outcome.defect for outcome in outcomes)
    return summarize_outcomes(planned, outcomes).with_line("ood-data --debug bench … shows where a defect is" if defects else "")
