"""Networks in the report's page: which may, and that they answer there as torch does, on the grid and off it."""

from __future__ import annotations

import base64
import csv
import gzip
import json
import os
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import splits
from harness.report.collect import collect
from harness.report.html import report
from harness.report.live import SMALL, live_network
from harness.report.live_runs import MODELS, MOST
from harness.report.page import PARTS
from harness.report.payload import payload
from harness.runs.maps import MAPS
from harness.runs.networks import load
from helpers.commands import invoke
from helpers.finished import pictures, write_network, write_run
from helpers.pages import SCREENS, Pages, choice, chromium, hindrances, saved

CELLS = 250  # on which a network in the page is compared with torch's
NEAR = 1e-3
VARIANTS: dict[str, dict[str, Any]] = {name: {} for name in MODELS} | {
    "pcl of a batch norm": {"options": {"batch_norm": True}},
    "cnn of normalised images": {"normalize": "train"},
    "mlp of other widths": {"options": {"widths": [33, 17]}},
    "slowvae of normalised images": {"normalize": "train"},
}
GRID = splits.load_spec("dsprites").grid


def run_of(runs: Path, model: str, **how: Any) -> Path:
    folder = write_run(runs, "dsprites", "extrapolation", model, lambda targets: targets * 0.9)
    write_network(folder, **how)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a CNN."""
    return run_of(tmp_path_factory.mktemp("runs"), "cnn")


def test_a_network_is_in_the_page_in_16_bits_a_weight(run: Path) -> None:
    network = live_network(run)
    shapes = [(layer["shape"], layer["fixed"]) for layer in network.layers if "shape" in layer]
    assert [fixed for _, fixed in shapes] == [np.prod(shape) > SMALL for shape, _ in shapes]
    sizes = [int(np.prod(shape)) * (2 if fixed else 4) + 4 * shape[0] * (2 if fixed else 1) for shape, fixed in shapes]
    assert len(network.weights) == sum(sizes)
    made = payload(collect(run.parents[3]), None, [network])
    assert gzip.decompress(base64.b64decode(made.blobs["live-0"])) == network.weights
    assert len(made.blobs["live-0"]) < 1.1e6
    (live,) = made.index["live"]
    assert (live["label"], live["sizes"]) == ("cnn, extrapolation, seed 0", GRID.sizes)
    assert all("weight" not in layer for layer in live["layers"])
    json.dumps(live)


@pytest.mark.parametrize(
    ("dataset", "model", "said"),
    [
        ("dsprites", "resnet50", "can't run resnet50 on dsprites, but mlp, cnn"),
        ("dsprites", "rotation-eq-big", "can't run rotation-eq-big"),
        ("celebglow", "cnn", "can't run cnn on celebglow"),
    ],
)
def test_what_the_page_cannot_run_is_told_in_a_line(run: Path, tmp_path: Path, dataset: str, model: str, said: str) -> None:
    folder = write_run(tmp_path / "runs", dataset, "extrapolation", model, lambda targets: targets)
    config = json.loads((run / "config.json").read_text()) | {"dataset": dataset, "model": model}
    (folder / "config.json").write_text(json.dumps(config))
    answer = invoke("report", tmp_path / "runs", "--out", tmp_path / "report", "--live", folder)
    assert answer.returncode == 2
    assert said in answer.stderr
    assert not (tmp_path / "report").exists()


def test_a_live_run_is_a_finished_one_with_maps_of_dsprites(run: Path, tmp_path: Path) -> None:
    runs, out = run.parents[3], tmp_path / "report"
    answer = invoke("report", runs, "--out", out, "--live", runs)
    assert answer.returncode == 1
    assert "the folder of one finished run is expected" in answer.stderr
    answer = invoke("report", runs, "--out", out, *["--live", run] * (MOST + 1))
    assert answer.returncode == 2
    bare = run_of(tmp_path / "runs", "mlp")
    (bare / MAPS).unlink()
    answer = invoke("report", runs, "--out", out, "--live", bare)
    assert answer.returncode == 1
    assert f"bench rescore {bare}" in answer.stderr
    large = run_of(tmp_path / "large", "mlp", options={"widths": [400, 90]})
    answer = invoke("report", runs, "--out", out, "--live", large)
    assert answer.returncode == 2
    assert "1,200,000 at most" in answer.stderr
    assert not out.exists()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def page_file(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    pcl = run_of(run.parents[3], "pcl")
    report(collect(run.parents[3]), out, None, [live_network(run), live_network(pcl)])
    return out / "index.html"


@pytest.fixture
def opened(browser: Any, page_file: Path) -> Iterator[Callable[..., Any]]:
    pages = Pages(browser)

    def open_page(fragment: str = "", **options: Any) -> Any:
        page = pages.open(page_file, fragment, **options)
        page.wait_for_selector("#live .slider")
        return page

    yield open_page
    pages.close()


def in_browser(browser: Any, expression: str, argument: Any) -> Any:
    """What an expression of `argument` gives, which sees the page's `Network` and `dsprite`."""
    code = "\n".join((PARTS / name).read_text() for name in ("dom.js", "dsprites.js", "network.js"))
    page = browser.new_page()
    try:
        return page.evaluate(
            f"async ([code, argument]) => {{ const {{ Network, dsprite }} = new Function(code + '; return {{ Network, dsprite }}')(); "
            f"return ({expression})(argument) }}",
            [code, argument],
        )
    finally:
        page.close()


