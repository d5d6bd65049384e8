"""Read a frozen TensorFlow graph (a serialized GraphDef) without TensorFlow.

The file is mapped into memory and a constant is a view of it, made when it is asked for, so that a graph costs little more than what
is used of it. The field numbers are those of TensorFlow's graph.proto, node_def.proto, attr_value.proto, tensor.proto and tensor_shape.proto.

One module, though a long one: a reader of one format.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splits.errors import InputError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
LARGEST = 2**31  # bytes of a constant: no GraphDef may be larger, and a damaged shape asks for any
LARGEST_FILL = 2**28  # bytes of a constant that is a few numbers repeated: borders and zeros are far smaller
DTYPES = {
    1: "<f4",
    2: "<f8",
    3: "<i4",
    4: "|u1",
    5: "<i2",
    6: "|i1",
    9: "<i8",
    10: "|b1",
    11: "|i1",  # quantised: qint8, quint8, qint32
    12: "|u1",
    13: "<i4",
    19: "<f2",
}


class NotAGraph(InputError):
    """The file is damaged, truncated or something else."""


@dataclass(frozen=True)
class Constant:
    """A tensor as it lies in the file: `shape`, a numpy type string `dtype`, and its bytes or numbers."""

    shape: tuple[int, ...]
    dtype: str
    content: memoryview | None = None
    numbers: tuple[float, ...] = ()

    def array(self) -> NDArray[Any]:
        """The values, as a view where they lie in the file as bytes, or are one number.

        Raises:
            NotAGraph: if a few numbers stand for more than any graph holds.
        """
        if self.content is not None:
            return np.frombuffer(self.content, self.dtype).reshape(self.shape)
        last = np.array(self.numbers[-1] if self.numbers else 0, self.dtype)
        if len(self.numbers) < 2:
            return np.broadcast_to(last, self.shape)
        count = math.prod(self.shape)
        if len(self.numbers) < count and count * last.itemsize > LARGEST_FILL:
            raise NotAGraph(f"a constant of the shape {self.shape} is made of {len(self.numbers)} numbers: the graph is damaged")
        array = np.full(count, last, self.dtype)  # fewer values than elements: the last one repeats
        array[: len(self.numbers)] = self.numbers[:count]
        return array.reshape(self.shape)


@dataclass(frozen=True)
class Node:
    """A node of the graph.

    `inputs` are names of nodes (a control input begins with `^`, another than the first output ends in `:n`). `attributes` hold
    numbers, booleans, bytes, lists of them, shapes (a tuple, -1 where unknown; None if even the rank is) and a `Constant`. The type
    attributes are numpy type strings.
    """

    name: str
    op: str
    inputs: tuple[str, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)


class Graph(dict[str, Node]):
    """Nodes by name, in the order of the file. `producer`: the version number of the TensorFlow that wrote them, 0 if unknown."""

    producer: int = 0


FREEZE = "tf.compat.v1.graph_util.convert_variables_to_constants of TensorFlow makes a frozen one"
_OTHERS = {  # what else TensorFlow writes, by the names that it gives it
    re.compile(r"saved_model\.pb"): "a SavedModel",
    re.compile(r".+\.meta"): "a MetaGraph",
    re.compile(r".+\.(index|data-\d+-of-\d+)"): "a part of a checkpoint",
    re.compile(r".+\.pbtxt"): "a graph as text",
}


def _not_a_graph(path: Path, why: str, what_to_do: str = "") -> NotAGraph:
    for name, what in _OTHERS.items():
        if name.fullmatch(path.name):
            return NotAGraph(f"{path} is {what}, and a frozen graph in one binary file is expected: {FREEZE}")
    return NotAGraph(f"{path} is not a frozen TensorFlow graph{why}{what_to_do}")


def read_graph(path: str | Path) -> Graph:
    """The nodes of a GraphDef file.

    Raises:
        NotAGraph: if the file is not a whole GraphDef.
        OSError: if it cannot be read.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError:  # an empty file cannot be mapped
            raise NotAGraph(f"{path} is empty") from None
    try:
        parts = [(number, value) for number, value in _fields(data) if isinstance(value, memoryview)]
        nodes = [_node(value) for number, value in parts if number == 1]
        versions = [dict(_fields(value)) for number, value in parts if number == 4]
    except (IndexError, ValueError, OverflowError) as error:
        raise _not_a_graph(path, f", or it is truncated ({error})", ": download it again") from error
    graph = Graph((node.name, node) for node in nodes)
    if len(graph) < len(nodes):
        raise NotAGraph(f"{path} is not one frozen TensorFlow graph: it has two nodes of one name")
    if not graph or "" in graph or not all(node.op for node in nodes):
        raise _not_a_graph(path, ": it holds no named nodes")
    producer = versions[-1].get(1, 0) if versions else 0
    graph.producer = producer if isinstance(producer, int) else 0
    return graph


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(data):
            raise ValueError("it ends in the middle of a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 2**64:
                raise ValueError("a number has more than 64 bits")
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of a message: whole numbers, or bytes for what has a length or a fixed width."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == VARINT:
            value, position = _varint(data, position)
            yield key >> 3, value
            continue
        if kind == BYTES:
            length, position = _varint(data, position)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"there is no wire type {kind}")
        if position + length > len(data):
            raise ValueError(f"{position + length - len(data):,} bytes are missing")
        yield key >> 3, data[position : position + length]
        position += length


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where bytes are expected")
    return value


