"""`ood-data results`: results that are kept, one small file a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from harness.report.finished import records_in
from ood_data.commands.options import finished_runs, json_option
from ood_data.commands.policy import FAILED, Group
from splits.errors import OodDataError, how_many, missing_in

records_option = click.option(
    "--to", "folder", default="results/", type=click.Path(path_type=Path), metavar="FOLDER", help="Folder that holds the records."
)


@click.group(cls=Group)
def results() -> None:
    """Keep results without their weights: one small file a run, from which the run can be made again.

    `ood-data report results/` shows a folder of them, `ood-data bench replay FILE` makes one again and compares.

    \b
    Examples:
      ood-data results submit runs/ --to results/
      ood-data results check results/
      ood-data results export results/ --out exchange/
    """


@results.command("submit")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN…")
@records_option
@json_option
def submit(runs: tuple[Path, ...], folder: Path, as_json: bool) -> None:
    """Write the record of finished runs: RUN is a run's folder, or a folder of run folders.

    A record has the run's config, scores, log, versions, device and commit, and the command that makes it again. To offer it to this
    project, add it to results/ in a pull request.

    \b
    Examples:
      ood-data results submit runs/dsprites/random/cnn/0-1f2e3d4c
      ood-data results submit runs/ --to results/
    """
    folders = [found for run in runs for found in finished_runs(run)]

    from harness.report.result_record import ResultRecord

    written, problems = [], {}
    for run in folders:
        try:
            record = ResultRecord.of(run)
        except OodDataError as error:  # the others are worth a record
            problems[str(run)] = str(error)
            continue
        path = folder / record.path
        path.parent.mkdir(parents=True, exist_ok=True)
        record.write(path)
        written.append(str(path))
    if as_json:
        click.echo(json.dumps({"files": written, "problems": problems}))
    else:
        click.echo("\n".join([*written, *(f"left out: {problem}" for problem in problems.values())]))
    if problems:
        sys.exit(FAILED)


@results.command("check")
@click.argument("folder", default="results/", type=click.Path(path_type=Path))
@json_option
def check(folder: Path, as_json: bool) -> None:
    """Check that every record in FOLDER is whole, in its place, and consistent with itself; nothing is trained.

    \b
    Example:
      ood-data results check results/
    """
    if not any(folder.glob("*/*/*/*.json")):
        raise missing_in(folder, f"no record in {folder}: make some with `ood-data results submit runs/`")

    from harness.report.result_record import problem_of

    paths = sorted(folder.rglob("*.json"))
    problems = {str(path): problem for path in paths if (problem := problem_of(path, folder))}
    if as_json:
        click.echo(json.dumps({"records": len(paths), "problems": problems}))
    else:
        lines = [f"{path}: {problem}" if path not in problem else problem for path, problem in problems.items()]
        click.echo("\n".join([*lines, f"{how_many(len(paths), 'record')}, {len(problems):,} with a problem"]))
    if problems:
        sys.exit(FAILED)


@results.command("export")
@click.argument("folder", default="results/", type=click.Path(path_type=Path))
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="FOLDER", help="Where the files go."
)
@json_option
def export(folder: Path, out: Path, as_json: bool) -> None:
    """Write the records in FOLDER in the schema of Every Eval Ever, a collection of results of all kinds, as it lays them out.

    A file a record, below data/ood-data/, by the schema's version 0.3.0: R² on test, the mean and each factor's.

    \b
    Example:
      ood-data results export results/ --out exchange/
    """
    found = records_in(folder)
    if not found:
        raise missing_in(folder, f"no record in {folder}: make some with `ood-data results submit runs/`")

    from harness.io.atomic import write_atomically
    from harness.report.exchange import exchanged, to_bytes
    from harness.report.result_record import ResultRecord

    logs = dict(exchanged(ResultRecord.read(path), path) for path in found)  # all are read before one is written
    for place, log in logs.items():
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out / place, to_bytes(log))
    files = [str(out / place) for place in logs]
    click.echo(json.dumps({"files": files}) if as_json else f"{how_many(len(files), 'file')} in {out / 'data'}")