ANSWERS = """async ({layers, weights, cells}) => {
  const bytes = Uint8Array.from(atob(weights), (letter) => letter.charCodeAt(0)), network = new Network(layers, bytes.buffer);
  const times = [], answers = cells.map((cell) => {
    const began = performance.now(), answer = [...network.answer(dsprite(cell))];
    times.push(performance.now() - began);
    return answer;
  });
  return {answers, times};
}"""


@pytest.mark.browser
@pytest.mark.parametrize("variant", VARIANTS)
def test_its_answers_are_torchs(browser: Any, tmp_path: Path, variant: str) -> None:
    import torch

    folder = run_of(tmp_path, variant.split()[0], **VARIANTS[variant])
    network = live_network(folder)
    cells = np.random.default_rng(1).integers(0, len(GRID), CELLS)
    with torch.no_grad():
        truth = load(folder)(torch.from_numpy(pictures(cells))).numpy()
    argument = {
        "layers": network.layers,
        "weights": base64.b64encode(network.weights).decode(),
        "cells": GRID.factors(cells).tolist(),
    }
    found = in_browser(browser, ANSWERS, argument)
    far = float(np.abs(np.array(found["answers"]) - truth).max())
    bits = 32 if any(not layer.get("fixed", True) and np.prod(layer["shape"]) > SMALL for layer in network.layers) else 16
    print(f"{variant}: {far:.1e} away at most, {statistics.median(found['times']):.1f} ms, {bits} bits a weight")
    assert truth.std(axis=0).max() > 20 * NEAR  # it does not answer a constant
    assert far < NEAR


@pytest.mark.browser
def test_off_the_grid_the_page_draws_by_the_same_rules(browser: Any) -> None:
    """By the outline: matplotlib says which pixel centres lie inside of it, but for those that lie on it."""
    from matplotlib.path import Path as Outline

    from harness.formats.dsprites import LATTICE, outline

    rng = np.random.default_rng(2)
    low, high = np.array([0, -2.5, -19.5, -15.5, -15.5]), np.array([0, 7.5, 58.5, 46.5, 46.5])
    cells = rng.uniform(low, high, (400, 5))
    cells[:, 0] = rng.integers(0, 3, 400)
    drawn = in_browser(browser, "(cells) => cells.map((cell) => [...dsprite(cell)].join(''))", cells.tolist())
    centres = np.stack(np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5), axis=-1).reshape(-1, 2)
    white = 0
    for (shape, scale, orientation, x, y), pixels in zip(cells, drawn, strict=True):
        angle, size = 2 * np.pi * orientation / 39, 0.5 + 0.1 * scale
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = 16 + 32 * np.array([x, y]) / 31
        path = Outline(np.floor(LATTICE * (middle + size * outline(int(shape)) @ turn) + 0.5) / LATTICE)
        inside = path.contains_points(centres)
        assert (inside != (np.array(list(pixels)) == "1")).sum() <= 2
        white += int(inside.sum())
    assert white > 10_000


