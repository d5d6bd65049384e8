"""`ood-data bench rescore`: what runs of before lack, made from their weights."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import click

from ood_data.commands.options import data_option, device_option, finished_runs, json_option
from ood_data.commands.places import pick_device
from ood_data.commands.policy import FAILED, Command
from splits.errors import OodDataError, how_many

logger = logging.getLogger(__name__)


@click.command("rescore", cls=Command, continues=True)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN…")
@data_option
@device_option
@click.option("--again", is_flag=True, help="Also of runs that have error maps.")
@click.option("--trust-code", is_flag=True, help="Run the code of models of your own, which the runs name.")
@json_option
def rescore(runs: tuple[Path, ...], data: Path, device: str, again: bool, trust_code: bool, as_json: bool) -> None:
    """Add error maps to finished runs that have none, from their weights: RUN is a run's folder, or a folder of run folders.

    Nothing is trained, and scores stay as they are. The report's explorer shows what the maps hold.

    \b
    Example:
      ood-data bench rescore runs/
    """
    folders = [found for run in runs for found in finished_runs(run)]
    missing = [folder for folder in folders if again or not (folder / "maps.safetensors").exists()]

    from harness.bench.rescore import rescore  # torch
    from harness.io.progress import move, progress_bar
    from harness.machine import keep_freed_memory

    where = pick_device(device)
    keep_freed_memory()
    written, failed = [], {}
    with progress_bar("rescore", "runs", len(missing)) as bar:
        for number, folder in enumerate(missing):

            def progress(part: float, before: int = number) -> None:
                move(bar, before + part, len(missing))

            try:
                written.append(str(rescore(folder, data, where, trust_code, progress)))
            except (OodDataError, OSError) as error:  # the others are worth their maps
                logger.warning("left out: %s: %s", folder, error)
                failed[str(folder)] = str(error)
    if as_json:
        click.echo(json.dumps({"files": written, "had_maps": len(folders) - len(missing), "failed": failed}))
    else:
        click.echo(
            f"error maps: {how_many(len(written), 'run')} got them, {len(folders) - len(missing):,} had them, "
            f"{len(failed):,} could not get them"
        )
    if failed:
        sys.exit(FAILED)
