"""What is wrong in a TOML file that a user wrote, in words: where, what was expected, and what is there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from splits.errors import did_you_mean, shown


def dotted(path: Sequence[str | int]) -> str:
    """`factor[2].size`, `split.composition.held_out."x-axis"`: as TOML would spell it."""

    def key(part: str) -> str:
        return part if re.fullmatch(r"[\w-]{1,50}", part) else '"' + shown(part)[1:-1] + '"'

    return "".join(f"[{part}]" if isinstance(part, int) else f".{key(part)}" for part in path).removeprefix(".")


def in_our_words(details: Any, keys: Iterable[str]) -> str:
    """What pydantic found, as "… is expected, got …" with close matches; `keys` are those that a table may have."""
    match details["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return f"unknown key{did_you_mean(details['loc'][-1], keys)}"
        case "literal_error":
            options = re.findall(r"'([^']+)'", details["ctx"]["expected"])
            close = did_you_mean(details["input"], options, else_all=False)
            return f"{details['ctx']['expected']} is expected, got {shown(details['input'])}{close}"
        case "string_pattern_mismatch":
            return f"letters, digits, '_', '-' and '.' are expected, got {shown(details['input'])}"
        case "string_too_long":
            return f"at most {details['ctx']['max_length']} characters are expected, got {shown(details['input'])}"
        case "too_short":
            return "at least one is expected"
    wanted = details["msg"].removeprefix("Input should be ").split(" or instance")[0].split(", unable")[0]
    wanted = wanted.replace("valid dictionary", "table").replace("valid integer", "whole number")
    wanted = wanted.replace("valid tuple", "list").replace("valid list", "list")
    return f"{wanted} is expected, got {shown(details['input'])}"
