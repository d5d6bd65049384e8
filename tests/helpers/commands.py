"""The command as users run it, and what its failures have to look like."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

from cli import main

ROOT = Path(__file__).parents[2]
CommandLine = Callable[..., subprocess.CompletedProcess[str]]


def invoke(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in this process."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return subprocess.CompletedProcess([], result.exit_code, result.stdout, result.stderr)


def assert_one_clear_line(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """A failure as users should see it: its exit code, one or two lines, no traceback, the words that help."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert 1 <= len(lines) <= 2, result.stderr
    for word in words:
        assert word in result.stderr
