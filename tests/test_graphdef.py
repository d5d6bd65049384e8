"""Frozen graphs, read and run without TensorFlow: the patterns of the original code, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from celebglow.convert.checkpoints import convert
from celebglow.convert.graph_compiler import UnsupportedGraph, compile_graph
from celebglow.convert.graph_glow import GraphGlow
from celebglow.convert.graphdef import NotAGraph, read_graph
from helpers.flows import random_glow
from helpers.graphs import GlowGraph, GraphWriter, entry, varint


def test_only_what_depends_on_the_latents_is_left_to_run(tmp_path: Path) -> None:
    flow = random_glow(border=True)
    plain, folded = (compile_graph(GlowGraph(flow, folded).save(tmp_path / "graph.pb")) for folded in (False, True))
    assert [each.op for each in plain.instructions] == [each.op for each in folded.instructions]
    assert not {each.op for each in plain.instructions} & {"MatrixInverse", "Fill", "Tile", "Shape", "OneHot", "Identity"}


def test_a_graph_that_rounds_in_its_own_way_gives_its_own_pixels(tmp_path: Path) -> None:
    writer = GraphWriter()
    z = writer.add("Placeholder", dtype=np.dtype("float32"), shape=(-1, 2, 2, 4))
    x = writer.add(
        "Reshape", writer.add("Transpose", writer.add("Reshape", z, [-1, 2, 2, 1, 2, 2]), [0, 1, 4, 2, 5, 3]), [-1, 4, 4, 1]
    )
    x = writer.add("Maximum", writer.add("Minimum", writer.add("Abs", writer.add("Mul", x, 100.0)), 200.0), 7.0)
    writer.add("Cast", x, SrcT=np.dtype("float32"), DstT=np.dtype("uint8"))
    graph = GraphGlow.from_graph(writer.save(tmp_path / "graph.pb"))
    latents = torch.randn(2, 16)
    expected = torch.nn.functional.pixel_shuffle(latents.reshape(2, 4, 2, 2) * 100, 2).abs().clamp(7, 200).to(torch.uint8)
    assert torch.equal(graph.postprocess(graph.decode(latents)), expected)


def test_a_saved_graph_is_the_graph(tmp_path: Path) -> None:
    flow = random_glow(border=True)
    graph = GraphGlow.from_graph(GlowGraph(flow).save(tmp_path / "graph.pb"))
    graph.save_pretrained(tmp_path / "saved")
    loaded = GraphGlow.from_pretrained(tmp_path / "saved", low_cpu_mem_usage=False)
    latents = torch.randn(2, flow.num_latents)
    assert torch.equal(loaded.decode(latents), graph.decode(latents))


CONSTANTS: dict[str, np.ndarray] = {
    "bytes": np.arange(6, dtype=np.float32).reshape(2, 3),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(-7, np.int64),
    "bools": np.array([True, False]),
    "halves": np.array([0.5, -2.0], np.float16),
    "doubles": np.array([1e-300]),
}


@pytest.mark.parametrize("kind", CONSTANTS)
def test_constants_as_bytes(tmp_path: Path, kind: str) -> None:
    writer = GraphWriter()
    writer.add("Const", name="c", value=CONSTANTS[kind], dtype=CONSTANTS[kind].dtype)
    value = read_graph(writer.save(tmp_path / "graph.pb"))["c"].attributes["value"].array()
    assert value.dtype == CONSTANTS[kind].dtype
    np.testing.assert_array_equal(value, CONSTANTS[kind])


@pytest.mark.parametrize(
    "dtype, fields, expected",
    [
        (1, entry(5, np.array([1.5, 2.5], "<f4").tobytes()), [1.5, 2.5, 2.5, 2.5]),
        (1, varint(5 << 3 | 5) + np.array([3.0], "<f4").tobytes(), [3, 3, 3, 3]),
        (3, entry(7, varint(-5) + varint(6)), [-5, 6, 6, 6]),
        (9, entry(10, 9) + entry(10, 8), [9, 8, 8, 8]),
        (10, entry(11, 1), [1, 1, 1, 1]),
        (19, entry(13, int(np.array([0.25], "<f2").view("<u2")[0])), [0.25] * 4),
        (2, entry(6, np.array([4.0], "<f8").tobytes()), [4, 4, 4, 4]),
        (1, b"", [0, 0, 0, 0]),
    ],
)
def test_constants_as_lists_of_which_the_last_value_repeats(
    tmp_path: Path, dtype: int, fields: bytes, expected: list[float]
) -> None:
    tensor = entry(1, dtype) + entry(2, entry(2, entry(1, 4))) + fields
    node = entry(1, "c") + entry(2, "Const") + entry(5, entry(1, "value") + entry(2, entry(8, tensor)))
    (tmp_path / "graph.pb").write_bytes(entry(1, node))
    np.testing.assert_array_equal(read_graph(tmp_path / "graph.pb")["c"].attributes["value"].array(), expected)


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    data = GlowGraph(random_glow(steps=(1,), widths=4, border=True)).save(tmp_path / "whole.pb").read_bytes()
    path = tmp_path / "graph.pb"
    for size in [0, 1, 2, len(data) - 1, *np.random.default_rng(0).integers(3, len(data), 40)]:
        path.write_bytes(data[:size])
        with pytest.raises((NotAGraph, UnsupportedGraph), match=r"empty|truncated"):
            compile_graph(path)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><html></html>", b"\x93NUMPY\x01\x00", b"PK\x03\x04" + bytes(100)])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "graph.pb"
    path.write_bytes(content)
    with pytest.raises(NotAGraph, match="not a frozen TensorFlow graph"):
        compile_graph(path)


@pytest.mark.parametrize(
    "dtype, sizes, fields",
    [
        (3, [4], entry(7, b"\xff" * 9 + b"\x7f")),  # more than 64 bits
        (3, [4], entry(7, 2**40)),  # more than its type holds
        (19, [4], entry(13, 70000)),
        (1, [2**40], b""),  # a terabyte from eight bytes
        (1, [2**32, 2**32], b""),  # as many elements as 64 bits have none of
        (1, [-4], b""),
    ],
)
def test_numbers_that_cannot_be_are_refused(tmp_path: Path, dtype: int, sizes: list[int], fields: bytes) -> None:
    tensor = entry(1, dtype) + entry(2, b"".join(entry(2, entry(1, size)) for size in sizes)) + fields
    node = entry(1, "c") + entry(2, "Const") + entry(5, entry(1, "value") + entry(2, entry(8, tensor)))
    (tmp_path / "graph.pb").write_bytes(entry(1, node))
    with pytest.raises(NotAGraph, match="not a frozen TensorFlow graph"):
        read_graph(tmp_path / "graph.pb")


def test_two_nodes_of_one_name_are_refused(tmp_path: Path) -> None:
    data = GlowGraph(random_glow(steps=(1,), widths=4)).save(tmp_path / "graph.pb").read_bytes()
    (tmp_path / "graph.pb").write_bytes(data + data)  # appended to itself, as by a download that was resumed wrongly
    with pytest.raises(NotAGraph, match="two nodes of one name"):
        read_graph(tmp_path / "graph.pb")


def test_loops_are_refused(tmp_path: Path) -> None:
    writer = GraphWriter()
    x = writer.add("AddV2", latent(writer), "later")
    writer.add("Relu", x, name="later")
    with pytest.raises(UnsupportedGraph, match="loop at"):
        compile_graph(image_of(writer, "later", tmp_path / "graph.pb"))


def test_odd_attributes_are_refused(tmp_path: Path) -> None:
    writer = GraphWriter()
    x = writer.add("Placeholder", dtype=np.zeros(3, np.float32), shape=5)
    with pytest.raises(UnsupportedGraph, match="no image at its end"):
        compile_graph(image_of(writer, x, tmp_path / "graph.pb"))
    writer = GraphWriter()
    x = writer.add("Conv2D", latent(writer), np.ones((1, 1, 3, 3)), padding=7, strides=3)
    with pytest.raises(UnsupportedGraph, match="cannot be run"):
        compile_graph(image_of(writer, x, tmp_path / "graph.pb"))


def image_of(writer: GraphWriter, x: str, path: Path) -> Path:
    writer.add("Cast", x, SrcT=np.dtype("float32"), DstT=np.dtype("uint8"))
    return writer.save(path)


def latent(writer: GraphWriter, channels: int = 3) -> str:
    return writer.add("Placeholder", dtype=np.dtype("float32"), shape=(-1, 4, 4, channels))


def test_unknown_operations_are_named(tmp_path: Path) -> None:
    writer = GraphWriter()
    x = writer.add("BlocksparseConv", writer.add("EwOp", latent(writer)))
    with pytest.raises(UnsupportedGraph, match=r"EwOp \(first at EwOp\), BlocksparseConv.*take graph_unoptimized\.pb"):
        compile_graph(image_of(writer, x, tmp_path / "graph.pb"))
    writer = GraphWriter()
    x = writer.add("NonMaxSuppression", writer.add("Relu", latent(writer)), name="odd")
    with pytest.raises(UnsupportedGraph, match=r"NonMaxSuppression \(first at odd\).*ood-data flow doctor"):
        compile_graph(image_of(writer, x, tmp_path / "graph.pb"))


def test_a_graph_that_is_not_frozen_is_told_how_to_freeze(tmp_path: Path) -> None:
    writer = GraphWriter()
    x = writer.add("MatMul", latent(writer), writer.add("VariableV2", name="weights"))
    with pytest.raises(ValueError, match="it is not frozen: 1 of its nodes are variables without a value, as weights"):
        compile_graph(image_of(writer, x, tmp_path / "graph.pb"))


@pytest.mark.parametrize(
    "name, what",
    [("saved_model.pb", "a SavedModel"), ("model.meta", "a MetaGraph"), ("model.data-00000-of-00001", "a part of a checkpoint")],
)
def test_what_else_tensorflow_writes_is_named(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_bytes(b"\x08\x01\x12\xff")
    with pytest.raises(ValueError, match=f"is {what}, and a frozen graph in one binary file is expected"):
        read_graph(tmp_path / name)


def test_a_graph_is_judged_by_its_operations_not_by_its_name(tmp_path: Path) -> None:
    """OpenAI's graph_optimized.pb is refused for what it holds; what others call optimized may run."""
    compile_graph(GlowGraph(random_glow(steps=(1,), widths=4)).save(tmp_path / "graph_optimized.pb"))
    writer = GraphWriter()
    x = writer.add("Custom", latent(writer))
    with pytest.raises(UnsupportedGraph, match=r"Custom \(first at Custom\).*take graph_unoptimized\.pb"):
        compile_graph(image_of(writer, x, tmp_path / "graph_optimized.pb"))


