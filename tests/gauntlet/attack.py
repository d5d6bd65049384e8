"""The command as its users run it, thousands of times: forked from a process that has imported everything, watched, limited and killed.

What is random follows from GAUNTLET_SEED and the test's name; a test that fails says how to repeat it.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import resource
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.io.checkpoints import TRAINED

SEED = os.environ.get("GAUNTLET_SEED") or str(secrets.randbelow(10**9))
FULL = bool(os.environ.get("GAUNTLET"))
PRELOAD = (
    "ood_data.commands.root torch zarr h5py diffusers safetensors.torch PIL.PngImagePlugin matplotlib.backends.backend_svg "
    "celebglow.generate celebglow.fitting.trainer celebglow.fitting.directions celebglow.convert.checkpoints harness.bench.execute "
    "harness.formats.convert harness.formats.export harness.formats.dsprites harness.report.html harness.report.figures harness.runs.execution"
)
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
MEASURED = {"seconds", "images_per_second", "log_bytes", "finished"}  # in files that are otherwise the same in every run

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOAD.split())


def many(short: int, full: int) -> int:
    """How often: in `make test-slow`, or in `make gauntlet`."""
    return full if FULL else short


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """What is random in a test. The line that repeats it is shown with a failure."""
    test = f"tests/gauntlet/{request.path.name}::{request.node.name}"
    full = "GAUNTLET=full " if FULL else ""
    print(f"repeat: {full}GAUNTLET_SEED={SEED} .venv/bin/pytest -m '' '{test}'")
    return random.Random(f"{SEED} {test}")


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (negative: by which signal), what it printed, its changes of files, CPU seconds and MB."""

    code: int
    said: str
    changes: int = 0
    cpu: float = 0.0
    mb: int = 0

    @property
    def killed(self) -> bool:
        return self.code in (-signal.SIGKILL, -signal.SIGPROF)

    def assert_fine(self, *codes: int, lines: int = 30) -> None:
        """One of these exit codes, and nothing that users should not see."""
        assert self.code in codes, self
        assert "Traceback" not in self.said, self
        assert "--debug shows where" not in self.said, self
        assert not self.code or len(self.said.splitlines()) <= lines, self


class Command:
    """A command that runs.

    Args:
        arguments: of `ood-data`.
        kill_at: kill it before its n-th change of files;
        kill_after: or once it has used so many CPU seconds.
        limits: of `resource.setrlimit`.
        cwd: folder to run in.
        environment: more variables.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        kill_at: int | None = None,
        kill_after: float | None = None,
        limits: dict[int, int] | None = None,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        handle, self._log = tempfile.mkstemp(prefix="gauntlet-")
        os.close(handle)
        job = [
            list(map(str, arguments)),
            self._log,
            kill_at,
            kill_after,
            limits or {},
            cwd or Path(tempfile.gettempdir()),
            environment or {},
        ]
        self.process: BaseProcess = _context.Process(target=_child, args=job)
        self.process.start()

    def end(self, seconds: float = 600) -> Ended:
        """Wait for it; one that doesn't end is killed and fails the test."""
        self.process.join(seconds)
        log = Path(self._log)
        if self.process.is_alive():
            os.killpg(self.process.pid or 0, signal.SIGKILL)
            raise AssertionError(f"no end after {seconds} seconds: {log.read_text(errors='replace')}")
        said, told = log.read_text(errors="replace"), Path(f"{self._log}.json")
        more = json.loads(told.read_text()) if told.exists() else {}
        for file in (log, told):
            file.unlink(missing_ok=True)
        code = self.process.exitcode
        self.process.close()
        assert code is not None
        return Ended(code, said.strip(), **more)


def run(*arguments: object, **options: Any) -> Ended:
    return Command(arguments, **options).end()


def made(*arguments: object, **options: Any) -> Ended:
    """A command that must do its work."""
    ended = run(*arguments, **options)
    assert ended.code == 0, ended
    return ended


def _child(
    arguments: list[str],
    log: str,
    kill_at: int | None,
    kill_after: float | None,
    limits: dict[int, int],
    cwd: Path,
    environment: dict[str, str],
) -> None:
    os.setpgid(0, 0)
    out, null = os.open(log, os.O_WRONLY | os.O_APPEND), os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    os.chdir(cwd)
    os.environ.update(environment)
    for which, most in limits.items():
        resource.setrlimit(which, (most, resource.getrlimit(which)[1]))
    changes, started = 0, time.process_time()

    def watch(event: str, details: tuple[Any, ...]) -> None:
        nonlocal changes
        writes = event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in CHANGES:
            changes += 1
            if changes == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    if kill_after is not None:
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends a process as SIGKILL does: nothing of it runs any more
        signal.setitimer(signal.ITIMER_PROF, max(0.001, kill_after))
    sys.argv = ["ood-data", *arguments]
    code = 0
    try:
        from ood_data.commands import run as command

        command()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    finally:
        counted, used = changes, time.process_time() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "linux" else 2**20)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
        Path(f"{log}.json").write_text(json.dumps({"changes": counted, "cpu": used, "mb": peak}))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def tree(root: Path) -> dict[str, str]:
    """What lies in a folder: the hash of each file, without what is measured; "folder"; or where a link points."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = f"→ {path.readlink()}"
        elif path.is_dir():
            found[name] = "folder"
        else:
            data = path.read_bytes()
            if path.name == "scores.json":
                data = repr(_unmeasured(json.loads(data))).encode()
            elif path.name == "log.jsonl":
                data = repr([_unmeasured(json.loads(line)) for line in data.splitlines()]).encode()
            elif path.name == TRAINED:
                data = repr(_unmeasured(torch.load(path, weights_only=True))).encode()
            found[name] = hashlib.sha256(data).hexdigest()
    return found


def _unmeasured(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unmeasured(inner) for key, inner in value.items() if key not in MEASURED}
    if isinstance(value, torch.Tensor):
        return value.shape, hashlib.sha256(value.contiguous().view(-1).numpy().tobytes()).hexdigest()
    return [*map(_unmeasured, value)] if isinstance(value, list | tuple) else value


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Between two `tree`s: what is missing, extra or other."""
    keys = sorted(found.keys() | expected.keys())
    return [
        f"{key}: {'missing' if key not in found else 'extra' if key not in expected else 'differs'}"
        for key in keys
        if found.get(key) != expected.get(key)
    ]
