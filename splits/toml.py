"""TOML, written: the standard library only reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def value(data: object) -> str:
    """A string, number, boolean, list or table of them as TOML has it, in a line.

    >>> value([True, 0.5, {"a": "b"}])
    '[true, 0.5, {a = "b"}]'

    Raises:
        TypeError: for anything else, such as None.
    """
    if isinstance(data, bool):
        return str(data).lower()
    if isinstance(data, str):  # JSON's escapes are TOML's; DEL is a control character to TOML alone
        return json.dumps(data, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(data, int | float):
        return repr(data)
    if isinstance(data, list | tuple):
        return f"[{', '.join(map(value, data))}]"
    if isinstance(data, Mapping):
        return f"{{{', '.join(f'{_key(key)} = {value(each)}' for key, each in data.items())}}}"
    raise TypeError(f"{type(data).__name__} is no value of TOML")


def dumps(data: Mapping[str, Any]) -> str:
    """A document of values, tables, and lists of tables."""
    return "\n".join(_lines(data, ())).strip() + "\n"


def _lines(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    tables = {key: each for key, each in table.items() if isinstance(each, Mapping) or _are_tables(each)}
    for key, each in table.items():
        if key not in tables:
            yield f"{_key(key)} = {value(each)}"
    for key, each in tables.items():
        name = ".".join(map(_key, (*path, key)))
        for entry in [each] if isinstance(each, Mapping) else each:
            yield ""
            yield f"[{name}]" if isinstance(each, Mapping) else f"[[{name}]]"
            yield from _lines(entry, (*path, key))


def _are_tables(data: object) -> bool:
    return isinstance(data, list) and bool(data) and all(isinstance(each, Mapping) for each in data)


def _key(key: str) -> str:
    return key if key and BARE.issuperset(key) else value(key)
