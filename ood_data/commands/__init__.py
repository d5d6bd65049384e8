"""The `ood-data` command: parse, call, print.

`ood_data.commands.root` has the commands. They are imported once it is clear that the packages they come from are ours.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ood_data.commands.shadows import replaced, shadow
from ood_data.commands.streams import open_streams

if TYPE_CHECKING:
    from ood_data.commands.root import main

__all__ = ["main", "run"]


def run() -> None:
    """The entry point: the commands, with somewhere to write to, even where a program closed our streams."""
    open_streams()
    if problem := shadow():
        sys.exit(f"ood-data: {problem}")
    try:
        from ood_data.commands.root import main
    except ImportError as error:
        if problem := replaced(error):
            sys.exit(f"ood-data: {problem}")
        raise
    main(prog_name="ood-data")


def __getattr__(name: str) -> Any:
    if name != "main":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ood_data.commands.root import main

    return main
