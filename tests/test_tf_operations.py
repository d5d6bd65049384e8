"""TensorFlow's operations in torch, against what TensorFlow 1.8 computed (golden/make_tf_operations.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from celebglow.convert.graph_compiler import Compiler, ancestors, run
from celebglow.convert.graphdef import Constant, Graph, read_graph
from celebglow.convert.tfops import OPERATIONS
from helpers.commands import ROOT

with np.load(ROOT / "tests/golden/tf_operations.npz") as file:
    GOLDEN: dict[str, NDArray[Any]] = dict(file)
CASES = sorted({name.rpartition("/")[0] for name in GOLDEN})
OURS = {"Convolve"}  # not TensorFlow's
# Later than TensorFlow 1.8, or without a kernel on its CPU: what they are alike to is tested.
UNSEEN = {
    "AddV2", "BatchMatMulV2", "BroadcastTo", "EnsureShape", "FusedBatchNormV2", "FusedBatchNormV3", "LeakyRelu", "PreventGradient",
    "RandomStandardNormal", "RandomUniform", "SelectV2", "Snapshot", "_FusedConv2D",
}  # fmt: skip


def graph_of(case: str, path: Path) -> Graph:
    path.write_bytes(GOLDEN[f"{case}/graph"].tobytes())
    return read_graph(path)


def inputs_of(case: str) -> dict[str, Tensor]:
    arrays = {name.rpartition("/")[2]: array for name, array in GOLDEN.items() if name.startswith(f"{case}/x")}
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def outputs_of(case: str) -> dict[str, NDArray[Any]]:
    return {name.rpartition("/")[2]: array for name, array in GOLDEN.items() if name.startswith(f"{case}/out")}


def evaluate(graph: Graph, feeds: dict[str, Tensor], outputs: list[str]) -> Iterator[Tensor]:
    known: dict[str, Tensor] = dict(feeds)
    for node in ancestors(graph, outputs):
        if node.op == "Const":
            assert isinstance(node.attributes["value"], Constant)
            known[node.name] = torch.from_numpy(node.attributes["value"].array().copy())
        elif node.op != "Placeholder":
            attributes = {key: value.decode() if isinstance(value, bytes) else value for key, value in node.attributes.items()}
            result = OPERATIONS[node.op](attributes, *(known[source] for source in node.inputs if source[0] != "^"))
            for index, each in enumerate(result if isinstance(result, tuple) else [result]):
                known[f"{node.name}:{index}" if index else node.name] = each
    return (known[name] for name in outputs)


def assert_equal(ours: Tensor, theirs: NDArray[Any]) -> None:
    assert tuple(ours.shape) == theirs.shape
    assert ours.numpy().dtype == theirs.dtype
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_values_shapes_and_types_are_tensorflows(case: str, tmp_path: Path) -> None:
    expected = outputs_of(case)
    for ours, theirs in zip(
        evaluate(graph_of(case, tmp_path / "g.pb"), inputs_of(case), list(expected)), expected.values(), strict=True
    ):
        assert_equal(ours, theirs)


@pytest.mark.parametrize("case", [case for case in CASES if GOLDEN.get(f"{case}/x0", np.empty(0)).ndim == 4])
def test_compiled_for_one_image_it_runs_on_a_batch(case: str, tmp_path: Path) -> None:
    """The first input as a latent: shapes are found without values, and the batch size of compilation is not built in."""
    feeds = inputs_of(case)
    graph, expected = graph_of(case, tmp_path / "g.pb"), outputs_of(case)
    batch = feeds["x0"].shape[0]
    if any(array.shape[:1] != (batch,) for array in expected.values()) or batch != 2:
        return  # it mixes its batch on purpose: never a part of a decoder
    order = ancestors(graph, list(expected))
    compiler = Compiler(order, {"x0": tuple(feeds["x0"].shape[1:])}, {name: x for name, x in feeds.items() if name != "x0"})
    compiler.compile(next(iter(expected)))
    lookup = {"%0": feeds["x0"]} | {f"#{index}": constant for index, constant in enumerate(compiler.constants)}
    for index, instruction in enumerate(compiler.instructions):
        lookup[f"%{index + 1}"] = run(instruction, lookup)
    for name, theirs in expected.items():
        if name in compiler.values:
            np.testing.assert_allclose(lookup[compiler.values[name]].numpy(), theirs, rtol=2e-5, atol=2e-5)


def test_every_operation_has_a_case(tmp_path: Path) -> None:
    tested = {node.op for case in CASES for node in graph_of(case, tmp_path / "g.pb").values()}
    assert OPERATIONS.keys() - tested - OURS == UNSEEN