@pytest.mark.browser
def test_one_drags_a_factor_between_the_grids_values_and_beyond(opened: Callable[..., Any]) -> None:
    page = opened()
    live, said = page.locator("#live"), page.locator("#live .side")
    choice(page, "Network").select_option(label="cnn, extrapolation, seed 0")
    assert said.inner_text() == "On the grid, test: train has no scale 0.9."
    scale = live.locator(".track input").first
    answer = live.locator(".slider .said").first
    before = answer.inner_text()
    for _ in range(5):
        scale.press("ArrowLeft")
    assert said.inner_text() == "Off the grid: scale 0.85 lies between 0.8 and 0.9, of which train lacks 0.9."
    assert scale.get_attribute("aria-valuetext") == "scale 0.85 lies between 0.8 and 0.9, of which train lacks 0.9"
    assert answer.inner_text() != before
    scale.press("End")
    assert said.inner_text() == "Off the grid: scale 1.25 lies above the grid's last value, 1.0."
    scale.press("Home")
    assert "scale 0.25 lies below the grid's first value, 0.5" in said.inner_text()
    live.get_by_role("button", name="To the nearest cell").click()
    assert said.inner_text() == "On the grid, train: it has all of these values."
    picture = live.locator("canvas.picture")
    box = picture.bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 2, box["y"] + 128, steps=4)
    page.mouse.up()
    assert (
        "x-position −15.0 lies below the grid's first value, 0; y-position 15.5 lies between 15 and 16, which train has."
        in said.inner_text()
    )
    choice(page, "shape", "#live .panel").select_option(label="square")
    for walk in ("x-position", "orientation"):
        choice(page, "Walk along", "#live").select_option(label=walk)
    choice(page, "Answers for", "#live").select_option(label="scale")
    strip = live.locator(".frame canvas")
    strip.press("ArrowRight")
    strip.click(position={"x": 70, "y": 100})
    assert "orientation −18.7" in said.inner_text()
    page.locator("#live .story", has_text="It leaves the truth").wait_for()
    for kind, start in {"PNG": b"\x89PNG", "PDF": b"%PDF-1.4"}.items():
        assert saved(page, live.locator(".takeaway").get_by_text(kind)).read_bytes().startswith(start)
    page.wait_for_timeout(400)
    again = opened("#" + page.url.partition("#")[2])
    for selector in (".side", ".sliders"):
        assert again.locator(f"#live {selector}").inner_text() == live.locator(selector).inner_text()
    opened("#live=7,1,1,0,0,0,0,0")  # what is not there is not taken
    opened("#live=0,0,9,0,0,0,0,1e9")


@pytest.mark.browser
def test_the_walk_has_torchs_answers_where_it_meets_the_grid(opened: Callable[..., Any], run: Path) -> None:
    import torch

    page = opened()
    choice(page, "Network").select_option(label="cnn, extrapolation, seed 0")
    network, compared = load(run), 0
    for axis, name in list(enumerate(GRID.names))[1:]:
        choice(page, "Walk along", "#live").select_option(label=name)
        page.wait_for_timeout(400)
        cell = [int(value) for value in page.evaluate("new URLSearchParams(location.hash.slice(1)).get('live')").split(",")[3:]]
        text = saved(page, page.locator("#live .takeaway").get_by_text("CSV")).read_text()
        lines = [line for line in csv.DictReader(text.splitlines()) if line["on the grid"] == "true"]
        assert [int(line["index"]) for line in lines] == list(range(GRID.sizes[axis]))
        cells = np.repeat([cell], len(lines), axis=0)
        cells[:, axis] = range(len(lines))
        with torch.no_grad():
            truth = network(torch.from_numpy(pictures(GRID.index(cells)))).numpy()
        found = [[float(line[f"answer for {factor}, 0 to 1 on the grid"]) for factor in GRID.names] for line in lines]
        assert np.abs(np.array(found) - truth).max() < NEAR
        compared += len(lines)
    assert compared == sum(GRID.sizes[1:])


@pytest.mark.browser
@pytest.mark.parametrize("name", SCREENS)
def test_it_fits_and_is_accessible(opened: Callable[..., Any], tmp_path: Path, name: str) -> None:
    page = opened("#live=1,1,1,2,5.5,12,12,30", **SCREENS[name])
    page.locator("#live .story", has_text="It leaves the truth").wait_for()
    folder = Path(os.environ.get("BROWSER_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.locator("#live-section").screenshot(path=folder / f"live-{name}.png")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert hindrances(page.context.browser, page.url, "#live .slider", **SCREENS[name]) == []
