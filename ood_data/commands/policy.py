"""How our commands behave: unknown names get advice, help is whole, and errors become words, in this one place."""

from __future__ import annotations

import difflib
import errno
import logging
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import click

from harness.io.failures import in_words
from harness.machine import lacking
from ood_data.commands.shadows import replaced
from ood_data.commands.streams import give_up, was_printing
from splits.errors import OodDataError, printable

DONE, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130  # 130: as shells count a Ctrl-C
PROGRAM = "ood-data"
LONG = 200  # characters of a summary in help: more than any has

# A parameter as the library's messages name it: `overwrite`, `decorrelated=False`.
PARAMETER = re.compile(r"`([a-z][a-z_]*)(=False)?`")


class Command(click.Command):
    """A command that says what an interruption does to it.

    Args:
        continues: whether the same command, run again, goes on where it was interrupted.
    """

    def __init__(self, *args: Any, continues: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.continues = continues

    def invoke(self, ctx: click.Context) -> Any:
        ctx.meta["command"] = self
        return super().invoke(ctx)

    def get_short_help_str(self, limit: int = LONG) -> str:
        """The whole first sentence of the help."""
        return super().get_short_help_str(LONG)


class Group(Command, click.Group):
    """A group of commands that says what was probably meant by a name that is none of them; it may do something by itself."""

    command_class = Command
    group_class = type

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name.startswith("-") or ctx.resilient_parsing or self.get_command(ctx, name) is not None:
            return super().resolve_command(ctx, args)
        commands = [f"`{' '.join([PROGRAM, *path])}`" for path in _meant(name, self, ctx.find_root().command)]
        advice = f"did you mean {' or '.join(commands)}?" if commands else f"known: {', '.join(self.list_commands(ctx))}"
        raise click.UsageError(f"There is no command {name!r}; {advice}", ctx)


def _meant(name: str, group: click.Group, root: click.Command) -> list[tuple[str, ...]]:
    """The commands that were probably meant by a name: those of that name elsewhere, those close to it in the group, or elsewhere."""
    known = dict(every_command(root))
    if same := [path for path in known if path and path[-1] == name]:
        return same
    here = {path[-1]: path for path, command in known.items() if path and group.commands.get(path[-1]) is command}
    if close := difflib.get_close_matches(name.casefold(), here, n=3):
        return [here[each] for each in close]
    close = difflib.get_close_matches(name.casefold(), {path[-1] for path in known if path}, n=3)
    return [path for path in known if path and path[-1] in close]


def every_command(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """A command, and if it is a group all in it, each with its words: ("data", "list")."""
    yield path, command
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from every_command(each, (*path, name))


class Commands(Group):
    """All commands, and what becomes of their errors: one or two plain lines, 2 for wrong use, 1 for work that was not done."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except OSError as error:  # of help, which is printed here
            _fail(error, message_of(error))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except (KeyboardInterrupt, click.Abort):
            click.echo(f"{PROGRAM}: {interrupted(ctx)}", err=True)
            sys.exit(INTERRUPTED)
        except Exception as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            _fail(error, as_options(message_of(error), ctx))


def _fail(error: Exception, message: str) -> NoReturn:
    """Say what is wrong and end."""
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        raise error  # whoever read our output has read enough: click ends quietly
    click.echo(f"{PROGRAM}: {printable(message)}", err=True)
    if was_printing(error):
        give_up(sys.stdout)
    sys.exit(WRONG_USE if isinstance(error, OodDataError) and isinstance(error, ValueError) else FAILED)


def message_of(error: Exception) -> str:
    """An error in words: ours and the system's say what to do; any other is a defect of this program."""
    if isinstance(error, OSError):
        return in_words(error, "standard output" if was_printing(error) else None)
    if isinstance(error, OodDataError):
        return str(error)
    if lack := lacking(error):
        return lack
    if isinstance(error, ImportError) and (sentence := replaced(error)):
        return sentence
    return f"a defect in ood-data, please report it: {type(error).__name__}: {error} (ood-data --debug … shows where)"


def as_options(text: str, ctx: click.Context | None = None) -> str:
    """A message of the library's, in which parameters are in backticks, with the options of the running command in their place.

    What the running command has no option for is looked up in the others; what none has stays as it is.
    """
    ctx = ctx or click.get_current_context()
    running = ctx.meta.get("command")
    commands = [*([running] if running else []), *(command for _, command in every_command(ctx.find_root().command))]

    def option(match: re.Match[str]) -> str:
        for command in commands:
            for parameter in command.params:
                if isinstance(parameter, click.Option) and parameter.name == match[1]:
                    names: Sequence[str] = parameter.secondary_opts if match[2] else parameter.opts
                    return names[0] if names else match[0]
        return match[0]

    return PARAMETER.sub(option, text)


class InOptions(logging.Formatter):
    """What the library logs, with options in the place of parameters."""

    def __init__(self, ctx: click.Context) -> None:
        super().__init__("%(message)s")
        self._ctx = ctx

    def format(self, record: logging.LogRecord) -> str:
        return as_options(super().format(record), self._ctx)


def interrupted(ctx: click.Context) -> str:
    """What an interruption left of the running command, and what to do."""
    command = ctx.meta.get("command")
    if not getattr(command, "continues", False):
        return "interrupted; the same command starts from the beginning"
    return f"interrupted; the same command{', without --overwrite,' if ctx.meta.get('overwrite') else ''} continues where it was"
