"""From a frozen graph to a program: what depends on the latents, in order; everything else evaluated once.

Inputs of an instruction are written as in its JSON: ``"%3"`` is a value (the latents come first, then a value per instruction),
``"#3"`` a constant, anything else stands for itself. The batch is 1 while a graph is compiled: a shape taken from it turns into a
constant, and constants broadcast.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from celebglow.convert.graphdef import Node, read_graph
from celebglow.convert.tfops import OPERATIONS, TORCH_DTYPES, ints, slices
from splits.errors import InputError

OUTPUT = "model_1/Cast_1"  # the published graph's; another graph's image is its one unused cast to uint8
LATENTS = re.compile(r"Placeholder(?:_(\d+))?")
PUBLISHED_SHAPES = [(128, 128, 6), (64, 64, 12), (32, 32, 24), (16, 16, 48), (8, 8, 96), (4, 4, 384)]
GRAY = 128  # of the low-resolution image that the published graph can be conditioned on: preprocessed, it is 0
INLINE = 64  # numbers; longer ones than shapes and axes are never inlined
OPTIMIZED = "graph_optimized.pb needs a discontinued library of GPU operations: take graph_unoptimized.pb"


class UnsupportedGraph(InputError):
    """The graph is whole, but cannot be run."""


@dataclass(frozen=True)
class Instruction:
    op: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any]


@dataclass
class Program:
    """Latents in, image out.

    ``latent_shapes``: (H, W, C) of each, fine to coarse; ``output``: the image's value, of ``output_shape`` (1, H, W, C).
    """

    latent_shapes: list[tuple[int, int, int]]
    instructions: list[Instruction]
    constants: list[Tensor]
    output: str
    output_shape: tuple[int, ...]

    def instruction(self, value: Any) -> Instruction | None:
        """What computes a value; None for latents, constants and numbers."""
        if not isinstance(value, str) or value[0] != "%":
            return None
        index = int(value[1:]) - len(self.latent_shapes)
        return self.instructions[index] if index >= 0 else None

    def constant(self, value: Any) -> Tensor | None:
        """A constant or number as a tensor; None for what depends on the latents."""
        if isinstance(value, str):
            return self.constants[int(value[1:])] if value[0] == "#" else None
        return torch.tensor(value)


def run(instruction: Instruction, lookup: Mapping[str, Tensor]) -> Tensor:
    """Its value, given those of its inputs."""
    inputs = [lookup[value] if isinstance(value, str) else value for value in instruction.inputs]
    return OPERATIONS[instruction.op](instruction.attributes, *inputs)


def compile_graph(path: str | Path) -> Program:
    """The decoder of the frozen Glow graph in a file.

    Raises:
        NotAGraph: if the file is not a whole GraphDef.
        UnsupportedGraph: if it needs what is not known here; names it.
    """
    path = Path(path)
    graph = read_graph(path)
    output = _output(graph, path)
    order = _ancestors(graph, output, path)
    unknown = sorted({node.op for node in order} - OPERATIONS.keys() - {"Const", "Placeholder"})
    optimized = "optimized" in path.name and "unoptimized" not in path.name
    if unknown or optimized:
        reason = f"{path} needs unknown operations ({', '.join(unknown)})" if unknown else str(path)
        raise UnsupportedGraph(f"{reason}. {OPTIMIZED}" if unknown else f"{reason}: {OPTIMIZED}")
    return _Compiler(path, order).program(output)


def _output(graph: Mapping[str, Node], path: Path) -> str:
    if OUTPUT in graph:
        return OUTPUT
    used = {_source(name) for node in graph.values() for name in node.inputs}
    ends = [name for name, node in graph.items() if node.op == "Cast" and node.attributes.get("DstT") == "|u1" and name not in used]
    if len(ends) != 1:
        raise UnsupportedGraph(
            f"{path} has no image at its end ({OUTPUT}, or one cast to uint8): it is another model, or truncated"
        )
    return ends[0]


def _source(name: str) -> str:
    return name.removeprefix("^").partition(":")[0]


def _ancestors(graph: Mapping[str, Node], output: str, path: Path) -> list[Node]:
    """What the output needs, inputs first."""
    order: list[Node] = []
    state: dict[str, bool] = {}  # False: being visited
    stack = [(output, False)]
    while stack:
        name, leave = stack.pop()
        if leave:
            state[name] = True
            order.append(graph[name])
        elif name not in state:
            if name not in graph:
                raise UnsupportedGraph(f"{path} lacks the node {name}: it is truncated")
            state[name] = False
            stack.append((name, True))
            for source in graph[name].inputs:
                if source.partition(":")[2] not in ("", "0"):
                    raise UnsupportedGraph(f"{path}: {name} uses a second output ({source}), which no supported operation has")
                if not source.startswith("^"):
                    if state.get(_source(source)) is False:
                        raise UnsupportedGraph(f"{path} has a loop at {name}")
                    stack.append((_source(source), False))
    return order


def _shape(node: Node) -> tuple[int, ...]:
    """Of a placeholder, as far as it says one."""
    shape = node.attributes.get("shape")
    return shape if isinstance(shape, tuple) else ()


class _Compiler:
    def __init__(self, path: Path, order: list[Node]) -> None:
        self.path = path
        self.order = order
        self.known: dict[str, Tensor] = {}  # nodes that don't depend on the latents
        self.values: dict[str, str] = {}  # the others' values, "%3"
        self.shapes: dict[str, Tensor] = {}  # their shapes, as tensors without content
        self.instructions: list[Instruction] = []
        self.constants: list[Tensor] = []
        self.references: dict[str, Any] = {}
        placeholders = {node.name: node for node in order if node.op == "Placeholder"}
        latents = sorted((int(match[1] or 0), name) for name in placeholders if (match := LATENTS.fullmatch(name)))
        if not latents:
            raise UnsupportedGraph(
                f"the image of {path} does not depend on latents (Placeholder, Placeholder_1, …): it is another model"
            )
        self.latent_shapes = self._latent_shapes([placeholders.pop(name) for _, name in latents])
        for index, (_, name) in enumerate(latents):
            self.values[name] = f"%{index}"
            self.shapes[self.values[name]] = torch.zeros(1, *self.latent_shapes[index], device="meta")
        for node in placeholders.values():
            self.known[node.name] = self._condition(node)

    def _latent_shapes(self, nodes: list[Node]) -> list[tuple[int, int, int]]:
        shapes = [_shape(node)[1:] for node in nodes]
        if all(len(shape) == 3 and min(shape) > 0 for shape in shapes):
            return [(height, width, channels) for height, width, channels in shapes]
        if len(nodes) != len(PUBLISHED_SHAPES):
            raise UnsupportedGraph(
                f"{self.path} does not say the shapes of its latents, and they are not six as in the published model"
            )
        return PUBLISHED_SHAPES

    def _condition(self, node: Node) -> Tensor:
        """The value of an input that is not a latent, as the published demo sets it."""
        dtype = TORCH_DTYPES.get(str(node.attributes.get("dtype")), torch.float32)
        name = node.name.rpartition("/")[2]
        if "label" in name:
            return torch.zeros(1, dtype=dtype)
        if "downsampled" in name:
            shape = _shape(node)[1:]
            if len(shape) != 3 or min(shape) < 1:
                shape = (*self.latent_shapes[0][:2], 3)
            return torch.full((1, *shape), GRAY, dtype=dtype)
        raise UnsupportedGraph(f"{self.path} needs an input that is not known here: {node.name}")

    def program(self, output: str) -> Program:
        for node in self.order:
            if node.op == "Const":
                value = node.attributes.get("value")
                if not isinstance(value, np.ndarray):
                    raise UnsupportedGraph(f"{self.path}: the constant {node.name} has no value: the file is truncated")
                self.known[node.name] = torch.from_numpy(value.copy())
            elif node.op != "Placeholder":
                try:
                    self._add(node)
                except Exception as error:  # whatever odd inputs and attributes make torch raise
                    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                    raise UnsupportedGraph(f"{self.path}: {node.name} ({node.op}) cannot be run: {reason}") from error
        value = self.values.get(output)
        shape = tuple(self.shapes[value].shape) if value else ()
        if value is None or len(shape) != 4 or shape[1:] != self._image_shape():
            raise UnsupportedGraph(f"{self.path}: from latents {self.latent_shapes} an image {shape} is no invertible map")
        return Program(self.latent_shapes, self.instructions, self.constants, value, shape)

    def _image_shape(self) -> tuple[int, int, int]:
        height, width, _ = self.latent_shapes[0]
        return 2 * height, 2 * width, sum(math.prod(shape) for shape in self.latent_shapes) // (4 * height * width)

    def _add(self, node: Node) -> None:
        sources = [_source(name) for name in node.inputs if not name.startswith("^")]
        attributes = {key: value.decode() if isinstance(value, bytes) else value for key, value in node.attributes.items()}
        if not any(source in self.values for source in sources):
            self.known[node.name] = OPERATIONS[node.op](attributes, *(self.known[source] for source in sources))
            return
        if node.op == "Identity":
            self.values[node.name] = self.values[sources[0]]
            return
        if node.op == "Shape":
            shape = self.shapes[self.values[sources[0]]].shape
            self.known[node.name] = torch.tensor(shape, dtype=torch.int32)
            return
        inputs = tuple(self.values[source] if source in self.values else self._reference(source) for source in sources)
        kept = {key: value for key, value in attributes.items() if isinstance(value, str | int | float | list) and key[0] != "_"}
        instruction = self._keep_batch(Instruction(node.op, inputs, kept))
        value = f"%{len(self.latent_shapes) + len(self.instructions)}"
        result = run(instruction, self.shapes)
        if not result.ndim or result.shape[0] != 1:
            raise InputError("it mixes the images of a batch")
        self.shapes[value] = result
        self.values[node.name] = value
        self.instructions.append(instruction)

    def _reference(self, source: str) -> Any:
        """A constant as an instruction's input: shapes and single numbers as themselves, others by number."""
        if source not in self.references:
            constant = self.known[source]
            if constant.numel() <= INLINE and (not constant.ndim or not constant.is_floating_point()):
                self.references[source] = constant.tolist()
            else:
                self.references[source] = f"#{len(self.constants)}"
                self.shapes[self.references[source]] = constant.to("meta")
                self.constants.append(constant.float())
        return self.references[source]

    def _keep_batch(self, instruction: Instruction) -> Instruction:
        """Where the batch size 1 of compilation stands for any batch, say so."""
        if instruction.op == "Reshape":
            x, shape = instruction.inputs
            resolved = self.shapes[x].reshape(ints(shape)).shape
            return Instruction("Reshape", (x, [-1, *resolved[1:]]), {})
        if instruction.op == "StridedSlice":
            x, begin, end, strides = instruction.inputs
            first = slices(instruction.attributes, begin, end, strides)[0]
            if isinstance(first, slice) and range(1)[first] == range(1):
                mask = {key: instruction.attributes.get(key, 0) | 1 for key in ("begin_mask", "end_mask")}
                return Instruction("StridedSlice", (x, begin, end, strides), instruction.attributes | mask)
        return instruction


def needed(program: Program) -> Iterable[int]:
    """The numbers of the instructions that the output needs, in order."""
    latents = len(program.latent_shapes)
    wanted = {program.output}
    keep = []
    for index in range(len(program.instructions) - 1, -1, -1):
        if f"%{index + latents}" in wanted:
            keep.append(index)
            wanted.update(value for value in program.instructions[index].inputs if isinstance(value, str))
    return reversed(keep)
