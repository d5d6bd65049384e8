"""Published checkpoints end to end: recognised or executed, walked by their table, the same bytes in parts."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from celebglow.convert.checkpoints import convert, save
from celebglow.convert.graph_compiler import compile_graph
from celebglow.convert.graph_glow import GraphGlow
from celebglow.convert.graph_rewrite import NotRecognised, recognise
from celebglow.convert.graph_simplify import simplify
from celebglow.convert.openai_directions import CELEBA, nhwc_to_nchw, read_table
from celebglow.decoder import Decoder
from celebglow.glow import Glow
from celebglow.pipeline import CelebGlowPipeline
from cli import main
from helpers.commands import assert_one_clear_line
from helpers.files import contents
from helpers.flows import make, random_glow
from helpers.graphs import GlowGraph, GraphWriter
from helpers.ports import layered, rosinality


def test_a_known_structure_becomes_the_same_glow(tmp_path: Path) -> None:
    flow = random_glow(border=True, steps=(1, 2, 1), widths=(4, 5, 6), coupling="affine", quantize=True)
    conversion = convert(GlowGraph(flow).save(tmp_path / "graph.pb"))
    assert isinstance(conversion.flow, Glow)
    for option in ("resolution", "channels", "coupling", "bits", "border", "learn_top", "quantize"):
        assert conversion.flow.config[option] == flow.config[option], option
    assert list(conversion.flow.config.steps) == list(flow.config.steps)


class Doubled(GlowGraph):
    """With a detour in every coupling that no walk expects."""

    def _net(self, net: object, x: str, side: int) -> str:
        h = super()._net(net, x, side)  # type: ignore[arg-type]
        return self.add("Mul", self.add("AddV2", h, h), 0.5)


def test_an_unknown_structure_is_executed(tmp_path: Path) -> None:
    flow = random_glow(border=True, quantize=True)
    conversion = convert(Doubled(flow).save(tmp_path / "graph.pb"))
    assert isinstance(conversion.flow, GraphGlow)
    assert "structure being unknown" in conversion.note
    latents = torch.randn(2, flow.num_latents)
    assert (conversion.flow.decode(latents) - flow.decode(latents)).abs().max() < 1e-5


class InThree(GlowGraph):
    """Joining the first half of every step in two parts: another way to write the same."""

    def add(self, op: str, *inputs: object, **rest: object) -> str:
        if op == "ConcatV2" and len(inputs) == 3 and rest == {} and getattr(self, "stepping", False):
            first, second, axis = inputs
            half = self.channels // 4
            inputs = (self._slice(str(first), 0, half), self._slice(str(first), half, 0), second, axis)
            self.stepping = False
        return super().add(op, *inputs, **rest)  # type: ignore[arg-type]

    def _step(self, step: object, z: str, side: int, channels: int) -> str:
        self.channels = channels
        return super()._step(step, z, side, channels)

    def _net(self, net: object, x: str, side: int) -> str:
        h = super()._net(net, x, side)  # type: ignore[arg-type]
        self.stepping = True
        return h


def test_a_structure_that_the_walk_stumbles_over_is_executed(tmp_path: Path) -> None:
    flow = random_glow(border=True, quantize=True)
    conversion = convert(InThree(flow).save(tmp_path / "graph.pb"))
    assert isinstance(conversion.flow, GraphGlow)
    latents = torch.randn(2, flow.num_latents)
    assert (conversion.flow.decode(latents) - flow.decode(latents)).abs().max() < 1e-5


def test_a_proposal_that_differs_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = GlowGraph(random_glow(border=True)).save(tmp_path / "graph.pb")
    monkeypatch.setattr("celebglow.convert.checkpoints.recognise", lambda program: random_glow(seed=1, border=True))
    conversion = convert(path)
    assert isinstance(conversion.flow, GraphGlow)
    assert "differ" in conversion.note


class OtherOrder(GlowGraph):
    """Shift and scale of the affine couplings, and mean and scale of the priors, exchanged."""

    def _slice(self, x: str, begin: int, end: int, step: int = 1) -> str:
        return super()._slice(x, 1 - begin, end, step) if step == 2 else super()._slice(x, begin, end, step)


def test_what_is_met_instead_is_named(tmp_path: Path) -> None:
    program = simplify(compile_graph(OtherOrder(random_glow(border=True, coupling="affine")).save(tmp_path / "graph.pb")))
    with pytest.raises(NotRecognised, match="split in another way"):
        recognise(program)


def test_a_graph_that_mixes_its_batch_is_refused(tmp_path: Path) -> None:
    writer = GraphWriter()
    x = writer.add("Placeholder", dtype=np.dtype("float32"), shape=(-1, 4, 4, 12))
    x = writer.add("Sub", x, writer.add("Sum", x, [0], keep_dims=True))
    x = writer.add(
        "Reshape", writer.add("Transpose", writer.add("Reshape", x, [-1, 4, 4, 3, 2, 2]), [0, 1, 4, 2, 5, 3]), [-1, 8, 8, 3]
    )
    x = writer.add("AddV2", writer.add("Mul", x, 50.0), 100.0)
    writer.add("Cast", writer.add("Minimum", writer.add("Maximum", x, 0.0), 255.0), DstT=np.dtype("uint8"))
    with pytest.raises(ValueError, match="beside another"):
        convert(writer.save(tmp_path / "graph.pb"))


# Directions


def random_table(flow: Glow, path: Path) -> np.ndarray:
    table = np.random.default_rng(0).normal(size=(40, flow.num_latents)).astype(np.float32)
    np.save(path, table)
    return table


def test_the_latents_order_is_the_graphs(tmp_path: Path) -> None:
    """A row walks the converted flow as feeding its NHWC parts walks the original's placeholders."""
    flow = random_glow(border=True)
    table = random_table(flow, tmp_path / "z.npy")
    directions = read_table(tmp_path / "z.npy", flow.latent_shapes)
    row = table[CELEBA.index("Smiling")]
    position = 0
    for part, (c, h, w) in zip(flow.split_latents(directions.table[[31]]), flow.latent_shapes, strict=True):
        placeholder = row[position : position + c * h * w].reshape(h, w, c)
        assert torch.equal(part[0].permute(1, 2, 0), torch.from_numpy(placeholder))
        position += c * h * w
    assert position == flow.num_latents


