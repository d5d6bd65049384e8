"""Compile a frozen graph to a program: what depends on the latents, in order; everything else evaluated once.

Inputs of an instruction are written as in its JSON: `"%3"` is a value (the latents come first, then a value per instruction),
`"#3"` a constant, anything else stands for itself. The batch is 1 while a graph is compiled: a shape taken from it turns into a
constant, and constants broadcast.

One module, though a long one: a compiler and the instructions that it makes are read together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from celebglow.convert.graphdef import FREEZE, Constant, Graph, Node, NotAGraph, read_graph
from celebglow.convert.tfops import IDENTITIES, OPERATIONS, slices
from celebglow.convert.tfops_values import TORCH_DTYPES, ints
from splits.errors import InputError

OUTPUT = "model_1/Cast_1"  # the published graph's; another graph's image is its last cast to uint8
# In the published graph they are Placeholder, Placeholder_1, …; the public code calls them dec_eps_0, … (model.py, f_decode).
LATENTS = re.compile(r"(?:.*/)?(?:Placeholder(?:_(?P<placeholder>\d+))?|dec_eps_(?P<eps>\d+))")
PUBLISHED_SHAPES = [(128, 128, 6), (64, 64, 12), (32, 32, 24), (16, 16, 48), (8, 8, 96), (4, 4, 384)]
GRAY = 128  # of the low-resolution image that the published graph can be conditioned on: preprocessed, it is 0
INLINE = 64  # numbers; longer ones than shapes and axes are never inlined
TYPES = [*TORCH_DTYPES, *([name] for name in TORCH_DTYPES)]
GPU_OPERATIONS = "its operations are of a discontinued GPU library: take graph_unoptimized.pb"
VARIABLES = {"Variable", "VariableV2", "VarHandleOp"}
REPORT = "`ood-data flow doctor` prints a page about the file that you can paste into a bug report"


class UnsupportedGraph(InputError):
    """The graph is whole, but cannot be run."""


class NotKnownHere(UnsupportedGraph):
    """The graph has an operation or an input that is not known here: another download of it would not help."""


@dataclass(frozen=True)
class Instruction:
    """`output`, an attribute, is the number of the result that is meant where an operation has several."""

    op: str
    inputs: tuple[Any, ...]
    attributes: dict[str, Any]


@dataclass
class Program:
    """Latents in, image out.

    `latent_shapes`: (H, W, C) of each, fine to coarse; `output`: the image's value, of `output_shape` (1, H, W, C).
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

    def pruned(self) -> Program:
        """The same without instructions and constants that the output does not need."""
        first = len(self.latent_shapes)
        wanted, keep = {self.output}, []
        for index in range(len(self.instructions) - 1, -1, -1):
            if f"%{index + first}" in wanted:
                keep.append(index)
                wanted.update(value for value in self.instructions[index].inputs if isinstance(value, str))
        keep.reverse()
        used = sorted(int(value[1:]) for value in wanted if value[0] == "#")
        names = {f"%{first + old}": f"%{first + new}" for new, old in enumerate(keep)}
        names |= {f"#{old}": f"#{new}" for new, old in enumerate(used)}
        instructions = [
            replace(each, inputs=tuple(names.get(v, v) if isinstance(v, str) else v for v in each.inputs))
            for each in (self.instructions[index] for index in keep)
        ]
        return Program(
            self.latent_shapes,
            instructions,
            [self.constants[index] for index in used],
            names.get(self.output, self.output),
            self.output_shape,
        )


def run(instruction: Instruction, lookup: Mapping[str, Tensor]) -> Tensor:
    """Its value, given those of its inputs."""
    inputs = [lookup[value] if isinstance(value, str) else value for value in instruction.inputs]
    result = OPERATIONS[instruction.op](instruction.attributes, *inputs)
    return result[instruction.attributes.get("output", 0)] if isinstance(result, tuple) else result