def test_operations_that_the_image_does_not_need_may_be_unknown(tmp_path: Path) -> None:
    graph = GlowGraph(random_glow(steps=(1,), widths=4))
    graph.add("QueueDequeueV2", "input/label")
    compile_graph(graph.save(tmp_path / "graph.pb"))


def test_other_models_are_refused(tmp_path: Path) -> None:
    writer = GraphWriter()
    with pytest.raises(UnsupportedGraph, match="invertible"):
        compile_graph(image_of(writer, writer.add("Relu", latent(writer)), tmp_path / "graph.pb"))
    writer = GraphWriter()
    style = writer.add("Placeholder", name="style", dtype=np.dtype("float32"), shape=(-1, 4, 4, 3))
    with pytest.raises(UnsupportedGraph, match="style"):
        compile_graph(image_of(writer, writer.add("AddV2", latent(writer), style), tmp_path / "graph.pb"))
    writer = GraphWriter()
    with pytest.raises(UnsupportedGraph, match="no image at its end"):
        compile_graph(image_of(writer, writer.const(np.zeros((1, 4, 4, 3))), tmp_path / "graph.pb"))
    writer = GraphWriter()
    with pytest.raises(UnsupportedGraph, match="no image"):
        compile_graph(GraphWriter.save((latent(writer), writer)[1], tmp_path / "graph.pb"))


