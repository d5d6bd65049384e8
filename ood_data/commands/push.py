"""`ood-data data push`: an export or a store to the Hugging Face Hub."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ood_data.commands.options import json_option
from ood_data.commands.policy import Command
from splits.errors import how_many


@click.command("push", cls=Command, continues=True)
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("repository", metavar="USER/NAME")
@click.option("--private", is_flag=True, help="Make a repository that only its owners see.")
@click.option("--dry-run", is_flag=True, help="Only show which files would be uploaded: nobody is asked.")
@json_option
def push(source: Path, repository: str, private: bool, dry_run: bool, as_json: bool) -> None:
    """Upload an export, or a store, to the Hugging Face Hub as a dataset.

    SOURCE is a folder that `data export` wrote, of which only the export's own files are uploaded, or a store. The token is that of
    `hf auth login`, or of the variable HF_TOKEN. Files that the Hub has already are not uploaded again; shards and pictures that an earlier
    push of the same kind left there, and this one has not, are removed.

    \b
    Examples:
      ood-data data push hub/ me/dsprites --dry-run
      ood-data data push data/celebglow.zarr me/celebglow --private
    """
    from harness.formats.push import plan_push, push
    from harness.io.progress import size

    planned = plan_push(source, repository)
    found = {"dataset": planned.name, "repository": repository, "files": list(planned.files), "bytes": planned.bytes}
    if dry_run:
        lines = [f"{path}  {size(file.stat().st_size)}" for path, file in planned.files.items()]
        lines.append(f"{how_many(len(planned.files), 'file')}, {size(planned.bytes)}, would go to the dataset {repository}")
        click.echo(json.dumps(found | {"commit": None}) if as_json else "\n".join(lines))
        return
    commit = push(planned, private)
    click.echo(json.dumps(found | {"commit": commit}) if as_json else f"{commit} has {how_many(len(planned.files), 'file')}")
