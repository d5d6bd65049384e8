"""Documents of strangers: what is wrong is named in a line, and is all that is left out."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.bench.estimate import _measured
from harness.report.collect import collect
from harness.runs.records import RunScores, RunSetup
from splits.errors import InputError

BEFORE = Path(__file__).parent / "golden/before/runs"
SCORES = next(BEFORE.glob("blocks/extrapolation/mlp/*/scores.json"))
Change = Callable[[dict[str, Any]], object]


def renamed_factor(name: str) -> Change:
    def change(scores: dict[str, Any]) -> None:
        for part in (*(scores[key] for key in ("r2", "r2_sklearn", "mse")), *scores["reference"].values()):
            part["factors"] = {name if old == "shape" else old: value for old, value in part["factors"].items()}

    return change


HOSTILE: dict[str, tuple[Change, str]] = {
    "dataset": (lambda s: s.update(dataset="../../../evil"), "dataset: the dataset: '../../../evil' can't be a name"),
    "dataset of 5,000": (lambda s: s.update(dataset="x" * 5000), "a name of at most 100 bytes"),
    "dataset is a number": (lambda s: s.update(dataset=5), "dataset: Input should be a valid string"),
    "formula": (lambda s: s.update(model='=HYPERLINK("http://127.0.0.1/","x")'), "model: the model: '=HYPERLINK"),
    "script": (lambda s: s.update(model="<script>alert(1)</script>"), "can't be a name, as it holds '<'"),
    "kind": (lambda s: s.update(kind="extrapolate"), "kind: Input should be 'random', 'composition'"),
    "preset": (lambda s: s.update(preset="<b>"), "preset: Input should be 'quick' or 'full'"),
    "factor": (renamed_factor("$\\frac{$"), "can't be a name"),
    "factors differ": (renamed_factor("colour"), "its parts are of different factors"),
    "10,000 factors": (lambda s: s["r2"].update(factors={f"f{i}": 0.5 for i in range(10_000)}), "1 to 100 factors are expected"),
    "no factors": (lambda s: s["r2"].pop("factors"), "r2.factors: Field required"),
    "r2 is a number": (lambda s: s.update(r2=5), "r2: Input should be a valid dictionary"),
    "r2 is true": (lambda s: s["r2"].update(mean=True), "r2.mean: Input should be a valid number"),
    "r2 is text": (lambda s: s["r2"].update(mean="0.5"), "r2.mean: Input should be a valid number"),
    "r2 of 1e308": (lambda s: s["r2"].update(mean=1e308), "r2.mean: Input should be less than"),
    "seed": (lambda s: s.update(seed="x"), "seed: Input should be a valid integer"),
    "steps": (lambda s: s.update(steps=-1), "steps: Input should be greater than"),
    "n_test": (lambda s: s.update(n_test=None), "n_test: Input should be a valid integer"),
    "no baselines": (lambda s: s.update(reference={}), "reference has no train_mean, ood_to_mean, clip"),
    "format": (lambda s: s.update(format=4), "is not of format 1 or 2 or 3"),
    "format is a list": (lambda s: s.update(format=[1]), "is not of format 1 or 2 or 3"),
    "format is true": (lambda s: s.update(format=True), "is not of format 1 or 2 or 3"),
    "group": (lambda s: s["modularity"].update(colour={"ood": 1.0, "id": 1.0}), "a factor is scored by groups"),
    "device": (lambda s: s.update(device="\x1b[2J"), "which no line can show"),
}
RAW = {
    "nested": b"[" * 10**5 + b"]" * 10**5,
    "cut": SCORES.read_bytes()[:100],
    "empty": b"",
    "binary": b"\xff\xfe\0",
    "a list": b"[]",
    "many digits": b'{"format": ' + b"1" * 10**6 + b"}",
    "NaN": SCORES.read_bytes().replace(b'"seed": 0', b'"seed": NaN'),
    "infinity": b'{"format": 1e400}',
}


def refused(path: Path, expected: str) -> None:
    with pytest.raises(InputError) as error:
        RunScores.read(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert expected in message
    assert message.endswith("delete the folder and bench again")
    assert message.isprintable()
    assert len(message) - len(str(path)) < 400


@pytest.mark.parametrize("case", HOSTILE)
def test_a_wrong_value_is_named(tmp_path: Path, case: str) -> None:
    change, expected = HOSTILE[case]
    scores = json.loads(SCORES.read_bytes())
    change(scores)
    (tmp_path / "scores.json").write_text(json.dumps(scores))
    refused(tmp_path / "scores.json", expected)


@pytest.mark.parametrize("case", RAW)
def test_what_is_no_document_is_named(tmp_path: Path, case: str) -> None:
    (tmp_path / "scores.json").write_bytes(RAW[case])
    refused(tmp_path / "scores.json", "is not ")


def test_a_file_that_has_no_end_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "scores.json")
    refused(tmp_path / "scores.json", "is not a file")
    (tmp_path / "huge.json").touch()
    os.truncate(tmp_path / "huge.json", 2**40)
    refused(tmp_path / "huge.json", "1,099,511,627,776 bytes")


def test_one_bad_file_is_all_that_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = shutil.copytree(BEFORE, tmp_path / "runs")
    bad, other, third = sorted(runs.glob("blocks/*/mlp/*/scores.json"))[:3]
    bad.write_bytes(RAW["nested"])
    other.unlink()
    other.mkdir()
    third.with_name("config.json").write_text('{"config": [], "images": 1}')
    assert sum(len(row.runs) for row in collect(runs)) == 6 - 2
    warnings = [record.getMessage() for record in caplog.records]
    assert [message.partition(":")[0] for message in warnings] == ["left out", "left out", "its settings are left out"]
    for path, message in zip((bad, other, third.with_name("config.json")), warnings, strict=True):
        assert str(path) in message


def test_a_bad_file_tells_nothing_of_the_time(tmp_path: Path) -> None:
    runs = shutil.copytree(BEFORE, tmp_path / "runs")
    folders = sorted(path.parent for path in runs.glob("blocks/*/mlp/*/scores.json"))
    whole = _measured(runs)
    assert {key[-1] for key in whole} == {"train", "score"}
    for folder, name, content in zip(
        folders,
        ("scores.json", "config.json", "log.jsonl", "log.jsonl"),
        (RAW["nested"], RAW["many digits"], RAW["nested"], b'{"phase": "train", "step": 0, "seconds": 1}\n'),
        strict=False,
    ):
        (folder / name).write_bytes(content)
    assert _measured(runs).keys() < whole.keys()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for name, kind in (("scores.json", RunScores), ("config.json", RunSetup)):
        document = kind.read(SCORES.with_name(name))
        document.write(tmp_path / name)
        assert json.loads((tmp_path / name).read_bytes())["format"] == 3
        assert kind.read(tmp_path / name) == document


def test_settings_of_strangers_are_shown_as_a_line() -> None:
    setup = RunSetup.read(SCORES.with_name("config.json"))
    config = setup.config.__class__(preset="quick", model={"a\nb": ["\x1b[2J"]})
    shown = setup.model_copy(update={"config": config}).settings()
    assert "model.a?b" in shown
    assert all(text.isprintable() for item in shown.items() for text in item)
