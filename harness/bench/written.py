"""What a user writes down in TOML, a study or a cluster: read strictly, and every mistake told."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from splits.errors import AbsentError, InputError, SpecError

MOST_BYTES = 2**20  # of a file
_Written = TypeVar("_Written", bound="Strict")


class Strict(BaseModel):
    """Typed and frozen; a key that is not known is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def read(path: Path, what: str, model: type[_Written], mistakes: Callable[[ValidationError], list[str]]) -> _Written:
    """What is in a TOML file.

    Args:
        path: of the file.
        what: it is, "a study".
        model: of it.
        mistakes: a line for each thing that is wrong.

    Raises:
        FileNotFoundError: if there is no file.
        ValueError: if it holds something else, with a line for each mistake.
    """
    if not path.is_file():
        raise AbsentError(f"{path} is not a file: {what} in TOML is expected")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes: {what} of at most {MOST_BYTES:,} is expected")
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise SpecError(str(path), mistakes(error)) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not TOML: {error}") from error
