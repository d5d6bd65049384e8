"""The report's page in a real browser: `make test-browser`. Skipped without Playwright and a Chromium.

BROWSER_ARTEFACTS names a folder in which the screenshots stay.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splits
from harness.formats.dsprites import render_bits
from harness.report.collect import collect
from harness.report.html import report
from harness.report.leaderboard import leaderboard
from harness.report.page import PARTS
from harness.runs.maps import MAPS, RunMaps
from harness.runs.records import RunScores
from harness.scoring.maps import kept_cells
from helpers.finished import named, write_run
from helpers.pages import SCREENS, Pages, choice, chromium, hindrances, saved

pytestmark = pytest.mark.browser
MODELS = ("cnn", "pcl", "mlp", "coordconv")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    rng = np.random.default_rng(0)
    for number, model in enumerate(MODELS):

        def answer(targets: np.ndarray, scale: float = 0.05 * (number + 1)) -> np.ndarray:
            seen = np.minimum(targets, [1, 0.6, 31 / 39, 24 / 31, 24 / 31])
            answers: np.ndarray = seen + 0.3 * (targets - seen) + rng.normal(0, scale, targets.shape)
            return answers

        write_run(folder, "dsprites", "extrapolation", model, answer)
        write_run(folder, "dsprites", "random", model, answer)
    write_run(folder, "celebglow", "composition", "cnn", lambda targets: targets * 0.9)
    return folder


@pytest.fixture(scope="module")
def page_file(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    report(collect(runs), out)
    return out / "index.html"


@pytest.fixture
def opened(browser: Any, page_file: Path) -> Iterator[Callable[..., Any]]:
    pages = Pages(browser)
    yield lambda fragment="", file=page_file, **options: pages.open(file, fragment, **options)
    pages.close()


def test_every_control_does_something(opened: Callable[..., Any]) -> None:
    page = opened("#split=dsprites%2Cextrapolation")
    assert (
        page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") < 3000
    )  # a machine under load; 0.2 s alone
    # The leaderboard: sort by every column, filter, open a row, close it.
    first = page.locator("#board tbody tr").first
    for number in range(page.locator("#board th button").count()):
        button = page.locator("#board th button").nth(number)
        button.click()
        one = first.inner_text()
        page.locator("#board th button").nth(number).click()
        assert page.locator("#board th").nth(number).get_attribute("aria-sort") in ("ascending", "descending")
        assert first.inner_text() != one or button.inner_text() in ("seeds", "steps")
    page.locator("#filters input").fill("pcl")
    assert page.locator("#board button.row").all_inner_texts() == ["pcl"]
    page.locator("#filters input").fill("")
    choice(page, "Kind").select_option("")
    choice(page, "Dataset").select_option("")
    assert page.locator("#board button.row").count() == 2 * len(MODELS) + 1
    choice(page, "Kind").select_option("random")
    choice(page, "Family").select_option("representation")
    assert page.locator("#board button.row").all_inner_texts() == ["pcl"]
    page.locator("#overview button").first.click()
    page.wait_for_selector("tr.detail")
    choice(page, "Split").select_option(label="dsprites, extrapolation")
    page.locator("#board button.row", has_text="pcl").click()
    assert "orientation" in page.locator("tr.detail table").inner_text()
    assert page.locator("tr.detail svg").count() == 1
    page.locator("tr.detail summary").click()
    page.get_by_role("button", name="Look at it in the explorer").click()
    page.wait_for_function("document.querySelector('.explorer select').selectedOptions[0].text === 'pcl'")
    # The explorer: sliders by keyboard, by value, models, walk, map.
    slider = page.locator(".track input").nth(1)
    slider.focus()
    before = page.locator(".slider b").nth(1).inner_text()
    page.keyboard.press("End")
    assert (page.locator(".slider b").nth(1).inner_text(), before) == ("1.0", before)
    assert "train has no scale 1.0" in page.locator(".side").inner_text()
    page.keyboard.press("Home")
    assert "scale" not in page.locator(".side").inner_text()
    orientation = page.locator(".slider b").nth(2)
    page.locator(".track input").nth(2).focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert orientation.inner_text() == "15"  # the next value whose answers are kept
    page.locator(".check input").check()
    page.keyboard.press("ArrowRight")
    page.locator(".track input").nth(2).focus()
    page.keyboard.press("ArrowRight")
    assert "No answers were kept" in page.locator(".panel .note").inner_text()
    page.locator(".check input").uncheck()
    assert page.locator(".panel .note").inner_text() == ""
    choice(page, "Beside it").select_option(label="mlp")
    assert page.locator(".maps canvas").count() == 2
    choice(page, "Walk along").select_option(label="x-position")
    choice(page, "Answers for").select_option(label="scale")
    canvas = page.locator(".views > .frame canvas")
    box = canvas.bounding_box()
    canvas.click(position={"x": box["width"] - 14, "y": box["height"] - 80})
    assert page.locator(".slider b").nth(3).inner_text() == "31"
    canvas.press("ArrowLeft")
    assert page.locator(".slider b").nth(3).inner_text() == "25"
    for label, value in (("Across", "y-position"), ("Down", "x-position"), ("Error of", "shape"), ("On", "train"), ("On", "test")):
        choice(page, label).select_option(label=value)
    for measure in ("mean error, answer − truth", "difference of the errors"):
        choice(page, "As").select_option(label=measure)
    assert page.locator(".maps canvas").count() == 1
    cell = page.locator(".maps canvas")
    cell.click(position={"x": 70, "y": 20})
    assert [page.locator(".slider b").nth(axis).inner_text() for axis in (3, 4)] == ["0", "0"]
    cell.press("ArrowDown")
    assert page.locator(".slider b").nth(3).inner_text() != "0"
    # The failures, and what is taken away.
    page.locator("#failures .card").first.click()
    assert "train has no" in page.locator(".side").inner_text()
    starts = {"PNG": b"\x89PNG", "PDF": b"%PDF-1.4", "CSV": b"model,"}
    for where in (".views > .takeaway", ".maps .takeaway"):
        for kind, start in starts.items():
            assert saved(page, page.locator(where).first.get_by_text(kind)).read_bytes().startswith(start)
    assert saved(page, page.get_by_text("Save CSV")).read_bytes().startswith(b"dataset,kind,model,rank")
    page.locator("#share").click()
    page.locator("#figures summary").first.click()
    page.locator("nav a", has_text="Failures").click()
    assert "split=" in page.url


def test_a_link_restores_the_view(opened: Callable[..., Any]) -> None:
    page = opened("#split=dsprites%2Cextrapolation")
    choice(page, "Model").select_option(label="mlp")
    choice(page, "Beside it").select_option(label="coordconv")
    choice(page, "Walk along").select_option(label="scale")
    choice(page, "As").select_option("bias")
    page.locator(".track input").nth(4).press("End")
    page.locator(".check input").check()
    again = opened("#" + page.url.partition("#")[2])
    for one in (page, again):
        one.wait_for_timeout(100)
    for selector in (".side", ".sliders", ".key", ".views > .story"):
        assert page.locator(selector).inner_text() == again.locator(selector).inner_text()
    chosen = "[...document.querySelectorAll('.explorer select')].map(select => select.value)"
    assert page.evaluate(chosen) == again.evaluate(chosen)
    assert again.locator(".check input").is_checked()
    opened("#split=nothing&a=%00&cell=1,2&map=9,9,9,x,y&walk=-1,77")  # what is not there is not taken


def test_the_answers_in_the_page_are_those_of_the_run(opened: Callable[..., Any], runs: Path) -> None:
    page = opened("#split=dsprites%2Cextrapolation")
    maps = RunMaps.read(next(runs.glob(f"dsprites/extrapolation/pcl/*/{MAPS}")))
    grid = maps.split.grid
    answers = dict(zip(kept_cells(grid, maps.kept).tolist(), maps.answers.astype(float), strict=True))
    compared = 0
    for axis, name in enumerate(grid.names):
        choice(page, "Walk along").select_option(label=name)
        cell = [int(value) for value in page.evaluate("new URLSearchParams(location.hash.slice(1)).get('cell')").split(",")]
        lines = list(csv.DictReader(saved(page, page.locator(".views > .takeaway").get_by_text("CSV")).read_text().splitlines()))
        own = [line for line in lines if line["model"] == "pcl"]
        assert len(own) == grid.sizes[axis]
        for value, line in enumerate(own):
            cell[axis] = value
            kept = answers.get(int(grid.index(cell)))
            assert (kept is None) == (line["answer in this walk"] == "")
            if kept is not None:
                assert float(line["answer in this walk"]) == kept[axis]
                compared += 1
    assert compared == sum(map(len, maps.kept))


def test_the_pages_dsprites_are_ours(opened: Callable[..., Any]) -> None:
    page = opened()
    rng = np.random.default_rng(0)
    cells = np.stack([rng.integers(0, size, 10_000) for size in splits.load_spec("dsprites").grid.sizes], axis=1)
    drawn = page.context.new_page()
    code = (PARTS / "dsprites.js").read_text()
    rows = drawn.evaluate(
        "([code, cells]) => { const dsprite = new Function(code + '; return dsprite')(); "
        "return cells.map(cell => { const bits = dsprite(cell); let text = ''; "
        "for (let at = 0; at < bits.length; at += 8) text += String.fromCharCode("
        "[...bits.slice(at, at + 8)].reduce((byte, bit) => byte * 2 + bit, 0)); return btoa(text) }) }",
        [code, cells.tolist()],
    )
    import base64

    ours = cache(render_bits)
    for cell, row in zip(cells.tolist(), rows, strict=True):
        shape, scale, orientation, x, y = cell
        assert base64.b64decode(row) == ours(shape, scale, orientation)[x, y].tobytes(), cell


def test_a_name_that_is_markup_does_nothing(opened: Callable[..., Any], runs: Path, tmp_path: Path) -> None:
    markup = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
    scores = RunScores.read(next(runs.glob("dsprites/extrapolation/cnn/*/scores.json")))
    hostile = named(scores, markup)
    report(leaderboard([hostile]), tmp_path)
    page = opened(file=tmp_path / "index.html")
    page.locator("#board button.row").click()
    assert page.locator("#board button.row").inner_text() == markup
    assert page.locator("#board img").count() == 0


@pytest.mark.parametrize("name", SCREENS)
def test_it_fits_and_is_accessible(opened: Callable[..., Any], tmp_path: Path, name: str) -> None:
    page = opened("#split=dsprites%2Cextrapolation", **SCREENS[name])
    page.locator("#board button.row").first.click()
    page.wait_for_timeout(200)
    folder = Path(os.environ.get("BROWSER_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert hindrances(page.context.browser, page.url, ".explorer", **SCREENS[name]) == []