def compile_graph(path: str | Path) -> Program:
    """The decoder of the frozen Glow graph in a file.

    Raises:
        NotAGraph: if the file is not a whole GraphDef.
        UnsupportedGraph: if it needs what is not known here; names it.
    """
    path = Path(path)
    graph = read_graph(path)
    try:
        output = find_output(graph)
        order = ancestors(graph, [output])
        if variables := [node.name for node in order if node.op in VARIABLES]:
            raise UnsupportedGraph(
                f"it is not frozen: {len(variables):,} of its nodes are variables without a value, as {variables[0]}. {FREEZE}"
            )
        if unknown := unknown_operations(order):
            raise NotKnownHere(_about_unknown(unknown, path))
        return Compiler(order).program(output)
    except InputError as error:
        report = f". {REPORT[0].upper()}{REPORT[1:]}" if isinstance(error, UnsupportedGraph) and "report" not in str(error) else ""
        raise type(error)(f"{path}: {error}{report}") from error.__cause__


def find_output(graph: Graph) -> str:
    """The name of the node that is the decoded image.

    Raises:
        UnsupportedGraph: if there is none, or several could be it.
    """
    casts = [name for name, node in graph.items() if node.op == "Cast" and node.attributes.get("DstT") == "|u1"]
    reached: dict[str, set[str]] = {}
    for name in casts:
        reached[name] = {node.name for node in ancestors(graph, [name], whole=False)}
    decoded = [name for name in casts if any(latent_number(graph[node]) is not None for node in reached[name])]
    decoded = [name for name in decoded if not any(name in reached[other] for other in decoded if other != name)]
    if OUTPUT in decoded:
        return OUTPUT
    if not decoded:
        raise UnsupportedGraph(
            "it has no image at its end: a cast to uint8 that depends on latents (Placeholder, Placeholder_1, …, or dec_eps_0, …); "
            "it is another model, or truncated"
        )
    if len(decoded) > 1:
        raise UnsupportedGraph(f"it has several images at its end ({', '.join(decoded)}), and which is decoded is not known")
    return decoded[0]


def latent_number(node: Node) -> int | None:
    """Which of the latents a node is, from 0; None for any other."""
    if node.op != "Placeholder" or node.attributes.get("dtype", "<f4") != "<f4" or not (match := LATENTS.fullmatch(node.name)):
        return None
    return int(match["placeholder"] or match["eps"] or 0)


def ancestors(graph: Graph, outputs: Sequence[str], whole: bool = True) -> list[Node]:
    """What the outputs need, inputs first.

    Raises:
        UnsupportedGraph: if something is missing (unless not `whole`), or there is a loop.
    """
    order: list[Node] = []
    state: dict[str, bool] = {}  # False: being visited
    stack = [(name, False) for name in reversed(outputs)]
    while stack:
        name, leave = stack.pop()
        if leave:
            state[name] = True
            order.append(graph[name])
        elif name not in state:
            if name not in graph:
                if not whole:
                    continue
                raise UnsupportedGraph(f"it lacks the node {name}: it is truncated")
            state[name] = False
            stack.append((name, True))
            for source in graph[name].inputs:
                if not source.startswith("^"):
                    if state.get(node_of(source)) is False:
                        if not whole:
                            continue
                        raise UnsupportedGraph(f"it has a loop at {name}")
                    stack.append((node_of(source), False))
    return order


def node_of(source: str) -> str:
    """The node that an input names: `Split:1` is the second output of `Split`."""
    return source.removeprefix("^").partition(":")[0]


def unknown_operations(order: Iterable[Node]) -> dict[str, Node]:
    """The operations that are not known here, each with the first node that has it."""
    unknown: dict[str, Node] = {}
    for node in order:
        if node.op not in OPERATIONS and node.op not in ("Const", "Placeholder"):
            unknown.setdefault(node.op, node)
    return unknown


