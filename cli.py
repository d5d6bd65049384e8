"""The `ood-data` command: parse, call, print. What it calls is imported inside the commands, so that help is instant."""

from __future__ import annotations

import functools
import logging
import sys
import traceback
from collections.abc import Callable
from typing import Any

import click

DONE, FAILED, WRONG_USE = 0, 1, 2


def report_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the errors of the library into one or two plain lines and an exit code: 2 for wrong use, 1 for work not done."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError, ArithmeticError, LookupError, RuntimeError) as error:
            if click.get_current_context().find_root().params.get("debug"):
                traceback.print_exc()
            message = str(error) if not isinstance(error, OSError) or error.errno is None else f"{error.strerror}: {error.filename}"
            click.echo(f"ood-data: {message}", err=True)
            sys.exit(WRONG_USE if isinstance(error, ValueError) else FAILED)

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="ood-data")
@click.option("--debug", is_flag=True, help="Show tracebacks and debug messages.")
def main(debug: bool) -> None:
    """CelebGlow regenerated, and the out-of-distribution splits of Schott et al. (ICLR 2022, arXiv 2107.08221)."""
    logging.basicConfig(level=logging.DEBUG if debug else logging.INFO, format="%(message)s", stream=sys.stderr)


if __name__ == "__main__":
    main()
