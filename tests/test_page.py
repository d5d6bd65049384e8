"""What the report's page knows: intervals and ranks, collapse to seen values, answers as the runs keep them, and nothing beyond its size."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import splits
from harness.models import MODELS
from harness.report import payload as payload_module
from harness.report.collapse import collapse
from harness.report.collect import collect
from harness.report.colors import ORDER, PALETTE
from harness.report.html import report
from harness.report.intervals import Interval, interval, ranks
from harness.report.leaderboard import LeaderboardRow, leaderboard
from harness.report.page import PARTS, SCRIPTS, script
from harness.report.payload import payload
from harness.report.sprites import is_dsprites, sheet
from harness.runs.maps import MAPS, RunMaps
from harness.runs.records import RunScores
from helpers.finished import write_run
from helpers.small import write_blocks

LONGEST = 300  # lines of a module


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on dSprites: one that answers as clip does, one that overshoots, one with an error of .1, and a record-like one without maps."""
    folder = tmp_path_factory.mktemp("runs")
    write_run(folder, "dsprites", "extrapolation", "cnn", lambda targets: np.minimum(targets, [1, 0.6, 31 / 39, 24 / 31, 24 / 31]))
    write_run(folder, "dsprites", "extrapolation", "pcl", lambda targets: targets * 1.3)
    write_run(folder, "dsprites", "random", "cnn", lambda targets: targets + 0.1)
    bare = write_run(folder, "dsprites", "extrapolation", "mlp", lambda targets: 0 * targets)
    (bare / MAPS).unlink()
    return folder


def index_of(path: Path) -> dict[str, list[dict[str, object]]]:
    found = re.search(r'id="index">(.*?)</script>', path.read_text(), re.S)
    assert found
    index: dict[str, list[dict[str, object]]] = json.loads(found[1])
    return index


def test_a_model_that_answers_seen_values_is_pulled_back_and_one_that_overshoots_is_not(runs: Path) -> None:
    clip, over = (collapse(RunMaps.read(next(runs.glob(f"dsprites/extrapolation/{model}/*/{MAPS}")))) for model in ("cnn", "pcl"))
    assert clip[0] is over[0] is None  # no shape is held out
    for back, beyond in zip(clip[1:], over[1:], strict=True):
        assert back is not None
        assert beyond is not None
        assert (back["back"], back["beyond"]) == (1, 0)
        assert beyond["back"] == 0
        assert beyond["beyond"] > 0.4
        assert sum(n for _, _, n in back["by_steps"]) == back["n"]
    random = collapse(RunMaps.read(next(runs.glob(f"dsprites/random/cnn/*/{MAPS}"))))
    assert random == [None] * 5


def test_the_page_has_the_answers_of_the_runs(runs: Path) -> None:
    made = payload(collect(runs), None)
    about = made.index["splits"][0]
    assert (about["dataset"], about["kind"], about["draws"]) == ("dsprites", "extrapolation", True)  # extrapolation comes first
    rows = {row["label"]: row for row in made.index["rows"] if row["split"] == 0}
    assert "answers" not in rows["mlp"]
    content = gzip.decompress(base64.b64decode(made.blobs["answers-0"]))
    for label in ("cnn", "pcl"):
        maps = RunMaps.read(next(runs.glob(f"dsprites/extrapolation/{label}/*/{MAPS}")))
        size = len(content) // 2
        own = content[rows[label]["answers"] * size :][: maps.answers.nbytes]
        assert own == maps.answers.tobytes()
    assert rows["cnn"]["log"][0] == ["train", 100, 0.01]


def test_what_has_no_room_is_left_out(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_module, "MOST_BYTES", 40_000)
    made = payload(collect(runs), None)
    kept = [row["label"] for row in made.index["rows"] if row["split"] == 0 and "answers" in row]
    assert kept == [next(row["label"] for row in made.index["rows"] if "answers" in row)]  # the best of two


