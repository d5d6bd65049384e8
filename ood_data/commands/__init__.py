"""The `ood-data` command: parse, call, print.

What a command calls is imported inside it, so that help and mistakes are answered at once. Errors become words in one place, here.
"""

from __future__ import annotations

import errno
import logging
import sys
import traceback
from typing import Any, NoReturn

import click

from harness.machine import lacking
from ood_data.commands import bench, data, flow, generate, split
from ood_data.commands.options import FAILED, INTERRUPTED, WRONG_USE
from ood_data.commands.streams import give_up_stdout, open_streams, was_printing
from splits.errors import OodDataError


class Commands(click.Group):
    """The commands, and what becomes of their errors: one or two plain lines, 2 for wrong use, 1 for work that was not done."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except OSError as error:  # of help, which is printed here
            _fail(error)

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
            if ctx.params.get("debug"):
                traceback.print_exc()
            _fail(error)


def _fail(error: Exception) -> NoReturn:
    """Say what is wrong and end."""
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        raise error  # whoever read our output has read enough: click ends quietly
    click.echo(f"ood-data: {message_of(error)}", err=True)
    if was_printing(error):
        give_up_stdout()
    sys.exit(WRONG_USE if isinstance(error, OodDataError) and isinstance(error, ValueError) else FAILED)


def message_of(error: Exception) -> str:
    """An error in words: ours and the system's say what to do; any other is a defect of this program."""
    if isinstance(error, OSError) and error.strerror:
        name = "standard output" if error.filename is None and was_printing(error) else error.filename
        return error.strerror if name is None else f"{error.strerror}: {name}"
    if isinstance(error, OodDataError | OSError):
        return str(error)
    if lack := lacking(error):
        return lack
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
    open_streams()
    main(prog_name="ood-data")