def test_names_signs_and_strengths(tmp_path: Path) -> None:
    flow = random_glow()
    table = nhwc_to_nchw(random_table(flow, tmp_path / "z.npy"), flow.latent_shapes)
    directions = read_table(tmp_path / "z.npy", flow.latent_shapes)
    assert not directions.config.centered
    assert len(directions.config.attributes) == 40
    for name, row, factor in [
        ("smile", 31, 1.0),
        ("Smiling", 31, 1.0),
        ("blond", 9, 1.0),
        ("age", 39, -1.0),
        ("Young", 39, 1.0),
        ("beard", 24, -1.0),
        ("No_Beard", 24, 1.0),
        ("Narrow_Eyes", 23, 1.2),
    ]:
        np.testing.assert_allclose(directions.select([name]).table[0], factor * table[row], rtol=1e-6)
    with pytest.raises(ValueError, match="smile"):
        directions.select(["smil"])
    with pytest.raises(ValueError, match="once each"):
        directions.select(["age", "Young"])


def test_a_pipeline_takes_aliases(tmp_path: Path) -> None:
    flow = random_glow(quantize=True)
    random_table(flow, tmp_path / "z.npy")
    pipeline = CelebGlowPipeline(flow, read_table(tmp_path / "z.npy", flow.latent_shapes))
    older, same = pipeline(person=1, age=0.7, output_type="np").images, pipeline(person=1, Young=-0.7, output_type="np").images
    np.testing.assert_array_equal(older, same)
    assert pipeline.default_attributes == ("smile", "blond", "age")


