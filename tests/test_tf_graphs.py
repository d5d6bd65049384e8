"""Graphs by the original code under TensorFlow 1.8, in the forms that people's tools make of them (golden/make_tf_graphs.py)."""

from __future__ import annotations

import functools
import io
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from celebglow.convert.checkpoints import convert, save
from celebglow.convert.graph_compiler import Compiler, UnsupportedGraph, ancestors, compile_graph, find_output
from celebglow.convert.graph_glow import GraphGlow
from celebglow.convert.graphdef import Constant, Node, read_graph
from celebglow.convert.openai_directions import nhwc_to_nchw
from celebglow.decoder import Decoder
from celebglow.flow import Flow
from celebglow.glow import Glow
from celebglow.pipeline import CelebGlowPipeline
from cli import main
from harness.data.verify import verify
from helpers.commands import ROOT, invoke

LEVEL = {"affine": 1, "eight bits": 1}  # grey levels between two values of an image, where it is not of 5 bits
EXECUTED = {"dilated", "deeper"}  # couplings that no Glow of ours has


@functools.cache
def golden() -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(lzma.decompress((ROOT / "tests/golden/tf_graphs.npz.xz").read_bytes()))) as file:
        return dict(file)


def graphs() -> list[tuple[str, str]]:
    return sorted(
        (flow, form) for flow, form, what in (key.split("/") for key in golden() if key.count("/") == 2) if what == "graph"
    )


def latents_of(flow: str, shapes: list[tuple[int, int, int]], random: bool) -> Tensor:
    draw = np.random.RandomState(1)
    parts = []
    for level, (c, h, w) in enumerate(shapes):
        encoded = golden()[f"{flow}/eps_{level}"]
        eps = draw.normal(scale=0.7, size=(len(encoded), h, w, c)).astype(np.float32) if random else encoded
        parts.append(torch.from_numpy(eps).permute(0, 3, 1, 2).flatten(1))
    return torch.cat(parts, dim=1)


def assert_images(flow: Flow, name: str, form: str) -> None:
    """Equal to TensorFlow's; a value at the edge of two levels may fall to either side."""
    decode = Decoder(flow) if isinstance(flow, Glow) else flow.decode
    for key, random in (("image", False), ("random", True)):
        with torch.no_grad():
            images = flow.postprocess(decode(latents_of(name, flow.latent_shapes, random))).permute(0, 2, 3, 1).numpy()
        difference = np.abs(images.astype(int) - golden()[f"{name}/{form}/{key}"].astype(int))
        assert difference.max() <= LEVEL.get(name, 8)
        assert (difference > 0).sum() <= 1


@pytest.mark.parametrize("name, form", graphs(), ids="-".join)
def test_every_form_decodes_to_tensorflows_images(name: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "graph.pb").write_bytes(golden()[f"{name}/{form}/graph"].tobytes())
    conversion = convert(tmp_path / "graph.pb")
    assert isinstance(conversion.flow, GraphGlow if name in EXECUTED else Glow), conversion.note
    assert_images(conversion.flow, name, form)
    assert_images(GraphGlow.from_program(compile_graph(tmp_path / "graph.pb")), name, form)
    assert_images(GraphGlow.from_graph(tmp_path / "graph.pb"), name, form)


@pytest.mark.parametrize("name", sorted({flow for flow, _ in graphs()} - EXECUTED))
def test_what_becomes_a_glow_encodes_as_the_original(name: str, tmp_path: Path) -> None:
    (tmp_path / "graph.pb").write_bytes(golden()[f"{name}/plain/graph"].tobytes())
    flow = convert(tmp_path / "graph.pb").flow
    assert isinstance(flow, Glow)
    noised = torch.from_numpy(golden()[f"{name}/noised"]).permute(0, 3, 1, 2)
    expected = latents_of(name, flow.latent_shapes, random=False)
    with torch.no_grad():
        latents = flow.encode(noised).latents
        likelihood = flow.log_prob(noised)
    assert (latents - expected).abs().max() < 1e-5 * max(1.0, float(expected.abs().max())) * 10
    torch.testing.assert_close(likelihood, torch.from_numpy(golden()[f"{name}/objective"]), rtol=2e-6, atol=2e-3)


def test_a_walk_is_the_original_demos(tmp_path: Path) -> None:
    """Signs, strengths and the order of latents: pictures that glow/demo/model.py walked to by the same table."""
    (tmp_path / "graph.pb").write_bytes(golden()["picture context/plain/graph"].tobytes())
    np.save(tmp_path / "z.npy", golden()["walk/table"])
    conversion = convert(tmp_path / "graph.pb")
    assert save(conversion, tmp_path / "flow", tmp_path / "z.npy")
    pipeline = CelebGlowPipeline.from_pretrained(tmp_path / "flow")
    names = golden()["walk/attributes"].tolist()
    # The demo turns two attributes round, and strengthens one: 1 is more of what its name says for all but those.
    turned = {"Young": "age", "No_Beard": "beard"}
    person = torch.from_numpy(nhwc_to_nchw(golden()["walk/person"], pipeline.flow.latent_shapes))
    chosen = pipeline.directions.select([turned.get(name, name) for name in names])
    for step in range(5):
        strengths = torch.from_numpy(golden()[f"walk/strengths_{step}"])
        picture = pipeline.pictures(person + strengths @ chosen.table)[0]
        difference = np.abs(picture.astype(int) - golden()[f"walk/picture_{step}"].astype(int))
        assert difference.max() <= 8
        assert (difference > 0).sum() <= 1, (names, strengths)


