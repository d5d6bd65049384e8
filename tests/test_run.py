"""Runs: what they see, that an interruption changes nothing, what they leave behind."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import harness
import splits
from harness.data.pixels import Pixels
from harness.io.checkpoints import interrupted_between_steps
from harness.io.locks import locked
from harness.models import MODELS, find
from harness.models.backbones import Normalized
from harness.models.lookup import code_hash, code_of
from harness.runs.config import Config, Preset, fingerprint, images_of
from harness.runs.presets import resolve
from harness.runs.records import RunSetup
from harness.runs.run import Run
from harness.runs.trainer import RunTrainer, noise_seed, seed_all
from splits.errors import InputError, OodDataError

BEFORE = Path(__file__).parent / "golden/before"
CPU = torch.device("cpu")
FINISHED = [
    "config.json",
    "log.jsonl",
    "maps.safetensors",
    "model.safetensors",
    "scores.json",
    "trained.pt",
]  # the files of a finished run
TINY = ("train.steps=6", "train.batch=16", "train.log_every=3", "readout.steps=6", "readout.batch=16", "train.precision=fp32")


def run_of(root: Path, out: Path, model: str = "cnn", kind: str = "extrapolation", seed: int = 0, *settings: str) -> Run:
    config = resolve(find(model), "quick", [*TINY, *settings])
    digest = fingerprint(config, find(model), images_of(harness.open("blocks", root)))
    return Run(root, out, "blocks", kind, model, seed, config, digest)  # type: ignore[arg-type]


def trainer_of(root: Path, folder: Path, model: str, kind: str, *settings: str, **options: object) -> RunTrainer:
    data = harness.open("blocks", root)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = find(model).build(1, 4)
    config = resolve(find(model), "quick", [*TINY, *settings])
    return RunTrainer(network, data, data.split(kind), config, 0, folder, CPU, **options)  # type: ignore[arg-type]


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The indices of all images that are looked at meanwhile."""
    seen: list[np.ndarray] = []
    gather = Pixels.gather

    def spied(self: Pixels, indices: np.ndarray) -> torch.Tensor:
        seen.append(np.array(indices))
        return gather(self, indices)

    monkeypatch.setattr(Pixels, "gather", spied)
    return seen