def _about_unknown(unknown: Mapping[str, Node], path: Path) -> str:
    named = ", ".join(f"{op} (first at {node.name})" for op, node in unknown.items())
    optimized = "optimized" in path.name and "unoptimized" not in path.name
    advice = GPU_OPERATIONS if optimized or any(op.startswith(("Blocksparse", "Ew")) for op in unknown) else REPORT
    return f"it needs operations that are not known here: {named}. {advice[0].upper()}{advice[1:]}"


def _shape(node: Node) -> tuple[int, ...]:
    """The shape of a placeholder, as far as it states one."""
    shape = node.attributes.get("shape")
    return shape if isinstance(shape, tuple) else ()


class Compiler:
    """Compiles nodes that are given inputs first.

    `given`: latents by name, where they are not to be found by their names, with their shapes (H, W, C); `fed`: the values of
    other inputs, where they are not to be the demo's.
    """

    def __init__(
        self, order: Sequence[Node], given: Mapping[str, tuple[int, ...]] | None = None, fed: Mapping[str, Tensor] | None = None
    ) -> None:
        self.order = order
        self.known: dict[str, Tensor] = {}  # what doesn't depend on the latents, by node, or "node:1"
        self.values: dict[str, str] = {}  # what does, as a value ("%3")
        self.shapes: dict[str, Tensor] = {}  # of values and constants, as tensors without content
        self.instructions: list[Instruction] = []
        self.constants: list[Tensor] = []
        self.references: dict[str, Any] = {}
        placeholders = {node.name: node for node in order if node.op == "Placeholder"}
        latents = dict(given) if given else self._latents(placeholders)
        self.latent_shapes = list(latents.values())
        for index, (name, shape) in enumerate(latents.items()):
            self.values[name] = f"%{index}"
            self.shapes[self.values[name]] = torch.zeros(1, *shape, device="meta")
        for name, node in placeholders.items():
            if name not in latents:
                self.known[name] = fed[name] if fed and name in fed else self._condition(node)

    def _latents(self, placeholders: Mapping[str, Node]) -> dict[str, tuple[int, ...]]:
        numbered = {name: number for name, node in placeholders.items() if (number := latent_number(node)) is not None}
        names = sorted(numbered, key=lambda name: numbered[name])
        if not names:
            raise UnsupportedGraph(
                "its image does not depend on latents (Placeholder, Placeholder_1, …, or dec_eps_0, …): it is another model"
            )
        if len(set(numbered.values())) < len(names):
            raise UnsupportedGraph(f"which of its inputs comes first is not clear: {', '.join(names)}")
        shapes = [_shape(placeholders[name])[1:] for name in names]
        if not all(len(shape) == 3 and min(shape) > 0 for shape in shapes):
            shapes = self._usual_shapes(len(names))
        return dict(zip(names, shapes, strict=True))

    def _usual_shapes(self, count: int) -> list[tuple[int, ...]]:
        """Those of a Glow with that image: optimizers drop the shapes of placeholders, and reshapes keep them."""
        constants = {node.name: node.attributes.get("value") for node in self.order if node.op == "Const"}
        reshaped = [constants.get(node_of(node.inputs[1])) for node in self.order if node.op == "Reshape" and len(node.inputs) > 1]
        sides = [
            (height, width, channels)
            for shape in reshaped
            if isinstance(shape, Constant) and shape.shape == (4,)
            for _, height, width, channels in [shape.array().tolist()]
            if min(height, width, channels) > 0
        ]
        if not sides:
            if count == len(PUBLISHED_SHAPES):
                return list(PUBLISHED_SHAPES)
            raise UnsupportedGraph("it does not say the shapes of its latents, and they are not six as in the published model")
        height, width, channels = max(sides, key=lambda shape: shape[0] * shape[1])
        shapes = [(height >> level, width >> level, channels << level) for level in range(1, count + 1)]
        *finer, (height, width, channels) = shapes
        return [*finer, (height, width, 2 * channels)]

    def _condition(self, node: Node) -> Tensor:
        """The value of an input that is not a latent, as the published demo sets it."""
        dtype = TORCH_DTYPES.get(str(node.attributes.get("dtype")), torch.float32)
        name = node.name.rpartition("/")[2]
        shape = tuple(abs(size) for size in _shape(node)[1:])
        if "downsampled" in name:
            height, width, _ = self.latent_shapes[0]
            told = _shape(node)[1:] if len(shape) == 3 else (0, 0, 3)
            shape = tuple(size if size > 0 else usual for size, usual in zip(told, (height, width, 3), strict=True))
            return torch.full((1, *shape), GRAY, dtype=dtype)
        if "label" in name or name == "y":
            return torch.zeros(1, *shape, dtype=dtype)
        if dtype == torch.bool:  # whether it is training
            return torch.zeros(shape, dtype=dtype)
        raise NotKnownHere(f"it needs an input that is not known here: {node.name}")

    def program(self, output: str) -> Program:
        """The program that computes an image.

        Raises:
            UnsupportedGraph: if a node cannot be run, or what comes out is no image that the latents determine and vice versa.
        """
        value = self.compile(output)
        shape = tuple(self.shapes[value].shape) if value else ()
        if value is None or len(shape) != 4 or shape[1:] != self._image_shape():
            raise UnsupportedGraph(f"from latents {self.latent_shapes} an image {shape} is no invertible map")
        if shape[0] != 1:
            raise UnsupportedGraph(
                "its image is not one for each of its latents: its batch has a fixed size, or it mixes the images of one"
            )
        if shape[1] != shape[2]:
            raise UnsupportedGraph(f"its images are of {shape[1]} × {shape[2]}, and square ones are expected")
        latents = [(height, width, channels) for height, width, channels in self.latent_shapes]
        return Program(latents, self.instructions, self.constants, value, shape)

    def compile(self, output: str) -> str | None:
        """Compile every node; returns the value of one, None if it does not depend on the latents."""
        for node in self.order:
            if node.op == "Const":
                constant = node.attributes.get("value")
                if not isinstance(constant, Constant):
                    raise UnsupportedGraph(f"the constant {node.name} has no value: the file is truncated")
                self.known[node.name] = torch.from_numpy(constant.array().copy())
            elif node.op != "Placeholder":
                try:
                    self._add(node)
                except NotAGraph:
                    raise
                except Exception as error:  # whatever odd inputs and attributes make torch raise
                    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
                    raise UnsupportedGraph(f"{node.name} ({node.op}) cannot be run: {reason}") from error
        return self.values.get(output)

    def _image_shape(self) -> tuple[int, int, int]:
        height, width, _ = self.latent_shapes[0]
        return 2 * height, 2 * width, sum(math.prod(shape) for shape in self.latent_shapes) // (4 * height * width)

    def _add(self, node: Node) -> None:
        sources = [name.removesuffix(":0") for name in node.inputs if not name.startswith("^")]
        attributes = {key: value.decode() if isinstance(value, bytes) else value for key, value in node.attributes.items()}
        if not any(source in self.values for source in sources):
            self._evaluate(node, attributes, [self.known[source] for source in sources])
        elif node.op in IDENTITIES:
            self.values[node.name] = self.values[sources[0]]
        elif node.op in ("ZerosLike", "OnesLike"):
            self._evaluate(node, attributes, [torch.zeros(self.shapes[self.values[sources[0]]].shape)])
        elif node.op in ("Shape", "ShapeN", "Rank", "Size"):  # of one image: constants broadcast over a batch
            arguments = [self.shapes[self.values[each]] if each in self.values else self.known[each] for each in sources]
            self._evaluate(node, attributes, arguments)
        else:
            self._emit(node, sources, attributes)

    def _evaluate(self, node: Node, attributes: dict[str, Any], arguments: list[Tensor]) -> None:
        """What does not depend on the latents: its results are known from now on."""
        result = OPERATIONS[node.op](attributes, *arguments)
        for index, each in enumerate(result if isinstance(result, tuple) else [result]):
            self.known[_numbered(node.name, index)] = each

    def _emit(self, node: Node, sources: list[str], attributes: dict[str, Any]) -> None:
        inputs = tuple(self.values[source] if source in self.values else self._reference(source) for source in sources)
        kept = {key: _plain(value) for key, value in attributes.items() if _counts(key, value)}
        instruction = self._keep_batch(_canonical(Instruction(node.op, inputs, kept)))
        result = OPERATIONS[instruction.op](
            instruction.attributes, *(self.shapes[each] if isinstance(each, str) else each for each in instruction.inputs)
        )
        outputs = result if isinstance(result, tuple) else (result,)
        for index, shape in enumerate(outputs):
            value = f"%{len(self.latent_shapes) + len(self.instructions)}"
            self.shapes[value] = shape.to("meta")
            self.values[_numbered(node.name, index)] = value
            several = {"output": index} if isinstance(result, tuple) else {}
            self.instructions.append(replace(instruction, attributes=instruction.attributes | several))

    def _reference(self, source: str) -> Any:
        """A constant as an instruction's input: shapes and single numbers as themselves, others by number."""
        if source not in self.references:
            constant = self.known[source]
            if constant.numel() <= INLINE and (not constant.ndim or not constant.is_floating_point()):
                self.references[source] = constant.tolist()
            else:
                self.references[source] = f"#{len(self.constants)}"
                self.constants.append(constant.float())
                self.shapes[self.references[source]] = self.constants[-1].to("meta")
        return self.references[source]

    def _keep_batch(self, instruction: Instruction) -> Instruction:
        """Say so where the batch size 1 of compilation stands for any batch."""
        first = instruction.inputs[0] if instruction.inputs else None
        if instruction.op == "Reshape":
            x, shape = instruction.inputs
            resolved = self.shapes[x].reshape(ints(shape)).shape
            return replace(instruction, inputs=(x, [-1, *resolved[1:]]), attributes={})
        if instruction.op == "StridedSlice":
            x, begin, end, strides = instruction.inputs
            cut = slices(instruction.attributes, begin, end, strides)[0]
            if isinstance(cut, slice) and range(1)[cut] == range(1):
                mask = {key: instruction.attributes.get(key, 0) | 1 for key in ("begin_mask", "end_mask")}
                return replace(instruction, attributes=instruction.attributes | mask)
        if instruction.op == "Slice" and isinstance(first, str):
            _, begin, size = instruction.inputs
            if ints(begin)[0] == 0 and ints(size)[0] == 1:
                return replace(instruction, inputs=(first, begin, [-1, *ints(size)[1:]]))
        if instruction.op == "Conv2DBackpropInput" and isinstance(instruction.inputs[0], list):
            return replace(instruction, inputs=([-1, *instruction.inputs[0][1:]], *instruction.inputs[1:]))
        return instruction