def test_converted_flows_are_walked_in_a_new_process(tmp_path: Path) -> None:
    """Which has imported nothing of what converted them: a Glow, one with contexts, and a graph that is executed."""
    for name, levels in {"additive": 2, "picture context": 3, "dilated": 2}.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "graph.pb").write_bytes(golden()[f"{name}/folded/graph"].tobytes())
        count = sum(golden()[f"{name}/eps_{level}"][0].size for level in range(levels))
        np.save(folder / "z.npy", np.random.default_rng(0).normal(size=(40, count), scale=0.1).astype(np.float32))
        converted = invoke("flow", "convert", folder / "graph.pb", "--z-manipulate", folder / "z.npy", "--out", folder / "flow")
        assert converted.returncode == 0, converted.stderr
    program = (
        "import sys; from click.testing import CliRunner; from cli import main\n"
        "walk = '--persons 1 --levels 2 --attribute Smiling,age'.split()\n"
        "for folder in sys.argv[1:]:\n"
        "    made = CliRunner().invoke(main, ['generate', 'celebglow', '--flow', f'{folder}/flow', *walk, '--out', f'{folder}/data'])\n"
        "    assert made.exit_code == 0, made.output"
    )
    folders = [str(tmp_path / name) for name in ("additive", "picture context", "dilated")]
    done = subprocess.run(
        [sys.executable, "-c", program, *folders], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert all(verify(Path(made, "data"), "celebglow") == [] for made in folders)


def test_the_doctors_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("graph.pb").write_bytes(golden()["picture context/plain/graph"].tobytes())
    np.save("z.npy", golden()["walk/table"])
    result = CliRunner().invoke(main, ["flow", "doctor", "graph.pb", "--table", "z.npy"])
    assert result.exit_code == 0, result.output
    for words in (
        "unknown (GraphDef version; 26 is TensorFlow 1.8)",  # freezing drops it
        "latents of level 2",
        "input/downsampled_image",
        "Conv2D",
        "rewritten",
        "as a Glow",
        "40 dir",
    ):
        assert words in result.output, words
    with Image.open("graph-samples.png") as sheet:
        assert sheet.size == (8 * 32, 5 * 32)
    as_json = CliRunner().invoke(main, ["flow", "doctor", "graph.pb", "--json"])
    assert json.loads(as_json.stdout)["flow"]["kind"] == "Glow"


def test_the_doctors_page_of_what_cannot_be_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    graph = golden()["additive/plain/graph"].tobytes()
    Path("unknown.pb").write_bytes(graph.replace(b"\x12\x04Relu", b"\x12\x04Gelu"))
    Path("cut.pb").write_bytes(graph[:-100])
    for name, words in (("unknown.pb", ["Gelu (first at model", "cannot be converted"]), ("cut.pb", ["not a frozen graph"])):
        result = CliRunner().invoke(main, ["flow", "doctor", name])
        assert result.exit_code == 1
        for each in words:
            assert each in result.output, result.output
    assert not list(tmp_path.glob("*.png"))


def test_a_picture_of_unknown_size_is_one_of_the_usual(tmp_path: Path) -> None:
    """Its placeholder may say no height and width: then it is gray at half of the image's, and no 1 × 1 picture."""
    (tmp_path / "graph.pb").write_bytes(golden()["picture context/plain/graph"].tobytes())
    graph = read_graph(tmp_path / "graph.pb")
    output = find_output(graph)
    node = graph["input/downsampled_image"]
    assert node.attributes["shape"] == (-1, 16, 16, 3)
    node.attributes["shape"] = (-1, -1, -1, 3)
    program = Compiler(ancestors(graph, [output])).program(output)
    assert_images(GraphGlow.from_program(program), "picture context", "plain")


def test_arithmetic_of_other_widths_is_done_in_float32(tmp_path: Path) -> None:
    """A graph that casts latents to half or double on its way."""
    for dtype in ("<f2", "<f8"):
        order = [
            Node("Placeholder", "Placeholder", (), {"dtype": "<f4", "shape": (-1, 2, 2, 3)}),
            Node("wide", "Cast", ("Placeholder",), {"SrcT": "<f4", "DstT": dtype}),
            Node("kernel", "Const", (), {"value": constant(np.ones((1, 1, 3, 3), dtype))}),
            Node("conv", "Conv2D", ("wide", "kernel"), {"strides": [1] * 4, "padding": b"SAME"}),
            Node("back", "Cast", ("conv",), {"SrcT": dtype, "DstT": "<f4"}),
        ]
        compiler = Compiler(order)
        value = compiler.compile("back")
        assert value is not None
        assert compiler.shapes[value].shape == (1, 2, 2, 3)
        assert all(each.dtype == torch.float32 for each in compiler.constants)


def constant(array: NDArray[Any]) -> Constant:
    return Constant(array.shape, array.dtype.str, memoryview(array.tobytes()))


def test_images_that_are_not_square_are_refused(tmp_path: Path) -> None:
    order = [
        Node("Placeholder", "Placeholder", (), {"dtype": "<f4", "shape": (-1, 2, 4, 12)}),
        Node("shape", "Const", (), {"value": constant(np.array([-1, 4, 8, 3], np.int32))}),
        Node("image", "Reshape", ("Placeholder", "shape"), {}),
    ]
    with pytest.raises(UnsupportedGraph, match="its images are of 4 × 8, and square ones are expected"):
        Compiler(order).program("image")


def test_the_doctors_page_is_printed_before_its_sheet_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("graph.pb").write_bytes(golden()["additive/plain/graph"].tobytes())
    Path("in_the_way").write_text("")
    result = CliRunner().invoke(main, ["flow", "doctor", "graph.pb", "--sheet", "in_the_way/sheet.png"])
    assert result.exit_code == 1
    assert "as a Glow" in result.stdout
    assert "in_the_way" in result.stderr