@pytest.mark.parametrize(
    "content, words",
    [
        (np.zeros((40, 5), np.float32), "another flow"),
        (np.zeros((39, 768), np.float32), "another flow"),
        (np.zeros((0, 768), np.float32), "another flow"),
        (np.zeros((768, 40), np.float32), "transposed"),
        (np.full((40, 768), 1e300), "not finite"),
        (b"PK\x03\x04 no archive", r"not a whole \.npy"),
        (np.full((40, 768), np.nan, np.float32), "not finite"),
        (np.array([{}], dtype=object), r"not a whole \.npy"),
        (b"<html>", r"not a whole \.npy"),
        (b"\x93NUMPY\x01\x00", r"not a whole \.npy"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, content: np.ndarray | bytes, words: str) -> None:
    path = tmp_path / "z.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    with pytest.raises(ValueError, match=words):
        read_table(path, random_glow().latent_shapes)


# The command, and what it makes


@pytest.fixture(params=["recognised", "executed"])
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A converted graph with its table."""
    flow = random_glow(border=True, quantize=True)
    (GlowGraph if request.param == "recognised" else Doubled)(flow).save(tmp_path / "graph_unoptimized.pb")
    random_table(flow, tmp_path / "z.npy")
    command = ["flow", "convert", str(tmp_path / "graph_unoptimized.pb"), "--out", str(tmp_path / "flow")]
    result = CliRunner().invoke(main, [*command, "--z-manipulate", str(tmp_path / "z.npy")])
    assert result.exit_code == 0, result.output
    assert ("executed" in result.output) == (request.param == "executed")
    return tmp_path / "flow"


def test_a_converted_flow_generates_the_same_bytes_in_parts(tmp_path: Path, published: Path) -> None:
    pipeline = CelebGlowPipeline.from_pretrained(published)
    make(tmp_path / "whole", pipeline, persons=4)
    for part in (2, 1):
        make(tmp_path / "parts", CelebGlowPipeline.from_pretrained(published), (part, 2), persons=4)
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")
    assert "| smile | 2 |" in (tmp_path / "whole" / "celebglow.md").read_text()


def test_all_attributes_are_walkable_by_name(published: Path, tmp_path: Path) -> None:
    pipeline = CelebGlowPipeline.from_pretrained(published)
    for name in CELEBA:
        values: dict[str, Any] = {name: 1.0}
        assert np.asarray(pipeline(**values, output_type="np").images).shape == (1, 16, 16, 3)
    arguments = ["--persons", "2", "--levels", "2", "--attributes", "Wearing_Hat,beard", "--out", str(tmp_path / "data")]
    result = CliRunner().invoke(main, ["generate", "celebglow", "--flow", str(published), *arguments])
    assert result.exit_code == 0, result.output


def test_a_flow_keeps_its_hash_on_the_way_to_disk(published: Path, tmp_path: Path) -> None:
    pipeline = CelebGlowPipeline.from_pretrained(published)
    pipeline.save_pretrained(tmp_path / "again")
    assert CelebGlowPipeline.from_pretrained(tmp_path / "again").sha256() == pipeline.sha256()
    conversion = convert(tmp_path / "graph_unoptimized.pb")
    made = CelebGlowPipeline(conversion.flow, read_table(tmp_path / "z.npy", conversion.flow.latent_shapes))
    assert made.sha256() == pipeline.sha256()


def test_info_of_either(published: Path) -> None:
    result = CliRunner().invoke(main, ["flow", "info", str(published)])
    assert result.exit_code == 0
    assert "resolution" in result.output
    assert "Wearing_Hat" in result.output


@pytest.mark.parametrize("kind", ["rosinality", "chaiyujin"])
def test_a_port_becomes_a_flow_for_directions(tmp_path: Path, kind: str) -> None:
    state = rosinality(2, 1, 4, False, False) if kind == "rosinality" else layered(kind, 2, 1, 4, True, True)
    torch.save(state, tmp_path / "model.pt")
    command = ["flow", "convert", str(tmp_path / "model.pt"), "--resolution", "16", "--out", str(tmp_path / "flow")]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert kind in result.output
    assert "flow directions" in result.output
    flow = Glow.from_pretrained(tmp_path / "flow" / "flow", low_cpu_mem_usage=False)
    latents = torch.randn(1, flow.num_latents)
    assert (Decoder(flow)(latents) - convert(tmp_path / "model.pt", 16).flow.decode(latents)).abs().max() < 1e-4


def test_wrong_use(tmp_path: Path) -> None:
    whole = GlowGraph(random_glow()).save(tmp_path / "graph.pb")
    (tmp_path / "half.pb").write_bytes(whole.read_bytes()[:5000])
    result = CliRunner().invoke(main, ["flow", "convert", str(tmp_path / "half.pb"), "--out", str(tmp_path / "flow")])
    assert_one_clear_line(subprocess.CompletedProcess([], result.exit_code, "", result.stderr), 2, "truncated")
    assert not (tmp_path / "flow").exists()
    with pytest.raises(ValueError, match="graph shows them"):
        convert(whole, resolution=64)
    conversion = convert(whole)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine").touch()
    with pytest.raises(ValueError, match="is there already"):
        save(conversion, tmp_path / "taken")
    save(conversion, tmp_path / "free")
    for folder in (tmp_path / "free", tmp_path / "free/flow"):  # as `flow convert` leaves it, and where the flow lies in it
        result = CliRunner().invoke(main, ["flow", "info", str(folder)])
        assert (result.exit_code, "sha256" in result.stdout) == (0, True), result.stderr
    np.save(tmp_path / "other.npy", np.zeros((40, 7), np.float32))
    with pytest.raises(ValueError, match="another flow"):
        save(conversion, tmp_path / "flow", tmp_path / "other.npy")
    assert not list(tmp_path.glob("flow*"))


def test_a_machine_without_memory_is_not_a_graph_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a download that is right would be set aside."""
    path = GlowGraph(random_glow(border=True)).save(tmp_path / "graph.pb")
    for error in (MemoryError(), RuntimeError("could not create a primitive")):

        def short(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(GraphGlow, "decode", short)
        with pytest.raises(type(error)) as caught:
            convert(path)
        assert caught.value is error
    monkeypatch.setattr(GraphGlow, "decode", lambda *_: (_ for _ in ()).throw(RuntimeError("expected scalar type Half")))
    with pytest.raises(ValueError, match="cannot be run: expected scalar type Half"):
        convert(path)


class Harmful:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_neither_run_nor_recommended(tmp_path: Path) -> None:
    torch.save({"blocks.0": Harmful(tmp_path / "harm")}, tmp_path / "evil.pt")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    (tmp_path / "text.pt").write_text("weights")
    for name, words in (
        ("evil", "code and are never run"),
        ("module", "code and are never run"),
        ("text", "no file of torch.save"),
    ):
        with pytest.raises(ValueError, match=words) as caught:
            convert(tmp_path / f"{name}.pt")
        assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "harm").exists()
