"""What several tests need: small flows with random weights, a population to walk, the command as users run it."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small import write_blocks

from celebglow.directions import Directions
from celebglow.glow import Glow
from celebglow.pipeline import CelebGlowPipeline

ROOT = Path(__file__).parents[1]
CommandLine = Callable[..., subprocess.CompletedProcess[str]]


def random_glow(seed: int = 0, **config: Any) -> Glow:
    """A Glow with no parameter at its initial zero, so that every term counts."""
    torch.manual_seed(seed)
    flow: Glow = Glow(**{"resolution": 16, "steps": (2, 2), "widths": 8, "quantize": False} | config)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    flow.eval()
    return flow


def random_pipeline(**config: Any) -> CelebGlowPipeline:
    flow = random_glow(**config)
    directions = Directions(("smile", "blond", "age"), flow.num_latents)
    directions.table.copy_(0.3 * torch.randn(3, flow.num_latents))
    return CelebGlowPipeline(flow, directions)


@pytest.fixture(scope="session")
def pipeline() -> CelebGlowPipeline:
    return random_pipeline()


@pytest.fixture(scope="session")
def flow_folder(pipeline: CelebGlowPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flow") / "tiny"
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ood_data() -> CommandLine:
    """Run the command in a subprocess; the folder to run in is `cwd`."""

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli", *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False, timeout=600)

    return run


@contextlib.contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As on a disk that fills up: writing past so many bytes of a file is an OSError that names no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def assert_one_clear_line(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """A failure as users should see it: its exit code, one or two lines, no traceback, the words that help."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert 1 <= len(lines) <= 2, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture(scope="session")
def blocks_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of 200 images of blocks."""
    return write_blocks(tmp_path_factory.mktemp("stores"))
