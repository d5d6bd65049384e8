"""Results that are kept: records of runs, what they are worth, and studies, which make many."""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.bench.plan import plan
from harness.bench.replay import FACTOR_TOLERANCE, MEAN_TOLERANCE, compared, replay
from harness.bench.study import plan_study, read_study, runs_of_absent
from harness.models import MODELS
from harness.report.collect import collect
from harness.report.result_record import ResultRecord, command_of, problem_of
from harness.report.tables import score_table
from harness.runs.presets import Settings, override_value, parse_override
from harness.runs.records import RunScores
from helpers.commands import ROOT, invoke

CPU = torch.device("cpu")
TINY = ("train.steps=4", "train.batch=16", "readout.steps=3", "train.precision=fp32", "score.samples=50")


@pytest.fixture(scope="module")
def runs(blocks_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of two models, two kinds, two seeds."""
    out = tmp_path_factory.mktemp("results") / "runs"
    settings = Settings(overrides=(*TINY, "train.betas=[0.5, 0.9]"))
    for run in plan(["mlp", "pcl"], blocks_root, out, kinds=["random", "extrapolation"], seeds=2, settings=settings).runs:
        run.execute(CPU)
    return out


@pytest.fixture
def records(runs: Path, tmp_path: Path) -> Path:
    assert invoke("results", "submit", runs, "--to", tmp_path / "results").returncode == 0
    return tmp_path / "results"


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.json"))


def test_records_report_as_the_runs_do(runs: Path, records: Path, tmp_path: Path) -> None:
    assert len(files(records)) == 8
    assert all(path.stat().st_size < 20_000 for path in files(records))
    assert score_table(collect(records)) == score_table(collect(runs))
    shown = [invoke("report", folder, "--out", tmp_path / "page") for folder in (runs, records)]
    assert shown[0].stdout == shown[1].stdout
    assert invoke("results", "check", records).stdout == "8 records, 0 with a problem\n"
    before = [path.read_bytes() for path in files(records)]
    invoke("results", "submit", runs, "--to", records)
    assert [path.read_bytes() for path in files(records)] == before


def test_the_command_of_a_record_makes_the_same_run(blocks_root: Path, records: Path, tmp_path: Path) -> None:
    record = ResultRecord.read(files(records)[0])
    program, *arguments = shlex.split(record.command)
    assert program == "ood-data"
    done = invoke(*arguments, "--data", blocks_root, "--out", tmp_path / "again", "--json")
    assert done.returncode == 0, done.stderr
    (scores,) = json.loads(done.stdout)["runs"]
    assert scores["fingerprint"] == record.scores.fingerprint
    assert scores["r2"] == record.scores.r2.to_dict()


def test_a_record_replays(blocks_root: Path, records: Path, tmp_path: Path) -> None:
    done = invoke("bench", "replay", *files(records)[:2], "--data", blocks_root, "--out", tmp_path / "replays")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": agrees: R² ") == 2
    assert "the same to the last digit" in done.stdout


def changed(record: ResultRecord, **facts: Any) -> ResultRecord:
    return record.model_copy(update={"scores": record.scores.model_copy(update=facts)})


def test_records_are_exchanged(records: Path, tmp_path: Path) -> None:
    out = tmp_path / "exchange"
    assert invoke("results", "export", records, "--out", out).stdout == f"8 files in {out / 'data'}\n"
    written = {path: path.read_bytes() for path in files(out)}
    assert {path.relative_to(out).parent.as_posix() for path in written} == {
        f"data/ood-data/ood-data/{name}" for name in ("mlp", "pcl")
    }
    found = {}
    for content in written.values():
        log = json.loads(content)
        assert log["schema_version"] == "0.3.0"
        seed = log["model_info"]["additional_details"]["seed"]
        for result in log["evaluation_results"]:
            found[result["evaluation_name"], log["model_info"]["name"], seed] = result["score_details"]["score"]
        assert log["evaluation_timestamp"].endswith("+00:00")
    for path in files(records):
        scores = ResultRecord.read(path).scores
        numbers = {"": scores.r2.mean, **{f".{name}": value for name, value in scores.r2.factors.items()}}
        for suffix, value in numbers.items():
            key = f"ood-data.blocks.{scores.kind}{suffix}", scores.model, str(scores.seed)
            assert found.pop(key, None) == value
    assert not found
    assert invoke("results", "export", records, "--out", out).returncode == 0
    assert {path: path.read_bytes() for path in files(out)} == written
    files(records)[0].write_text("{}")
    broken = invoke("results", "export", records, "--out", tmp_path / "none")
    assert broken.returncode == 2
    assert str(files(records)[0]) in broken.stderr
    assert not (tmp_path / "none").exists()


def test_the_records_of_this_project_are_taken_in_exchange(tmp_path: Path) -> None:
    validation = pytest.importorskip("every_eval_ever.validator.validation_core", reason="it is on no index: its checkout")
    assert invoke("results", "export", ROOT / "results", "--out", tmp_path).returncode == 0
    assert len(files(tmp_path)) == len(files(ROOT / "results"))
    for path in files(tmp_path):
        place = path.relative_to(tmp_path).as_posix()
        assert validation.validate_aggregate(path, repo_path=place, run_semantic_checks=True).errors == []


def test_a_mean_is_of_its_factors(records: Path) -> None:
    path = files(records)[0]
    record = json.loads(path.read_text())
    record["scores"]["r2"]["mean"] = 0.99
    path.write_text(json.dumps(record))
    assert problem_of(path, records) == "scores.r2: its mean is not of its factors"


@pytest.mark.parametrize("date", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "2026-11-28T12:00:00", 1e300])
def test_a_record_of_a_strange_date_is_none(records: Path, date: object) -> None:
    path = files(records)[0]
    record = json.loads(path.read_text())
    record["scores"]["finished"] = date
    path.write_text(json.dumps(record))
    assert "scores.finished" in problem_of(path, records)


def test_what_differs_is_said(records: Path) -> None:
    scores = ResultRecord.read(files(records)[0]).scores
    assert scores.r2.mean is not None

    def moved(by: float, factor: float = 0.0) -> RunScores:
        factors = {name: (value or 0.0) + factor for name, value in scores.r2.factors.items()}
        mean = None if scores.r2.mean is None else scores.r2.mean + by
        return scores.model_copy(update={"r2": scores.r2.model_copy(update={"mean": mean, "factors": factors})})

    assert compared(scores, scores).verdict == "agrees"
    assert compared(scores, moved(MEAN_TOLERANCE * 0.9)).verdict == "agrees"
    told = compared(scores, moved(MEAN_TOLERANCE * 1.1))
    assert (told.verdict, told.ok) == ("differs", False)
    assert "more than 0.03 apart" in told.reason
    elsewhere = moved(0.2).model_copy(update={"device": "cpu (another)"})
    assert "as with another seed" in compared(scores, elsewhere).reason
    seeds = [scores, moved(0.12)]
    told = compared(scores, elsewhere, seeds)  # of two seeds, twice their difference is allowed
    assert (told.verdict, told.by_seeds) == ("agrees", True)
    assert told.tolerance == pytest.approx(0.24)
    assert str(told).startswith("agrees, but only within what seeds differ by: R² ")
    assert "in the record: within 0.24, and each factor within 0.1; made on " in str(told)
    near = compared(scores, moved(0.02).model_copy(update={"device": "cpu (another)"}), seeds)
    assert (str(near).partition(" R²")[0], near.tolerance, near.by_seeds) == ("agrees:", MEAN_TOLERANCE, False)
    assert near.reason.endswith(" in the record: within 0.03, and each factor within 0.1")
    wide = moved(0, 0.5).model_copy(update={"device": "cpu (another)"})
    told = compared(scores, wide, [scores, moved(0, 0.3)])
    assert (told.verdict, told.by_seeds) == ("agrees", True)
    assert told.factor_tolerances == pytest.approx(dict.fromkeys(scores.r2.factors, 0.6))
    far = compared(scores, moved(0.25).model_copy(update={"device": "cpu (another)"}), seeds)
    assert (far.verdict, str(far).count("more than 0.24 apart; made on")) == ("differs", 1)
    assert compared(scores, moved(0.2), seeds).verdict == "differs"  # here seeds are no excuse
    told = compared(scores, moved(0, FACTOR_TOLERANCE * 1.1))
    assert told.verdict == "differs"
    assert "brightness" in told.reason


def test_what_cannot_be_made_again_is_struck_out(
    blocks_root: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = ResultRecord.read(files(records)[0])
    model = record.setup.model
    monkeypatch.setattr("harness.models.lookup.MODELS", {**MODELS, model: replace(MODELS[model], protocol=2)})
    told = replay(record, blocks_root, tmp_path, CPU)
    assert (told.verdict, told.reason) == ("struck out", f"{model} is of version 2 of its protocol now, and was of 1")
    monkeypatch.undo()
    other = record.model_copy(update={"setup": record.setup.model_copy(update={"images": 7})})
    other = changed(other, fingerprint="00000000")
    assert "blocks here was made in another way: 7 images of" in replay(other, blocks_root, tmp_path, CPU).reason
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
    done = invoke("bench", "replay", files(records)[0], "--data", tmp_path)
    assert done.returncode == 1
    assert "blocks" in done.stderr


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda d: d["scores"].update(model="cnn"), "differ in their model"),
        (lambda d: d["scores"].update(dataset="../../evil"), "can't be a name"),
        (lambda d: d.update(command="rm -rf /"), "its command is not of its config"),
        (lambda d: d["scores"].update(fingerprint="12345678"), "it belongs to blocks/"),
        (lambda d: d.update(format=2), "is not of format 1"),
        (lambda d: d["setup"].pop("config"), "setup.config"),
        (lambda d: d["log"].append({"phase": "train", "step": -1, "loss": 0.0}), "log.1.step"),
    ],
)
def test_a_wrong_record_is_found(records: Path, change: Any, words: str) -> None:
    path = next(path for path in files(records) if "mlp" in path.parts)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    assert words in problem_of(path, records)
    done = invoke("results", "check", records)
    assert done.returncode == 1
    assert words in done.stdout
    assert "8 records, 1 with a problem" in done.stdout


def test_wrong_use_is_told_in_a_line(runs: Path, tmp_path: Path) -> None:
    for arguments, words in [
        (("results", "submit", tmp_path), "neither a finished run nor a folder of them"),
        (("results", "check", tmp_path), "no record in"),
        (("bench", "replay", tmp_path / "x.json"), "is not a file: a record is expected"),
        (("bench", "--jobs", 3, "replay", "x.json"), "options go behind the word replay"),
        (("bench", tmp_path / "x.toml"), "x.toml is not a file: a study in TOML is expected"),
    ]:
        done = invoke(*arguments)
        assert done.returncode in (1, 2)
        assert words in " ".join(done.stderr.split())


STUDY = """
seeds = [0, 3]
datasets = ["blocks"]
settings = { "train.steps" = 4, "train.batch" = 16, "train.precision" = "fp32", "train.betas" = [0.5, 0.9] }

[[runs]]
models = ["mlp", "cnn"]
kinds = ["random", "composition"]

[[runs]]
models = ["beta-vae"]
kinds = ["random"]
seeds = 1
preset = "full"
settings = { "train.steps" = 5 }
grid = { "model.beta" = [1, 4.0], "readout.steps" = [2, 3] }
"""


def test_a_study_is_its_groups(blocks_root: Path, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    planned = plan_study(read_study(tmp_path / "study.toml"), blocks_root, tmp_path / "runs")
    assert [(run.seed, run.kind, run.model) for run in planned.runs] == [
        *[(0, "random", model) for model in ("mlp", "cnn", *["beta-vae"] * 4)],
        *[(0, "composition", model) for model in ("mlp", "cnn")],
        *[(3, kind, model) for kind in ("random", "composition") for model in ("mlp", "cnn")],
    ]
    grid = [run for run in planned.runs if run.model == "beta-vae"]
    assert [(run.config.model["beta"], run.config.readout.steps) for run in grid] == [(1.0, 2), (1.0, 3), (4.0, 2), (4.0, 3)]
    assert {(run.config.train.steps, run.config.preset) for run in grid} == {(5, "full")}
    assert planned.runs[0].config.train.betas == (0.5, 0.9)
    told = invoke("bench", tmp_path / "study.toml", "--data", blocks_root, "--out", tmp_path / "runs", "--dry-run")
    assert "12 runs: 12 new" in told.stdout


def test_a_study_says_how_many_runs_it_lacks_for_want_of_datasets(blocks_root: Path, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        'datasets = ["blocks"]\n[[runs]]\nmodels = ["mlp", "cnn"]\nkinds = ["random"]\nseeds = 3\n'
        '[[runs]]\nmodels = ["beta-vae"]\ndatasets = ["celebglow", "mpi3d"]\ngrid = { "model.beta" = [1, 4] }\n'
    )
    told = invoke("bench", tmp_path / "study.toml", "--data", blocks_root, "--out", tmp_path / "runs", "--dry-run")
    assert "6 runs: 6 new\n" in told.stdout
    assert "16 runs more if these were there: celebglow 8, mpi3d 8\n" in told.stdout  # of each 2 settings × 4 kinds
    paper = read_study(ROOT / "studies/paper.toml")
    planned = plan_study(paper, blocks_root, tmp_path / "runs")
    assert not planned.runs
    assert runs_of_absent(paper, planned).startswith("2,160 runs more if these were there: dsprites 540, ")


def test_a_study_says_where_and_options_overrule_it(blocks_root: Path, tmp_path: Path) -> None:
    """Its paths begin where it lies, and not where the command runs."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "stores").symlink_to(blocks_root)
    where = 'data = "stores"\nout = "runs"\ncluster = "there.toml"\n'
    (folder / "study.toml").write_text(where + STUDY)
    (folder / "there.toml").write_text('engine = "slurm"\nworkers = 4\n')
    told = invoke("bench", folder / "study.toml", "--dry-run", "--json")
    assert {Path(run["folder"]).is_relative_to(folder / "runs") for run in json.loads(told.stdout)["runs"]} == {True}
    told = invoke("bench", folder / "study.toml", "--dry-run", "--out", tmp_path / "mine", "--json")
    assert {Path(run["folder"]).is_relative_to(tmp_path / "mine") for run in json.loads(told.stdout)["runs"]} == {True}
    told = invoke("bench", folder / "study.toml", "--cluster", tmp_path / "here.toml")
    assert told.stderr.startswith(f"ood-data: {tmp_path / 'here.toml'} is not a file: a cluster in TOML is expected")
    (folder / "there.toml").write_text('engine = "slrum"\nworkers = 4\n')
    told = invoke("bench", folder / "study.toml")
    assert told.returncode == 2
    assert f"{folder / 'there.toml'}: 1 mistake\n  engine: 'slurm' or 'dask' is expected" in told.stderr


@pytest.mark.parametrize(
    "before, after, words",
    [
        ('"mlp", "cnn"', '"mlpp"', "study.toml: runs[0]: unknown model 'mlpp'; did you mean 'mlp'"),
        ("kinds =", "kind =", "runs[0].kind: unknown key; did you mean 'kinds'"),
        ("kinds =", "int =", "2 mistakes\n  runs[0].int: unknown key; known: 'datasets'"),
        ('"train.steps" = 5', '"train.stepz" = 5', "study.toml: runs[1]: unknown setting 'train.stepz'"),
        ("seeds = [0, 3]", "seeds = 0", "seeds: a number of seeds, or a list such as [0, 3], is expected, got 0"),
        ("seeds = [0, 3]", 'seeds = "0,3"', "seeds: a number of seeds, or a list such as [0, 3], is expected, got '0,3'"),
        ("seeds = [0, 3]", 'seeds = [0, "a"]', "1 mistake\n  seeds[1]: a whole number is expected, got 'a'"),
        ('"train.steps" = 5', '"train.steps" = { a = 1 }', '"train.steps": a boolean, a number, a string or a list is expected'),
        ("[1, 4.0]", "[1, 1.0]", "the study has the same run twice: blocks, random, beta-vae, seed 0"),
        ("[[runs]]", "[[runs", "is not TOML"),
    ],
)
def test_a_wrong_study_is_told_in_a_line(blocks_root: Path, tmp_path: Path, before: str, after: str, words: str) -> None:
    assert before in STUDY
    (tmp_path / "study.toml").write_text(STUDY.replace(before, after))
    done = invoke("bench", tmp_path / "study.toml", "--data", blocks_root)
    assert done.returncode == 2
    assert words in done.stderr


def test_a_study_is_made_and_continued(blocks_root: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(STUDY.replace('["mlp", "cnn"]', '["mlp"]').replace("[1, 4.0]", "[1]").replace("[2, 3]", "[2]"))
    where = ("--data", blocks_root, "--out", tmp_path / "runs", "--jobs", 1, "--json")
    done = invoke("bench", study, *where)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["runs"]) == 5
    shutil.rmtree(next((tmp_path / "runs/blocks/random/mlp").iterdir()))
    assert "4 done, 1 new" in invoke("bench", study, *where[:4], "--dry-run").stdout


def test_a_users_model_is_not_run_for_its_record(runs: Path, tmp_path: Path) -> None:
    before = ROOT / "tests/golden/before/runs/blocks/extrapolation/my_network.build"
    record = ResultRecord.of(next(before.iterdir()))
    assert "--model my_network:build" in record.command
    assert command_of(record.setup) == record.command


def test_a_record_does_not_choose_what_code_is_run(blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_network.py").write_text("open('imported', 'w').close()\n")
    before = ROOT / "tests/golden/before/runs/blocks/extrapolation/my_network.build"
    ResultRecord.of(next(before.iterdir())).write(tmp_path / "record.json")
    done = invoke("bench", "replay", "record.json", "--data", blocks_root, "--out", tmp_path / "replays")
    assert done.returncode == 2
    assert "is not replayed, as that would run its code" in done.stderr
    assert not (tmp_path / "imported").exists()


def test_the_leaderboard_is_what_the_records_say() -> None:
    """README and docs have what docs/leaderboard.py makes, which is what `ood-data report results/` prints."""
    spec = importlib.util.spec_from_file_location("leaderboard", ROOT / "docs/leaderboard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, text in module.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is older than results/: run make leaderboard"
    rows = collect(ROOT / "results")
    page = (ROOT / "docs/leaderboard.md").read_text(encoding="utf-8")
    assert all(f"| {' | '.join(line)} |" in page for line in score_table(rows))


def test_the_records_of_this_project_are_whole(tmp_path: Path) -> None:
    told = invoke("results", "check", ROOT / "results")
    assert told.returncode == 0, told.stdout
    records = [ResultRecord.read(path) for path in files(ROOT / "results")]
    assert all(record.setup.commit and "changes" not in record.setup.commit for record in records)
    assert {record.scores.protocol.model for record in records} == {1}


def test_a_run_that_has_no_record_keeps_no_other_from_having_one(blocks_root: Path, tmp_path: Path) -> None:
    where = ("--kind", "random", "--data", blocks_root, "--out", tmp_path / "runs")
    invoke("bench", "--model", "cnn", *where, "--set", "train.steps=0", "--set", "score.samples=10")
    invoke("bench", "--model", "mlp", *where, "--set", "train.steps=2", "--set", "score.samples=10")
    assert (
        invoke("results", "submit", tmp_path / "runs", "--to", tmp_path / "one").returncode == 0
    )  # nothing trained, nothing logged
    next((tmp_path / "runs/blocks/random/mlp").glob("*/log.jsonl")).unlink()
    told = invoke("results", "submit", tmp_path / "runs", "--to", tmp_path / "two")
    assert told.returncode == 1
    assert "left out: " in told.stdout
    assert "log.jsonl is missing" in told.stdout
    assert [path.parts[-2] for path in (tmp_path / "two").rglob("*.json")] == ["cnn"]


MINE = """
from torch import nn


def build(in_channels, num_outputs, width=None, table={"a": 1}, some=(1, None), plain=3):
    return nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(16 * in_channels, num_outputs))
"""


def test_an_option_whose_default_no_command_can_say(blocks_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none_model.py").write_text(MINE)
    told = invoke("bench", "--settings", "none_model:build")
    assert told.returncode == 0, told.stderr
    words = " ".join(told.stdout.split())
    assert "model.width None any an option of none_model:build, see below; this value can be replaced, but not written" in words
    assert words.count("but not written") == 2  # nor (1, None)
    assert "model.table {a = 1} dict" in words
    settings = json.loads(invoke("bench", "--settings", "none_model:build", "--json").stdout)["settings"]
    assert {each["key"]: each["value"] for each in settings}["model.width"] is None

    few = ("--set", "train.steps=2", "--set", "score.samples=10", "--data", blocks_root, "--kind", "random")
    done = invoke("bench", "--model", "none_model:build", *few, "--set", "model.table={a = 2}", "--out", "runs")
    assert done.returncode == 0, done.stderr
    assert invoke("results", "submit", "runs", "--to", "res").returncode == 0
    record = ResultRecord.read(files(tmp_path / "res")[0])
    assert "model.width" not in record.command
    assert "model.some" not in record.command
    again = invoke(*shlex.split(record.command)[1:], "--data", blocks_root, "--out", "runs", "--dry-run")
    assert "1 run: 1 done" in again.stdout


def test_a_run_that_no_command_makes_again_keeps_no_other_from_having_a_record(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    odd, torn = sorted((tmp_path / "runs/blocks/random/mlp").iterdir())
    config = json.loads((odd / "config.json").read_text())
    config["config"]["model"]["widths"] = None
    (odd / "config.json").write_text(json.dumps(config))
    (torn / "log.jsonl").write_text('{"phase": "train", "step": 2}\n')
    told = invoke("results", "submit", tmp_path / "runs", "--to", tmp_path / "res")
    assert told.returncode == 1
    assert "left out: no command makes a run of mlp again that has model.widths: None can't be written as a setting" in told.stdout
    assert "log.jsonl is missing or damaged (loss: Field required)" in told.stdout
    assert len(files(tmp_path / "res")) == 6
    path = files(tmp_path / "res")[0]
    record = json.loads(path.read_text())
    record["setup"]["config"]["model"] = dict.fromkeys(record["setup"]["config"]["model"])
    path.write_text(json.dumps(record))
    assert "can't be written as a setting" in problem_of(path, tmp_path / "res")


def test_a_date_is_the_word_that_was_written() -> None:
    assert parse_override("model.when=2020-01-01") == ("model.when", "2020-01-01")
    assert override_value("2020-01-01") == "2020-01-01"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["study.toml", "--model", "mlp"], "a study says itself what it runs: study.toml has keys for that"),
        (["my_model.py"], "did you mean `ood-data bench --model my_model:build`?"),
        (["--model", "my_model.py"], "a model of your own is module:function: did you mean my_model:build?"),
    ],
)
def test_a_slip_about_studies_and_files_is_told(arguments: list[str], words: str) -> None:
    told = invoke("bench", *arguments)
    assert told.returncode == 2
    assert words in told.stderr