def _canonical(instruction: Instruction) -> Instruction:
    """One spelling for what versions and optimizers of TensorFlow write in several ways."""
    op, inputs = instruction.op, instruction.inputs
    if op == "Concat":
        return Instruction("ConcatV2", (*inputs[1:], inputs[0]), {})
    if op == "Cast" and instruction.attributes.get("DstT") in ("<f2", "<f8"):  # what is computed here is float32
        return replace(instruction, attributes=instruction.attributes | {"DstT": "<f4"})
    if op == "Gather":
        return Instruction("GatherV2", (*inputs, 0), {})
    if op == "AddV2" or (op == "BiasAdd" and instruction.attributes.get("data_format", "NHWC") == "NHWC"):
        return Instruction("Add", inputs, {})
    return instruction


def _numbered(name: str, index: int) -> str:
    return f"{name}:{index}" if index else name


def _counts(key: str, value: Any) -> bool:
    """Whether an attribute can change the result: those of types are implied by the inputs, but for a cast."""
    return isinstance(value, str | int | float | list) and key[0] != "_" and (key == "DstT" or value not in TYPES)


def _plain(value: Any) -> Any:
    """An attribute as JSON has it."""
    return [each.decode() if isinstance(each, bytes) else each for each in value] if isinstance(value, list) else value