def test_damaged_maps_leave_the_rest(runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = shutil.copytree(runs, tmp_path / "runs")
    next(folder.glob(f"*/extrapolation/cnn/*/{MAPS}")).write_bytes(b"{")
    report(collect(folder), tmp_path / "report")
    rows = {row["label"]: row for row in index_of(tmp_path / "report/index.html")["rows"] if row["split"] == 0}
    assert "answers" not in rows["cnn"]
    assert "answers" in rows["pcl"]
    assert "left out" in caplog.text


def test_pictures_come_from_the_store_of_the_same_grid_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import harness

    data = harness.open("blocks", write_blocks(tmp_path))
    drawn = sheet(data, np.arange(len(data)))
    assert drawn.webp[8:12] == b"WEBP"
    assert (drawn.side, drawn.columns) == (data.images.shape[1], 64)
    assert is_dsprites(splits.load_spec("dsprites"))
    assert not is_dsprites(data.spec)
    write_run(tmp_path / "runs", "celebglow", "extrapolation", "cnn", lambda targets: targets)
    made = payload(collect(tmp_path / "runs"), tmp_path)
    assert made.index["splits"][0]["sheet"] is None
    assert "celebglow is shown without pictures" in caplog.text


def of_seeds(scores: RunScores, *means: float) -> LeaderboardRow:
    runs = [
        scores.model_copy(update={"seed": seed, "r2": scores.r2.model_copy(update={"mean": mean})})
        for seed, mean in enumerate(means)
    ]
    return leaderboard(runs)[0]


def test_intervals_say_what_they_are_over(runs: Path) -> None:
    folder = next(runs.glob("dsprites/extrapolation/cnn/*"))
    scores, maps = RunScores.read(folder / "scores.json"), RunMaps.read(folder / MAPS)
    found = interval(of_seeds(scores, 0.4, 0.5, 0.6), maps)
    assert found.half == pytest.approx(4.303 * 0.1 / 3**0.5)
    assert "3 seeds" in found.how
    alone = interval(of_seeds(scores, 0.5), maps)
    assert maps.sampling.mean is not None
    assert alone.half == pytest.approx(1.96 * maps.sampling.mean)
    assert "1 seed" in alone.how
    assert "1,000 test images" in alone.how
    unknown = interval(of_seeds(scores, 0.5), None)
    assert np.isnan(unknown.half)


def test_models_that_nothing_tells_apart_share_ranks(runs: Path) -> None:
    scores = RunScores.read(next(runs.glob("dsprites/extrapolation/cnn/*/scores.json")))
    rows = [of_seeds(scores, 0.80, 0.81, 0.82), of_seeds(scores, 0.79, 0.80, 0.81), of_seeds(scores, 0.30, 0.31, 0.32)]
    assert ranks(rows, [interval(row, None) for row in rows]) == [(1, 2), (1, 2), (3, 3)]
    single = [of_seeds(scores, 0.80), of_seeds(scores, 0.798), of_seeds(scores, 0.7)]
    assert ranks(single, [Interval(0.01, "")] * 3) == [(1, 2), (1, 2), (3, 3)]


def test_a_model_of_which_nothing_is_known_has_no_rank(runs: Path) -> None:
    scores = RunScores.read(next(runs.glob("dsprites/extrapolation/cnn/*/scores.json")))
    rows = [of_seeds(scores, 0.80, 0.81, 0.82), of_seeds(scores, 0.7), of_seeds(scores, 0.30, 0.31, 0.32)]
    assert ranks(rows, [interval(row, None) for row in rows]) == [(1, 2), None, (2, 3)]


def test_every_model_has_a_colour_of_its_own() -> None:
    assert set(ORDER) == set(MODELS)
    assert len(set(PALETTE)) == len(PALETTE) > len(ORDER)


def test_the_page_is_made_of_files_that_are_all_in_it() -> None:
    assert {path.name for path in PARTS.iterdir()} == {*SCRIPTS, "page.css", "body.html"}
    code = script()
    assert "</script" not in code
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|fetch\(", code)
    assert all((PARTS / name).read_text().count("\n") <= LONGEST for name in SCRIPTS)
