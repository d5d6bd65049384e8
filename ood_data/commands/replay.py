"""`ood-data bench replay`: the runs of records, made again."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from ood_data.commands.options import data_option, device_option, json_option
from ood_data.commands.places import pick_device
from ood_data.commands.policy import FAILED, Command
from splits.errors import AbsentError


@click.command("replay", cls=Command, continues=True)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RECORD…")
@data_option
@click.option(
    "--out",
    default="replays/",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where the run folders go.",
)
@device_option
@json_option
def replay(files: tuple[Path, ...], data: Path, out: Path, device: str, as_json: bool) -> None:
    """Make the runs of records again, and compare: each agrees, differs, or is struck out, as it can't be made again.

    Exits with 1 if one does not agree.

    \b
    Example:
      ood-data bench replay results/dsprites/random/cnn/0-265d0b4c.json
    """
    if absent := [file for file in files if not file.is_file()]:
        raise AbsentError(f"{absent[0]} is not a file: a record is expected, results/DATASET/KIND/MODEL/SEED-….json")

    from harness.bench.replay import replay
    from harness.io.progress import move, progress_bar
    from harness.machine import keep_freed_memory
    from harness.report.result_record import ResultRecord

    records = [ResultRecord.read(file) for file in files]
    where = pick_device(device)
    keep_freed_memory()
    found = {}
    with contextlib.redirect_stdout(sys.stderr), progress_bar("replay", "runs", len(records)) as bar:
        for number, (file, record) in enumerate(zip(files, records, strict=True)):

            def progress(part: float, before: int = number) -> None:
                move(bar, before + part, len(records))

            beside = [ResultRecord.read(path).scores for path in file.parent.glob(f"*-{record.scores.fingerprint}.json")]
            found[str(file)] = replay(record, data, out, where, beside, progress)
    if as_json:
        click.echo(json.dumps({file: asdict(each) for file, each in found.items()}))
    else:
        click.echo("\n".join(f"{file}: {each}" for file, each in found.items()))
    if not all(each.ok for each in found.values()):
        sys.exit(FAILED)
