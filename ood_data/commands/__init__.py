"""The `ood-data` command: parse, call, print.

What a command calls is imported inside it, so that help and mistakes are answered at once. Errors become words in one place, here.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from typing import Any

import click

from ood_data.commands import bench, data, flow, generate, split
from ood_data.commands.options import FAILED, INTERRUPTED, WRONG_USE
from splits.errors import OodDataError, printable


class Commands(click.Group):
    """The commands, and what becomes of their errors: one or two plain lines, 2 for wrong use, 1 for work that was not done."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort):
            how = ", without --overwrite," if ctx.meta.get("overwrite") else ""
            click.echo(f"ood-data: interrupted; the same command{how} continues what can be continued", err=True)
            sys.exit(INTERRUPTED)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise  # whoever read our output has read enough: click ends quietly
            if ctx.params.get("debug"):
                traceback.print_exc()
            click.echo(f"ood-data: {printable(message_of(error))}", err=True)
            sys.exit(WRONG_USE if isinstance(error, OodDataError) and isinstance(error, ValueError) else FAILED)


def message_of(error: Exception) -> str:
    """An error in words: ours and the system's say what to do; any other is a defect of this program."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    if isinstance(error, OodDataError | OSError):
        return str(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory"
    return f"a defect in ood-data, please report it: {type(error).__name__}: {error} (ood-data --debug … shows where)"


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="ood-data")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
def main(debug: bool) -> None:
    """CelebGlow regenerated, and the out-of-distribution splits of Schott et al. (ICLR 2022, arXiv 2107.08221)."""
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("asyncio", "matplotlib", "numcodecs", "PIL", "zarr"):
        logging.getLogger(chatty).setLevel(logging.INFO)  # --debug is for our own messages
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.DEBUG if debug else logging.ERROR)


for command in (split.split, generate.generate, data.data, bench.bench, bench.report_command, flow.flow):
    main.add_command(command)


def run() -> None:
    """The entry point: `main` with somewhere to write to, even where a program closed our streams."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123  (for the rest of the process)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    main(prog_name="ood-data")
