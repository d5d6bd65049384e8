"""Reports: what is averaged, what is shown beside it, a page that needs nothing else."""

from __future__ import annotations

import csv
import json
import re
import shutil
import statistics
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from harness.bench.execute import execute
from harness.bench.plan import plan as plan_bench
from harness.report import figures, html
from harness.report.collect import collect
from harness.report.colors import colors_of
from harness.report.html import report
from harness.report.leaderboard import PUBLISHED, leaderboard, mixtures
from harness.report.tables import overviews, score_table, score_text
from harness.runs.presets import Settings
from harness.runs.records import Protocol, RunScores
from harness.scoring.baselines import baselines
from helpers.commands import CommandLine, assert_one_clear_line, invoke
from helpers.finished import named
from splits import load_spec

TINY = ["train.steps=3", "train.batch=16", "readout.steps=3", "train.precision=fp32"]


@pytest.fixture(scope="module")
def runs(blocks_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished runs of two models, two kinds, three seeds."""
    out = tmp_path_factory.mktemp("runs")
    kinds = ["composition", "extrapolation"]
    plan = plan_bench(["mlp", "pcl"], blocks_root, out, kinds=kinds, seeds=3, settings=Settings(overrides=tuple(TINY)))
    outcomes = execute(plan.runs, torch.device("cpu"), jobs=1, progress=False)
    assert not any(outcome.error for outcome in outcomes)
    return out


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br", "html"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "html":
            assert tag in self.open, tag
            while self.open.pop() != tag:
                pass


def test_means_and_deviations_over_seeds(runs: Path) -> None:
    rows = collect(runs)
    assert [(row.kind, len(row.runs)) for row in rows] == [("composition", 3)] * 2 + [("extrapolation", 3)] * 2
    row = rows[0]
    scores = [json.loads(path.read_text()) for path in sorted((runs / "blocks/composition" / row.model).glob("*/scores.json"))]
    values = [run["r2"]["mean"] for run in scores]
    assert row.r2 == row.mean(lambda run: run.r2.mean) == pytest.approx(statistics.mean(values))
    assert row.deviation(lambda run: run.r2.mean) == pytest.approx(statistics.stdev(values))
    assert rows[0].r2 >= rows[1].r2  # best first


def test_published_numbers_stand_beside_ours(runs: Path) -> None:
    scores = RunScores.read(next((runs / "blocks/extrapolation/pcl").glob("*/scores.json")))
    full = scores.model_copy(update={"dataset": "dsprites", "preset": "full"})
    (row,) = leaderboard([full], plain=[scores.fingerprint])
    assert row.published == 0.667
    assert leaderboard([full])[0].published is None  # with other settings than the preset's
    assert leaderboard([full.model_copy(update={"preset": "quick"})], plain=[scores.fingerprint])[0].published is None
    header, line, *baselines = score_table([row])
    assert line[header.index("published")] == "0.667"
    assert [baseline[2] for baseline in baselines] == ["(train-mean)", "(ood-to-mean)", "(clip)"]
    assert sum(len(models) for models in PUBLISHED.values()) == 6


def test_baselines_on_train_are_told_if_one_score_has_them(runs: Path) -> None:
    """Scores of before lack them: what they are does not depend on the order of a table."""
    scores = RunScores.read(next((runs / "blocks/extrapolation/pcl").glob("*/scores.json")))
    old = {name: baseline.model_copy(update={"train": None}) for name, baseline in scores.reference.items()}
    before = scores.model_copy(update={"model": "cnn", "reference": old})
    assert {row.first.reference["clip"].train is None for row in leaderboard([before, scores])} == {True, False}
    header, *lines = score_table(leaderboard([before, scores]))
    assert [line[header.index("R² train")] for line in lines if line[2] in ("(clip)", "(ood-to-mean)")] == ["1.000"] * 2
    assert score_table(leaderboard([before]))[-1][header.index("R² train")] == ""


def test_runs_of_another_config_are_another_row(runs: Path) -> None:
    scores = RunScores.read(next((runs / "blocks/extrapolation/pcl").glob("*/scores.json")))
    others = [scores.model_copy(update=change) for change in ({"seed": 7}, {"fingerprint": "bbbb"})]
    assert [len(row.runs) for row in leaderboard([scores, *others])] == [2, 1]


def test_rows_of_one_model_say_in_what_they_differ(blocks_root: Path, tmp_path: Path) -> None:
    for settings in (["model.beta=1"], ["model.beta=2"], ["model.beta=2", "train.batch=8"]):
        chosen = Settings(overrides=(*TINY, *settings))
        plan = plan_bench(["beta-vae"], blocks_root, tmp_path, kinds=["random"], settings=chosen)
        execute(plan.runs, torch.device("cpu"), jobs=1, progress=False)
    labels = {row.label for row in collect(tmp_path)}
    assert labels == {f"beta-vae (beta={beta}, train.batch={batch})" for beta, batch in ((1.0, 16), (2.0, 16), (2.0, 8))}
    (next(tmp_path.glob("*/*/*/*/config.json"))).write_text("{")  # a hash is better than nothing
    assert len({row.label for row in collect(tmp_path)}) == 3
    report(collect(tmp_path), tmp_path / "report")
    assert "beta-vae (" in (tmp_path / "report/index.html").read_text()


def test_grids_of_one_name_are_told_apart(blocks_root: Path, runs: Path, tmp_path: Path) -> None:
    """As CelebGlow of other people or attributes: each has its own references, and each factor's scores are below its name."""
    shutil.copytree(runs, tmp_path / "runs")
    folder = next((tmp_path / "runs/blocks/composition/mlp").glob("0-*"))
    larger, renamed = (shutil.copytree(folder, folder.with_name(f"0-{name}")) for name in ("0123abcd", "4567abcd"))
    for name, change in (("config.json", {"images": 1000}), ("scores.json", {"fingerprint": "0123abcd"})):
        (larger / name).write_text(json.dumps(json.loads((larger / name).read_text()) | change))
    scores = (renamed / "scores.json").read_text().replace('"brightness"', '"age"')
    (renamed / "scores.json").write_text(json.dumps(json.loads(scores) | {"fingerprint": "4567abcd"}))
    rows = [row for row in collect(tmp_path / "runs") if (row.kind, row.model) == ("composition", "mlp")]
    factors = {row.dataset: list(row.first.r2.factors) for row in rows}
    assert factors == {
        "blocks": (names := ["shape", "brightness", "x-position", "y-position"]),
        "blocks (1,000 images of shape, brightness, x-position, y-position)": names,
        "blocks (200 images of shape, age, x-position, y-position)": ["shape", "age", "x-position", "y-position"],
    }
    assert all(list(row.first.reference["clip"].factors) == factors[row.dataset] for row in rows)
    (larger / "config.json").unlink()  # so nothing says how many images there were
    assert len({row.dataset for row in collect(tmp_path / "runs")}) == 2
    told = invoke("report", tmp_path / "runs", "--out", tmp_path / "page")
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("(clip)") == 3


def test_splits_of_one_name_are_told_apart(runs: Path, tmp_path: Path) -> None:
    """As those of a dataset of one's own, whose held-out values were changed: what baselines score tells them apart."""
    shutil.copytree(runs, tmp_path / "runs")
    folder = next((tmp_path / "runs/blocks/extrapolation/mlp").glob("0-*"))
    changed = shutil.copytree(folder, folder.with_name("0-0123abcd"))
    scores = json.loads((changed / "scores.json").read_text()) | {"fingerprint": "0123abcd"}
    clip = scores["reference"]["clip"]
    clip["mean"], clip["factors"]["brightness"] = 0.321, clip["factors"]["brightness"] - 0.1
    (changed / "scores.json").write_text(json.dumps(scores))
    rows = [row for row in collect(tmp_path / "runs") if (row.kind, row.model) == ("extrapolation", "mlp")]
    assert [(row.dataset, row.label, len(row.runs)) for row in rows] == [
        ("blocks", "mlp", 3),
        ("blocks (another split, 2)", "mlp", 1),
    ]
    told = invoke("report", tmp_path / "runs", "--out", tmp_path / "page")
    assert told.returncode == 0, told.stderr
    assert "± is the standard deviation over seeds." in told.stdout
    for written in (told.stdout, (tmp_path / "page/scores.csv").read_text()):
        (line,) = [
            line for line in written.splitlines() if "another split" in line and "(clip)" in line and "extrapolation" in line
        ]
        assert "0.321" in line


def test_numbers_as_text() -> None:
    values = [score_text(0.12345), score_text(0.1, 0.02), score_text(None), score_text(float("nan")), score_text(-0.0001)]
    assert values == ["0.123", "0.100 ± 0.020", "–", "–", "0.000"]
    assert [score_text(-1e20), score_text(-1e20, 1e19)] == ["-1e+20", "-1e+20 ± 1e+19"]


def test_the_report_is_whole_and_needs_nothing_else(runs: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in report(collect(runs), tmp_path / "report")}
    assert set(files) == {
        "index.html", "scores.csv", "factors.csv",
        *(f"blocks-extrapolation-{name}.png" for name in ("leaderboard", "factors", "modularity", "distance")),
        *(f"blocks-composition-{name}.png" for name in ("leaderboard", "factors")),
    }  # fmt: skip
    assert all(content.startswith(b"\x89PNG") for name, content in files.items() if name.endswith(".png"))
    page = files["index.html"].decode()
    links = Links()
    links.feed(page)
    assert links.open == []
    assert all(link.startswith(("data:image/svg+xml;base64,", "#")) for link in links.found)
    assert not re.search(r"url\(|@import|<link|https?://(?!www\.w3\.org/2000/svg)", page)
    assert "prefers-color-scheme: dark" in page
    assert "Some runs are of the preset quick" in page
    scores = list(csv.DictReader(files["scores.csv"].decode().splitlines()))
    assert [line["model"] for line in scores if line["model"].startswith("(")] == ["(train-mean)", "(ood-to-mean)", "(clip)"] * 2
    means = {(row.kind, row.model, row.fingerprint): row.r2 for row in collect(runs)}
    assert means == {(row["kind"], row["model"], row["config"]): float(row["r2"]) for row in scores if row["config"]}
    assert {row["steps"] for row in scores if row["config"]} == {"3"}
    lines = list(csv.DictReader(files["factors.csv"].decode().splitlines()))
    assert len(lines) == 2 * 2 * 3 * 4
    line = next(
        line for line in lines if line["model"] == "mlp" and line["kind"] == "extrapolation" and line["factor"] == "x-position"
    )
    folder = runs / "blocks/extrapolation/mlp" / f"{line['seed']}-{line['config']}"
    assert float(line["r2"]) == json.loads((folder / "scores.json").read_text())["r2"]["factors"]["x-position"]


def test_the_same_runs_give_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    one, two = ([path.read_bytes() for path in report(collect(runs), tmp_path / name)] for name in ("one", "two"))
    assert one == two


def test_the_command(ood_data: CommandLine, runs: Path, tmp_path: Path) -> None:
    done = ood_data("report", runs, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert "(ood-to-mean)" in done.stdout
    assert (tmp_path / "report/index.html").exists()
    (tmp_path / "empty").mkdir()
    assert_one_clear_line(ood_data("report", tmp_path / "empty", "--out", tmp_path / "x"), 1, "no finished run", "ood-data bench")
    broken = tmp_path / "broken/a/b/c/0-d"
    broken.mkdir(parents=True)
    (broken / "scores.json").write_text("{")
    only = ood_data("report", tmp_path / "broken", "--out", tmp_path / "x")
    assert_one_clear_line(only, 1, "is not JSON", "bench again", "no finished run")


BEFORE = Path(__file__).parent / "golden/before/runs"
MARKUP = '<script>alert(1)</script>"><img src=x onerror=alert(1)>$\\frac{$'


def test_names_are_escaped_where_they_are_written(tmp_path: Path) -> None:
    """Though the reader refuses such ones: what checks a name and what writes it are two places."""
    scores = RunScores.read(next(BEFORE.glob("blocks/extrapolation/mlp/*/scores.json")))
    hostile = named(scores, MARKUP)
    formula = scores.model_copy(update={"model": '=HYPERLINK("http://127.0.0.1/","x")'})
    report(leaderboard([hostile, formula]), tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert MARKUP[:8] not in page.replace('<script>"use strict"', "")
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page
    assert "\\u003cscript>" in page  # in the page's index
    lines = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert {line["model"] for line in lines if line["config"]} == {MARKUP, '\'=HYPERLINK("http://127.0.0.1/","x")'}
    assert any(float(line["r2"]) < 0 for line in lines)  # a number may begin with −


def test_an_old_report_leaves_no_pictures(tmp_path: Path) -> None:
    rows = collect(BEFORE)
    report(rows, tmp_path)
    old = {path.name for path in tmp_path.iterdir()}
    foreign = {"mine.png": b"\x89PNG", "our-random-factors.png": b"\x89PNG of mine", "notes.partial": b""}
    for name, content in foreign.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "blocks-composition-factors.png.partial").touch()  # killed meanwhile
    files = report([row for row in rows if row.kind == "extrapolation"], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in files} | set(foreign)
    assert old - {path.name for path in files} == {f"blocks-composition-{name}.png" for name in ("leaderboard", "factors")}


def test_a_model_that_was_not_trained_says_so() -> None:
    scores = RunScores.read(next(BEFORE.glob("blocks/extrapolation/mlp/*/scores.json")))
    (row,) = leaderboard([scores.model_copy(update={"steps": 0})])
    assert row.label == "mlp (untrained)"
    assert score_table([row])[1][2] == "mlp (untrained)"


def test_a_row_that_was_not_trained_renames_no_other() -> None:
    scores = RunScores.read(next(BEFORE.glob("blocks/extrapolation/mlp/*/scores.json")))
    untrained = scores.model_copy(update={"steps": 0, "fingerprint": "bbbb"})
    settings = {scores.fingerprint: {"train.steps": "3"}, "bbbb": {"train.steps": "0"}}
    assert {row.label for row in leaderboard([scores, untrained], configs=settings)} == {"mlp", "mlp (untrained)"}


def test_references_that_are_always_right_and_an_empty_column_take_no_room() -> None:
    rows = [row for row in collect(BEFORE) if row.kind == "composition"]
    header, *lines = score_table(rows)
    assert "published" not in header
    assert [line[2] for line in lines if line[2].startswith("(")] == ["(train-mean)"]
    assert all(len(line) == len(header) for line in lines)


def test_versions_of_a_users_code_have_colours_of_their_own_and_say_when_they_came() -> None:
    scores = RunScores.read(next(BEFORE.glob("blocks/extrapolation/mlp/*/scores.json")))
    versions = [scores.model_copy(update={"model": "my:build", "fingerprint": name}) for name in ("ffff", "0000", "8888")]
    when = {"ffff": 0.0, "8888": 86_400.0, "0000": 86_460.0}
    rows = {row.fingerprint: row for row in leaderboard(versions, finished=when)}
    assert rows["ffff"].label == "my:build (version 1 of 3, 1970-01-01 00:00 UTC)"
    assert rows["0000"].label == "my:build (version 3 of 3, 1970-01-02 00:01 UTC)"
    assert len(set(colors_of(list(rows.values())))) == 3
    unknown = {row.fingerprint: row for row in leaderboard(versions, finished={"ffff": 0.0})}
    assert unknown["8888"].label == "my:build (8888)"


def test_a_models_colour_is_its_own_and_what_is_cut_is_marked() -> None:
    scores = RunScores.read(next(BEFORE.glob("blocks/extrapolation/mlp/*/scores.json")))
    far = scores.model_copy(update={"r2": scores.r2.model_copy(update={"mean": -7.5}), "model": "pcl"})
    alone, both = leaderboard([scores]), leaderboard([scores, far])
    assert colors_of(alone)[0] == colors_of(both)[[row.model for row in both].index("mlp")]
    drawn = figures.render(figures.leaderboard(both), "svg").decode()
    assert "◀ -7.50" in drawn
    assert "prefers-color-scheme:dark" in drawn
    assert figures.INK not in drawn.replace(f"--ink:{figures.INK}", "")


def test_a_copy_of_a_run_is_no_second_seed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    runs = shutil.copytree(BEFORE, tmp_path / "runs")
    before = [len(row.runs) for row in collect(runs)]
    folder = next(runs.glob("blocks/extrapolation/mlp/0-*"))
    RunScores.read(folder / "scores.json").write(folder / "scores.json")  # as it is written today
    shutil.copytree(folder, folder.with_name(f"{folder.name} copy"))
    assert [len(row.runs) for row in collect(runs)] == before
    assert "is a copy of another run of the same seed" in caplog.text


def test_pictures_of_many_rows_show_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, title, _ = html.PICTURES["factors"]
    monkeypatch.setattr(html, "PICTURES", {"factors": (draw, title, 3)})
    scores = RunScores.read(next(BEFORE.glob("blocks/composition/mlp/*/scores.json")))
    rows = leaderboard(scores.model_copy(update={"fingerprint": f"{number:04}"}) for number in range(5))
    report(rows, tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "<h3>R² per factor, the best 3 of 5 rows</h3>" in page
    assert page.count("<td>mlp (") == 5  # each labelled with its config's hash, as nothing else is known of it


def test_a_picture_is_no_larger_than_can_be_drawn() -> None:
    assert figures.render(Figure(figsize=(1, 500)), "png").startswith(b"\x89PNG")  # as of 1,600 rows


def test_a_run_that_cant_be_read_is_left_out_of_the_report(runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(runs, tmp_path / "runs")
    file = next((tmp_path / "runs").glob("*/*/mlp/*/scores.json"))
    file.write_text('{"format": 0}')
    assert [len(row.runs) for row in collect(tmp_path / "runs")].count(2) == 1
    assert f"left out: {file} is not of format 1 or 2" in caplog.text


def test_a_config_has_one_label_on_all_kinds_of_split(runs: Path, tmp_path: Path) -> None:
    """Where another config of its model has been run on one kind only, it is still one row of the table over kinds."""
    shutil.copytree(runs, tmp_path / "runs")
    for folder in list((tmp_path / "runs/blocks/extrapolation/mlp").iterdir()):
        seed, fingerprint = folder.name.split("-")
        other = folder.with_name(f"{seed}-{fingerprint[::-1]}")
        shutil.copytree(folder, other)
        for name in ("scores.json", "config.json"):
            text = (other / name).read_text().replace(fingerprint, fingerprint[::-1])
            (other / name).write_text(re.sub(r'("hidden_layers"|"batch"): (\d+)', r"\1: 9\2", text))
    ((_, lines),) = [each for each in overviews(collect(tmp_path / "runs")) if each[0] == "blocks"]
    labels = [line[0] for line in lines if line[0].startswith("mlp")]
    assert len(labels) == 2
    assert [line.count("–") for line in lines if line[0].startswith("mlp")].count(0) == 1


def test_part_of_a_folder_of_runs_reports_as_the_whole_does(runs: Path, caplog: pytest.LogCaptureFixture) -> None:
    everything = collect(runs)
    assert collect(runs / "blocks") == everything
    folder = next(runs.glob("blocks/extrapolation/mlp/0-*"))
    (row,) = collect(folder)
    assert (row.kind, row.model, len(row.runs)) == ("extrapolation", "mlp", 1)
    assert caplog.text == ""


def test_what_makes_rows_less_comparable_is_said(runs: Path) -> None:
    scores = RunScores.read(next((runs / "blocks/extrapolation/pcl").glob("*/scores.json")))
    rows = leaderboard(
        [scores, scores.model_copy(update={"seed": 9, "device": "cpu (another)", "protocol": Protocol(model=2, score=2)})]
    )
    assert mixtures(rows[:0]) == []
    assert mixtures(leaderboard([scores])) == []
    other = scores.model_copy(update={"dataset": "small", "protocol": Protocol(model=scores.protocol.model, score=9)})
    assert mixtures(leaderboard([scores, other])) == []  # all images of a small dataset are scored
    assert mixtures(rows) == [
        f"These runs mix devices: {', '.join(sorted([scores.device, 'cpu (another)']))}; 1 average is over several of them.",
        "These runs mix versions of a model's protocol: pcl 1, pcl 2; 1 average is over several of them.",
        "These runs mix versions of scoring: 1, 2; 1 average is over several of them.",
    ]


def test_seeds_of_different_machines_are_told(ood_data: CommandLine, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    shutil.copytree(runs, out)
    config = next(out.glob("blocks/composition/mlp/1-*/config.json"))
    setup = json.loads(config.read_text())
    here = setup["versions"]["torch"]
    setup["versions"]["torch"] = "1.0"
    config.write_text(json.dumps(setup))
    line = f"These runs mix versions of torch: {', '.join(sorted(['1.0', here]))}; 1 average is over several of them."
    assert line in ood_data("report", out, "--out", tmp_path / "report").stdout
    assert line in (tmp_path / "report" / "index.html").read_text()


def test_baselines_have_their_train_side(runs: Path) -> None:
    """R² of a constant on train: dSprites' extrapolation has .342 (it was measured outside, with scikit-learn's means)."""
    reference = baselines(load_spec("dsprites").split("extrapolation"))
    train = {name: None if each.train is None else each.train.mean for name, each in reference.items()}
    assert train == {"train_mean": pytest.approx(0.342, abs=5e-4), "ood_to_mean": 1.0, "clip": 1.0}
    for name, expected in (("shapes3d", 0.316), ("mpi3d", 0.278), ("celebglow", 0.429)):
        constant = baselines(load_spec(name).split("extrapolation"))["train_mean"].train
        assert constant is not None
        assert constant.mean == pytest.approx(expected, abs=5e-4)


def test_the_overview_has_models_by_kinds(runs: Path) -> None:
    ((dataset, lines),) = overviews(collect(runs))
    assert dataset == "blocks"
    assert lines[0] == ["model", "composition", "extrapolation", "seeds", "steps"]
    assert {line[0] for line in lines[1:3]} == {"mlp", "pcl"}
    best = [float(line[2].partition(" ")[0]) for line in lines[1:3]]
    assert best == sorted(best, reverse=True)
    assert [line[0] for line in lines[3:]] == ["(train-mean)", "(ood-to-mean)", "(clip)"]
    assert lines[-1][1] == ""  # on composition clip is perfect