@pytest.mark.parametrize("kind", splits.KINDS)
@pytest.mark.parametrize("model", ["cnn", "beta-vae", "ada-gvae", "slowvae", "pcl"])
def test_training_never_sees_a_test_image(
    blocks_root: Path, tmp_path: Path, gathered: list[np.ndarray], model: str, kind: str
) -> None:
    trainer = trainer_of(blocks_root, tmp_path, model, kind, "train.normalize=train")
    trainer.run()
    phases = 2 if MODELS[model].family == "representation" else 1
    assert len(gathered) >= 6 + phases  # steps, statistics, latents
    assert not trainer.split.mask[np.concatenate(gathered)].any()


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("model, at", [("cnn", 4), ("slowvae", 2), ("pcl", 10)])
def test_an_interrupted_training_ends_as_an_unbroken_one(blocks_root: Path, tmp_path: Path, model: str, at: int) -> None:
    calls = 0

    def interrupt(phase: str, step: int) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Interrupted

    often = "train.checkpoint_seconds=0"
    whole = trainer_of(blocks_root, tmp_path / "whole", model, "random", often)
    whole.run()
    with pytest.raises(Interrupted):
        trainer_of(blocks_root, tmp_path / "broken", model, "random", often, progress=interrupt).run()
    with (tmp_path / "broken/log.jsonl").open("a") as log:
        log.write('{"phase": "train", "st')  # killed while it wrote a line
    resumed = trainer_of(blocks_root, tmp_path / "broken", model, "random", often)
    torch.manual_seed(99)  # of no consequence
    resumed.run()
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
    logs = [
        [
            {key: value for key, value in json.loads(line).items() if key != "seconds"}
            for line in (tmp_path / name / "log.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "broken")
    ]
    assert logs[0] == logs[1]
    phases = ["train", "train"] + (["readout", "readout"] if model != "cnn" else [])
    assert [(line["phase"], line["step"]) for line in logs[0]] == list(zip(phases, [3, 6, 3, 6], strict=False))


@pytest.mark.parametrize("model", ["cnn", "pcl"])
def test_a_longer_run_continues_a_finished_one_to_the_same_weights(blocks_root: Path, tmp_path: Path, model: str) -> None:
    """6 steps, and then 12, are 12 at once: weights, scores and log."""
    shorter, longer = (run_of(blocks_root, tmp_path / "runs", model, "random", 0, f"train.steps={n}") for n in (6, 12))
    shorter.execute(CPU)
    steps: list[float] = []
    continued = longer.execute(CPU, steps.append)
    at_once = run_of(blocks_root, tmp_path / "at once", model, "random", 0, "train.steps=12")
    assert at_once.execute(CPU).r2 == continued.r2
    assert (longer.folder / "model.safetensors").read_bytes() == (at_once.folder / "model.safetensors").read_bytes()
    assert steps[0] > 0.3  # it began where the other had ended
    logs = [[json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()] for run in (longer, at_once)]
    assert [(line["phase"], line["step"], line["loss"]) for line in logs[0]] == [
        (line["phase"], line["step"], line["loss"]) for line in logs[1]
    ]


def test_only_a_shorter_run_of_the_same_kind_is_continued(blocks_root: Path, tmp_path: Path) -> None:
    others = [("train.steps=6", 1), ("train.learning_rate=1e-3", 0), ("train.steps=20", 0)]
    for setting, seed in others:
        run_of(blocks_root, tmp_path, "cnn", "random", seed, setting).execute(CPU)
    steps: list[float] = []
    run_of(blocks_root, tmp_path, "cnn", "random", 0, "train.steps=12").execute(CPU, steps.append)
    assert steps[0] < 0.1
    without = run_of(blocks_root, tmp_path / "without", "cnn", "random", 0, "train.keep_state=false")
    without.execute(CPU)
    assert not (without.folder / "trained.pt").exists()
    assert without.fingerprint == run_of(blocks_root, tmp_path, "cnn", "random", 0).fingerprint


def test_a_damaged_state_is_not_used(blocks_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shorter, longer = (run_of(blocks_root, tmp_path, "cnn", "random", 0, f"train.steps={n}") for n in (6, 12))
    shorter.execute(CPU)
    (shorter.folder / "trained.pt").write_bytes(b"nonsense")
    longer.execute(CPU)
    assert caplog.messages == [f"{shorter.folder / 'trained.pt'} is damaged: the training begins at step 0"]


def test_a_raised_protocol_is_another_run(blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(blocks_root, tmp_path, "cnn")
    assert run.execute(CPU).protocol.to_dict() == {"model": 1, "score": 1}
    other = run_of(blocks_root, tmp_path, "mlp").fingerprint
    raised = {**MODELS, "cnn": replace(MODELS["cnn"], protocol=2)}
    monkeypatch.setattr("harness.models.lookup.MODELS", raised)
    assert run_of(blocks_root, tmp_path, "cnn").state == "new"
    assert run_of(blocks_root, tmp_path, "mlp").fingerprint == other
    monkeypatch.undo()
    assert run_of(blocks_root, tmp_path, "cnn").state == "done"


def test_all_seeds_are_scored_on_the_same_sample(blocks_root: Path, tmp_path: Path, gathered: list[np.ndarray]) -> None:
    scored = []
    for seed in (0, 1):
        run = run_of(blocks_root, tmp_path, "mlp", "random", seed, "score.samples=10")
        assert run.execute(CPU).protocol.score == 2
        scored.append(np.concatenate(gathered[-2:]))
    assert np.array_equal(scored[0], scored[1])


def test_what_is_logged_is_the_mean_over_the_interval(blocks_root: Path, tmp_path: Path) -> None:
    trainer_of(blocks_root, tmp_path / "each", "cnn", "random", "train.log_every=1").run()
    trainer_of(blocks_root, tmp_path / "three", "cnn", "random").run()
    each, three = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("each", "three")
    )
    assert three == pytest.approx([np.mean(each[:3]), np.mean(each[3:])])


def test_divergence_is_an_early_and_clear_failure(blocks_root: Path, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"not finite within the 3 steps up to .* of train: try a smaller learning rate"):
        trainer_of(blocks_root, tmp_path, "cnn", "random", "train.learning_rate=1e30").run()


def test_images_are_normalised_by_train_alone(blocks_root: Path, tmp_path: Path) -> None:
    trainer = trainer_of(blocks_root, tmp_path, "cnn", "extrapolation", "train.normalize=train")
    trainer.run()
    assert isinstance(trainer.network, Normalized)
    shown = np.asarray(trainer.data.images)[trainer.train] / 255
    assert trainer.network.mean.item() == pytest.approx(shown.mean(), rel=1e-5)
    assert trainer.network.std.item() == pytest.approx(shown.std(), rel=1e-5)


@pytest.mark.parametrize("setting", ["train.precision=bf16", "train.normalize=train"])
@pytest.mark.parametrize("model", ["cnn", "spatial-transformer", "rotation-eq", "beta-vae", "ada-gvae", "slowvae", "pcl"])
def test_options_of_training_work_for_every_family(blocks_root: Path, tmp_path: Path, model: str, setting: str) -> None:
    trainer_of(blocks_root, tmp_path, model, "random", setting).run()


def test_a_run_leaves_a_folder_that_stands_alone(blocks_root: Path, tmp_path: Path) -> None:
    run = run_of(blocks_root, tmp_path, "pcl")
    states = [run.state]
    scores = run.execute(CPU)
    states.append(run.state)
    assert states == ["new", "done"]
    assert run.folder.parent == tmp_path / "blocks/extrapolation/pcl"
    assert sorted(path.name for path in run.folder.iterdir()) == FINISHED
    written = json.loads((run.folder / "scores.json").read_text())
    assert written == scores.to_dict()
    assert list(written) == [
        "format", "dataset", "kind", "model", "seed", "fingerprint", "preset", "protocol", "steps", "n_test", "r2", "r2_sklearn", "mse",
        "train", "reference", "modularity", "by_held_out_count", "by_distance", "seconds", "images_per_second", "device", "finished",
    ]  # fmt: skip
    assert list(written["train"]) == ["n", "r2", "r2_sklearn", "mse"]
    assert run.folder.name == f"0-{written['fingerprint']}"
    config = json.loads((run.folder / "config.json").read_text())
    assert config["config"]["model"] == {"latents": 10, "batch_norm": False, "unchanged": True}
    assert {"torch", "python"} <= set(config["versions"])

    network = find("pcl").build(1, 4)
    network.load_state_dict(safetensors.torch.load_file(run.folder / "model.safetensors"))
    data = harness.open("blocks", blocks_root)
    again = harness.score(network.eval(), data, data.split("extrapolation"))
    assert again["r2"]["factors"] == pytest.approx(written["r2"]["factors"])
    assert again["by_held_out_count"].keys() == written["by_held_out_count"].keys()


def test_a_finished_run_is_not_run_again(blocks_root: Path, tmp_path: Path) -> None:
    run = run_of(blocks_root, tmp_path)
    run.execute(CPU)
    before = {path: path.stat().st_mtime_ns for path in run.folder.iterdir()}
    run.execute(CPU)
    assert before == {path: path.stat().st_mtime_ns for path in run.folder.iterdir()}


def test_a_run_folder_has_one_owner(blocks_root: Path, tmp_path: Path) -> None:
    run = run_of(blocks_root, tmp_path)
    run.folder.mkdir(parents=True)
    with locked(run.folder / ".lock"), pytest.raises(BlockingIOError, match="being run by another process"):
        run.execute(CPU)
    assert list(run.folder.iterdir()) == []
    (run.folder / ".lock").touch()  # left by a killed process
    run.execute(CPU)
    assert sorted(path.name for path in run.folder.iterdir()) == FINISHED


def test_seeds_differ_and_repeat(blocks_root: Path, tmp_path: Path) -> None:
    first = run_of(blocks_root, tmp_path / "one").execute(CPU)
    again = run_of(blocks_root, tmp_path / "two").execute(CPU)
    other = run_of(blocks_root, tmp_path / "one", "cnn", "extrapolation", 1).execute(CPU)
    assert first.r2 == again.r2 != other.r2


def test_a_users_model_may_draw_from_any_generator(blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = """    import random
    import numpy
    class Noisy(nn.Linear):
        def forward(self, images):
            return super().forward(images.flatten(1) + random.random() + numpy.random.rand())
    return Noisy(4096, num_outputs)
"""
    name = my_model(tmp_path, monkeypatch, build)
    weights = []
    for attempt in ("one", "two"):
        run = run_of(blocks_root, tmp_path / attempt, name)
        run.execute(CPU)
        weights.append((run.folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_the_noise_of_every_seed_phase_and_step_is_its_own() -> None:
    drawn = []
    for key in ((0, 0, 5), (1, 0, 5), (0, 1, 5), (0, 0, 6), (2, 0, 5)):
        seed_all(noise_seed(*key))
        drawn.append((torch.rand(()).item(), np.random.rand(), random.random()))  # noqa: NPY002
    assert all(len(set(values)) == len(drawn) for values in zip(*drawn, strict=True))


def config(preset: Preset = "quick", *settings: str, model: str = "cnn") -> Config:
    return resolve(find(model), preset, settings)


def test_presets_and_overrides() -> None:
    full = config("full", model="slowvae")
    assert (full.train.steps, full.train.learning_rate, full.train.batch, full.readout.steps) == (200_000, 1e-4, 64, 50_000)
    assert full.model == {"latents": 10, "beta": 1.0, "gamma": 10.0, "rate": 6.0, "unchanged": True}
    assert full.score.samples == 0
    assert resolve(find("slowvae"), "paper") == full  # its name of before
    quick = config("quick", model="pcl")
    assert (quick.train.steps, quick.readout.steps, quick.score.samples) == (400, 1000, 1000)
    assert quick.train.precision in ("fp32", "bf16")
    assert config("quick", model="resnet101").train.precision == "fp32"  # in which few steps end better
    changed = config("quick", "train.steps=500", "train.betas=[0.5, 0.9]", "train.learning_rate=1", "train.normalize=train")
    assert (changed.train.steps, changed.train.betas, changed.train.learning_rate) == (500, (0.5, 0.9), 1.0)
    assert changed.train.normalize == "train"


@pytest.mark.parametrize(
    "setting, message",
    [
        ("train.step=5", r"unknown setting 'train.step'; did you mean 'train.steps'"),
        ("train.steps=many", "train.steps: int is expected, got 'many'"),
        ("train.steps=-1", "at least 0 is expected"),
        ("train.steps", "a setting such as train.steps=500 is expected"),
        ("train.precision=fp8", "'auto' or 'fp32' or 'bf16' is expected, got 'fp8'"),
        ("train.compile=1", "bool is expected"),
        ("model.width=3", "cnn has no option model.width"),
        ("train.learning_rate=nan", "train.learning_rate: a number of at least 0 is expected, got nan"),
        ("train.learning_rate=inf", "a number of at least 0 and below inf is expected, got inf"),
        ("train.betas=[0.9, 2]", "train.betas: a number of at least 0 and below 1 is expected, got 2.0"),
        ("train.steps=" + "9" * 30, "at least 0 and below 9223372036854775808 is expected, got one of many digits"),
        ("train.steps=" + "9" * 5000, r"int is expected, got '9{78}…$"),
        ("train.batch=" + "[" * 100_000, r"int is expected, got '\[{78}…$"),
    ],
)
def test_wrong_settings_are_told(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config("quick", setting)


def test_the_hash_is_of_what_determines_the_result() -> None:
    store = {"images": 5, "source": {}}
    base = fingerprint(config(), find("cnn"), store)
    assert base == fingerprint(config("quick", "train.log_every=7", "train.checkpoint_seconds=1"), find("cnn"), store)
    assert base != fingerprint(config("quick", "train.steps=7"), find("cnn"), store)
    assert base != fingerprint(config(), find("cnn"), store | {"images": 6})


@pytest.mark.parametrize("setting", ["train.batch=0", "readout.batch=0", "score.batch=0", "train.log_every=0"])
def test_a_count_of_none_is_told_before_the_run(setting: str) -> None:
    with pytest.raises(ValueError, match="at least 1 is expected, got 0"):
        config("quick", setting)


def test_precision_follows_the_device_that_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_cpu(*flags: str) -> str:
        monkeypatch.setattr("harness.machine.cpuinfo", lambda name: " ".join(flags))
        return resolve(find("cnn"), "quick", ["train.precision=auto"], CPU).train.precision

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # of no consequence
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *arguments, **options: True)
    assert on_cpu("avx2") == "fp32"
    assert on_cpu("avx2", "amx_bf16") == on_cpu("avx512_bf16") == "bf16"
    assert resolve(find("cnn"), "quick", ["train.precision=auto"], torch.device("meta")).train.precision == "fp32"


def my_model(folder: Path, monkeypatch: pytest.MonkeyPatch, build: str) -> str:
    """A module of the user's own in the current folder, with spaces in its name; returns the model's."""
    folder = folder / "my own models"
    folder.mkdir()
    name = f"module_{folder.parent.name}".replace("-", "_")  # imported once per process
    (folder / f"{name}.py").write_text(f"import torch\nfrom torch import nn\n\n\ndef build(in_channels, num_outputs):\n{build}")
    monkeypatch.chdir(folder)
    return f"{name}:build"


@pytest.mark.parametrize(
    "model, settings",
    [("cnn", ["train.normalize=train"]), ("pcl", ["train.normalize=train"]), ("beta-vae", ["model.latents=4"]), ("mlp", [])],
)
def test_a_finished_run_is_loaded_as_it_was_scored(blocks_root: Path, tmp_path: Path, model: str, settings: list[str]) -> None:
    run = run_of(blocks_root, tmp_path, model, "extrapolation", 0, *settings)
    with pytest.raises(FileNotFoundError, match=r"has no scores.json: it is not a run folder, or the run is unfinished"):
        harness.load(run.folder)
    scores = run.execute(CPU)
    network = harness.load(run.folder)
    assert not network.training
    data = harness.open("blocks", blocks_root)
    assert harness.score(network, data, data.split("extrapolation"))["mse"] == scores.mse.to_dict()


def test_a_strangers_run_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(next((BEFORE / "runs/blocks/extrapolation/my_network.build").iterdir()), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_network", raising=False)
    evil = "open('CANARY', 'w')\ndef build(*arguments): ...\n"
    for file in (Path("my_network.py"), Path("pack/__init__.py"), Path("pack/inner/net.py")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(evil)
    for trust in (False, True):
        with pytest.raises(InputError, match=r"my_network:build is not the code that was trained .*my_network\.py changed since"):
            harness.load(folder, trust_code=trust)
    setup = RunSetup.read(folder / "config.json")
    for model in ("my_network:build", "pack.inner.net:build", "os:system", "../../x:build", "x.py:build", "absent:build", ":"):
        code = code_hash(code_of(model)) if model[0] in "mp" else ""  # as a stranger would write it who brings both
        setup.model_copy(update={"model": model, "code": code}).write(folder / "config.json")
        with pytest.raises(InputError) as error:
            harness.load(folder)
        if code:
            assert str(Path.cwd() / f"{model.partition(':')[0].replace('.', '/')}.py") in str(error.value)
            assert "trust_code=True" in str(error.value)
    assert not Path("CANARY").exists()
    assert not {"pack", "pack.inner", "my_network"} & set(sys.modules)


def test_a_model_without_a_file_is_not_trusted_either(tmp_path: Path) -> None:
    folder = shutil.copytree(next((BEFORE / "runs/blocks/extrapolation/my_network.build").iterdir()), tmp_path / "run")
    setup = RunSetup.read(folder / "config.json")
    setup.model_copy(update={"model": "sys:exit", "code": ""}).write(folder / "config.json")
    with pytest.raises(InputError, match=r"the code in no file\. If you trust"):
        harness.load(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"widths": [10**9]}, "holds another network than"),
        ({"widths": ["x"]}, "has options that mlp can't be built with"),
        ({"hidden": 10**12}, "mlp has no option model.hidden"),
        ({"widths": 5}, "list is expected"),
    ],
)
def test_a_strangers_options_take_no_memory(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = shutil.copytree(next((BEFORE / "runs/blocks/extrapolation/mlp").iterdir()), tmp_path / "run")
    document = json.loads((folder / "config.json").read_text())
    document["config"]["model"] = change
    (folder / "config.json").write_text(json.dumps(document))
    with pytest.raises(OodDataError, match=message):
        harness.load(folder)


@pytest.mark.parametrize("weights", [b"", b"\x80\x04cos\nsystem\n", (2**63).to_bytes(8, "little") + b"{}", None])
def test_weights_that_are_none(tmp_path: Path, weights: bytes | None) -> None:
    folder = shutil.copytree(next((BEFORE / "runs/blocks/extrapolation/mlp").iterdir()), tmp_path / "run")
    (folder / "model.safetensors").unlink()
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(OSError, match=r"model.safetensors is (damaged|missing).*bench again"):
        harness.load(folder)


def test_ctrl_c_saves_the_step_that_it_met(blocks_root: Path, tmp_path: Path) -> None:
    def press(phase: str, step: int) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)

    rarely = "train.checkpoint_seconds=1000"
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            trainer_of(blocks_root, tmp_path, "mlp", "random", rarely, progress=press).run()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, handler)
    seen: list[int] = []
    trainer_of(blocks_root, tmp_path, "mlp", "random", rarely, progress=lambda phase, step: seen.append(step)).run()
    assert seen == [5, 6]


def test_a_second_ctrl_c_does_not_wait() -> None:
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interrupted_between_steps() as interrupted:
            assert not interrupted()
            signal.raise_signal(signal.SIGINT)
            assert interrupted()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a job in the background
        with interrupted_between_steps() as interrupted:
            signal.raise_signal(signal.SIGINT)
            assert not interrupted()
    finally:
        signal.signal(signal.SIGINT, handler)


def test_what_a_kill_after_the_scores_leaves_is_removed(blocks_root: Path, tmp_path: Path) -> None:
    run = run_of(blocks_root, tmp_path, "mlp")
    scores = run.execute(CPU)
    for name in ("checkpoint.pt", ".lock"):
        (run.folder / name).touch()
    assert run.execute(CPU) == scores
    assert sorted(path.name for path in run.folder.iterdir()) == FINISHED


def test_a_users_model_is_loaded_unless_its_code_changed(
    blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tied weights and a layer that finds its shape itself."""
    layers = "nn.Flatten(), nn.LazyLinear(8), tied, nn.ReLU(), tied, nn.Dropout(), nn.Linear(8, num_outputs)"
    name = my_model(tmp_path, monkeypatch, f"    tied = nn.Linear(8, 8)\n    return nn.Sequential({layers})\n")
    run = run_of(blocks_root, tmp_path / "runs", name)
    scores = run.execute(CPU)
    data = harness.open("blocks", blocks_root)
    loaded = harness.load(run.folder, trust_code=True)
    assert harness.score(loaded, data, data.split("extrapolation"))["mse"] == scores.mse.to_dict()
    (file,) = Path.cwd().glob("*.py")
    file.write_text(file.read_text() + "\n# edited\n")
    with pytest.raises(ValueError, match="is not the code that was trained"):
        harness.load(run.folder, trust_code=True)
    assert run_of(blocks_root, tmp_path / "runs", name).state == "new"


def test_pretrained_weights_are_not_wanted_again_to_load_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.models.backbones.local_file", lambda *arguments: pytest.fail("looked for weights"))
    network = find("densenet121-in1k").build(1, 4, weights=None)
    assert isinstance(network, Normalized)


@pytest.mark.parametrize(
    "build, message",
    [
        ("    return None", "must return a torch.nn.Module, not NoneType"),
        ("    return nn.Sequential(nn.Flatten(), nn.Linear(4096, 1))", r"must return \(B, 4\) for .*, got \(2, 1\) for B = 2"),
        ("    return nn.Sequential(nn.Flatten(0), nn.Linear(2 * 4096, 4))", r"got \(4,\) for B = 2"),
        (
            "    class Still(nn.Module):\n        def forward(self, images):\n            return images.flatten(1)[:, :4]\n    return Still()",
            "has no parameters that can be trained",
        ),
        ("    return nn.LSTM(64, 4)", "nn.LSTM|input must|expected|Expected"),
    ],
)
def test_a_model_that_is_none_is_told_before_it_trains(
    blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: str, message: str
) -> None:
    run = run_of(blocks_root, tmp_path / "runs", my_model(tmp_path, monkeypatch, build))
    with pytest.raises((TypeError, ValueError, RuntimeError), match=message):
        run.execute(CPU)
    assert not run.folder.exists()


def test_predictions_that_are_not_finite_are_told(blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = """    class Broken(nn.Linear):
        def forward(self, images):
            outputs = super().forward(images.flatten(1))
            return outputs if self.training else outputs / 0
    return Broken(4096, num_outputs)
"""
    run = run_of(blocks_root, tmp_path / "runs", my_model(tmp_path, monkeypatch, build))
    with pytest.raises(FloatingPointError, match="predictions are not finite, first for sample"):
        run.execute(CPU)
    assert run.state == "resumable"


def test_a_checkpoint_that_cant_be_continued_is_named(blocks_root: Path, tmp_path: Path) -> None:
    run = run_of(blocks_root, tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"can't continue from .*checkpoint.pt, delete it to start again"):
        run.execute(CPU)
