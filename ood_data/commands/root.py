"""The group of all commands. What a command calls is imported inside it, so that help and mistakes are answered at once."""

from __future__ import annotations

import logging
import sys

import click

from ood_data.commands import bench, data, fetch, flow, generate, push, report, results, show, split
from ood_data.commands.policy import Commands, InOptions


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="ood-data")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
def main(debug: bool) -> None:
    """CelebGlow regenerated, and the out-of-distribution splits of Schott et al. (ICLR 2022, arXiv 2107.08221).

    \b
    Examples:
      ood-data generate celebglow --out data/
      ood-data data verify celebglow
      ood-data split mpi3d --kind composition
      ood-data bench --model pcl
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(InOptions(click.get_current_context()))
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, handlers=[handler])
    for chatty in ("asyncio", "matplotlib", "numcodecs", "PIL", "zarr"):
        logging.getLogger(chatty).setLevel(logging.INFO)  # --debug is for our own messages
    for chatty in ("httpx", "httpx2"):  # every request, of the Hub's client
        logging.getLogger(chatty).setLevel(logging.INFO if debug else logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.DEBUG if debug else logging.ERROR)


for command in (fetch.fetch, push.push, show.show):
    data.data.add_command(command)
for command in (split.split, generate.generate, data.data, bench.bench, report.report_command, results.results, flow.flow):
    main.add_command(command)