def test_images_of_a_batch_must_not_mix(tmp_path: Path) -> None:
    writer = GraphWriter()
    x = writer.add("Reshape", writer.add("Transpose", latent(writer, 4), [1, 0, 2, 3]), [1, 8, 8, 1])
    converted = image_of(writer, x, tmp_path / "graph.pb")
    with pytest.raises(ValueError, match="cannot be run in batches"):
        convert(converted)


def test_the_shapes_of_latents_are_found_where_the_graph_says_none(tmp_path: Path) -> None:
    """As optimize_for_inference and strip_unused leave it: by the image that the last reshape gives."""
    flow = random_glow(resolution=256, steps=(1,) * 6, widths=2, border=True)
    program = compile_graph(GlowGraph(flow, shapes=False).save(tmp_path / "graph.pb"))
    assert program.latent_shapes == [(h, w, c) for c, h, w in flow.latent_shapes]
    assert program.output_shape == (1, 256, 256, 3)


def test_a_huge_constant_costs_nothing_unless_it_is_used(tmp_path: Path) -> None:
    def huge(writer: GraphWriter) -> str:
        """Two gigabytes from eight bytes."""
        tensor = entry(1, 1) + entry(2, entry(2, entry(1, 2**29 - 1))) + entry(5, np.array([1.0, 2.0], "<f4").tobytes())
        value = entry(5, entry(1, "value") + entry(2, entry(8, tensor)))
        writer.nodes.append(entry(1, entry(1, "huge") + entry(2, "Const") + value))
        return "huge"

    graph = GlowGraph(random_glow(steps=(1,), widths=4))
    huge(graph)
    compile_graph(graph.save(tmp_path / "graph.pb"))
    writer = GraphWriter()
    with pytest.raises(NotAGraph, match="damaged"):
        compile_graph(image_of(writer, writer.add("AddV2", latent(writer), huge(writer)), tmp_path / "graph.pb"))


def test_two_images_at_the_end_are_named(tmp_path: Path) -> None:
    writer = GraphWriter()
    x = latent(writer)
    for name in ("first", "second"):
        writer.add("Cast", x, name=name, SrcT=np.dtype("float32"), DstT=np.dtype("uint8"))
    with pytest.raises(UnsupportedGraph, match="first, second"):
        compile_graph(writer.save(tmp_path / "graph.pb"))
