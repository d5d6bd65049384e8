"""What a machine lacks is said in its own words: memory, /proc, bf16, room on the disk; and neither a defect nor the flow's fault."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from celebglow.info import BUNDLED
from celebglow.pipeline import CelebGlowPipeline
from cli import main
from harness import machine
from harness.bench.outcome import attempt
from harness.runs.run import Run
from helpers.commands import ROOT
from helpers.files import no_file_above

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "error, words",
    [
        (MemoryError("Unable to allocate 16 GiB"), "there is not enough memory"),
        (RuntimeError("could not create a primitive"), "there is not enough memory (could not create a primitive)"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "there is not enough memory (CUDA out of memory)"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "there is not enough memory (failed to map"),
        (RuntimeError("Failed to initialize cpuinfo!"), "torch needs /proc and /sys"),
        (RuntimeError("could not create a primitive descriptor for a convolution"), "a defect in ood-data"),
        (ImportError("libx.so: failed to map segment from shared object: Operation not permitted"), "a defect in ood-data"),
        (RuntimeError("oh"), "a defect in ood-data"),
    ],
)
def test_what_is_lacking_is_no_defect(error: Exception, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("splits.load_spec", fail)
    result = CliRunner().invoke(main, ["split", "mpi3d"])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"ood-data: {words}")
    assert len(result.stderr.splitlines()) == 1


def test_torchs_own_words_are_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert str(machine.lacking(caught.value)).startswith("there is not enough memory")


def test_a_flow_is_not_blamed_for_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(*_: object) -> None:
        raise RuntimeError("Failed to initialize cpuinfo!")

    monkeypatch.setattr(torch.Tensor, "copy_", copy)
    with pytest.raises(OSError, match="torch needs /proc and /sys"):
        CelebGlowPipeline.from_pretrained(BUNDLED)


def test_a_run_that_lacks_memory_says_so(blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(Run, "execute", fail)
    outcome = attempt(Run(blocks_root, tmp_path, "blocks", "random", "cnn", 0, None, ""), CPU)  # type: ignore[arg-type]
    assert outcome.error.startswith(
        "there is not enough memory (could not create a primitive); run the same command again to continue it"
    )


@pytest.mark.parametrize("flags, slow", [("fpu avx2", True), ("fpu avx512_bf16", False), ("fpu amx_bf16", False), ("", False)])
def test_bf16_without_hardware_is_warned_of(
    flags: str, slow: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(machine, "cpuinfo", lambda name: flags)
    with caplog.at_level(logging.INFO):
        machine.warn_if_bf16_is_slow(CPU)
        machine.warn_if_bf16_is_slow(torch.device("meta"))
    assert len(caplog.messages) == slow
    assert all("bf16 is slow here" in message for message in caplog.messages)


@pytest.mark.parametrize(
    "arguments, option, code",
    [
        (
            ("generate", "celebglow", "--flow", "{flow}", "--persons", "1", "--levels", "2", "--out", "{out}", "--overwrite"),
            "--precision={}",
            0,
        ),
        (
            ("bench", "--model", "cnn", "--kind", "random", "--data", "{data}", "--out", "{out}", "--dry-run"),
            "--set=train.precision={}",
            0,
        ),
    ],
    ids=["generate", "bench"],
)
def test_commands_warn_of_bf16_and_of_nothing_else(
    arguments: tuple[str, ...],
    option: str,
    code: int,
    blocks_root: Path,
    flow_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(machine, "cpuinfo", lambda name: "fpu avx2")
    given = [argument.format(out=tmp_path / "out", data=blocks_root, flow=flow_folder) for argument in arguments]
    for precision in ("bf16", "fp32"):
        caplog.clear()
        result = CliRunner().invoke(main, [*given, "--device", "cpu", option.format(precision)])
        assert result.exit_code == code, result.output
        assert sum("bf16 is slow here" in message for message in caplog.messages) == (precision == "bf16")


def test_a_flow_that_cannot_be_saved_says_where_to(tmp_path: Path) -> None:
    pipeline = CelebGlowPipeline.from_pretrained(BUNDLED)
    for thing in (pipeline, pipeline.flow):
        with no_file_above(10_000), pytest.raises(OSError, match=r"File too large \(\d+,\d{3},\d{3} bytes to write\)") as caught:
            thing.save_pretrained(tmp_path / "flow")
        assert caught.value.errno == errno.EFBIG
        assert str(caught.value.filename).startswith(str(tmp_path / "flow"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the size of a process is not limited")
def test_a_process_that_may_not_grow_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ood_data", "generate", "celebglow", "--persons", "1", "--out", str(tmp_path)]
    limited = ["sh", "-c", 'ulimit -v 1048576; exec "$@"', "sh", *command]
    result = subprocess.run(limited, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("ood-data: there is not enough memory")


def test_a_cpu_is_named_with_the_instructions_that_torch_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    known = machine.device_name(torch.device("cpu"))
    assert known == f"cpu ({machine.cpuinfo('model name')}, {torch.backends.cpu.get_cpu_capability()})"
    code = "import torch; from harness.machine import device_name; print(device_name(torch.device('cpu')))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ATEN_CPU_CAPABILITY": "default"}  # torch's own way to use none
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() != known
    assert done.stdout.strip().endswith(", DEFAULT)")
    monkeypatch.setattr(machine, "cpuinfo", lambda name: "")
    assert machine.device_name(torch.device("cpu")) == f"cpu ({torch.backends.cpu.get_cpu_capability()})"