def _text(value: int | memoryview) -> str:
    """A name, of a node or an operation: errors show it, on somebody's terminal."""
    text = bytes(_bytes(value)).decode()
    if not text.isprintable():
        raise ValueError("a name that cannot be printed")
    return text


def _signed(value: int | memoryview) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes where a number is expected")
    return value - 2**64 if value >= 2**63 else value


def _numbers(value: int | memoryview) -> list[int]:
    """A repeated whole number, packed or single."""
    if isinstance(value, int):
        return [_signed(value)]
    numbers, position = [], 0
    while position < len(value):
        number, position = _varint(value, position)
        numbers.append(_signed(number))
    return numbers


def _node(data: memoryview) -> Node:
    name = op = ""
    inputs: list[str] = []
    attributes: dict[str, Any] = {}
    for number, value in _fields(data):
        if number == 1:
            name = _text(value)
        elif number == 2:
            op = _text(value)
        elif number == 3:
            inputs.append(_text(value))
        elif number == 5:
            key, content = "", memoryview(b"")
            for part, entry in _fields(_bytes(value)):
                if part == 1:
                    key = _text(entry)
                elif part == 2:
                    content = _bytes(entry)
            attributes[key] = _attribute(content)
    return Node(name, op, tuple(inputs), attributes)


def _attribute(data: memoryview) -> Any:
    for number, value in _fields(data):
        if number == 1:
            return _list(_bytes(value))
        if number == 2:
            return bytes(_bytes(value))
        if number == 3:
            return _signed(value)
        if number == 4:
            return float(np.frombuffer(_bytes(value), "<f4")[0])
        if number == 5:
            return bool(value)
        if number == 6:
            return DTYPES.get(_signed(value), f"type {value!r}")
        if number == 7:
            return _shape(_bytes(value))
        if number == 8:
            return _tensor(_bytes(value))
    return None


def _list(data: memoryview) -> list[Any]:
    values: list[Any] = []
    for number, value in _fields(data):
        if number == 2:
            values.append(bytes(_bytes(value)))
        elif number in (3, 6):
            values += _numbers(value)
        elif number == 4:
            values += np.frombuffer(_bytes(value), "<f4").tolist()
        elif number == 7:
            values.append(_shape(_bytes(value)))
    return values


def _shape(data: memoryview) -> tuple[int, ...] | None:
    sizes = []
    for number, value in _fields(data):
        if number == 3 and value:
            return None
        if number == 2:
            sizes.append(next((_signed(size) for part, size in _fields(_bytes(value)) if part == 1), 0))
    return tuple(sizes)


def _tensor(data: memoryview) -> Constant:
    """What a constant says of itself is checked here; its values are made when they are asked for."""
    dtype = np.dtype("<f4")
    shape: tuple[int, ...] = ()
    content: memoryview | None = None
    values: list[Any] = []
    for number, value in _fields(data):
        if number == 1:
            if value not in DTYPES:  # strings of assertions and the like: never a part of the flow
                return Constant((0,), "<f4")
            dtype = np.dtype(DTYPES[_signed(value)])
        elif number == 2:
            shape = _shape(_bytes(value)) or ()
        elif number == 4:
            content = _bytes(value)
        elif number in (5, 6):
            values += np.frombuffer(_bytes(value), "<f4" if number == 5 else "<f8").tolist()
        elif number in (7, 10, 11):
            values += _numbers(value)
        elif number == 13:  # half precision comes as the bits of whole numbers
            values += np.array(_numbers(value), "<u2").view("<f2").tolist()
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * dtype.itemsize > LARGEST:
        raise ValueError(f"it has a constant of the shape {shape}")
    if content is not None and (len(content) or not count):
        if len(content) != count * dtype.itemsize:
            raise ValueError(f"it has a constant of the shape {shape} with {len(content):,} bytes")
        return Constant(shape, dtype.str, content)
    np.array(values, dtype)  # numbers that the type does not hold are refused
    return Constant(shape, dtype.str, None, tuple(values))
