"""JSON documents with a type: one reader that trusts nothing, one writer, and a `format` that opens what was written before."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from harness.io.atomic import write_atomically
from splits.errors import InputError

MOST_BYTES = 64 * 2**20  # of a document: one factor of a million values makes about as much
Upgrade = Callable[[dict[str, Any], Path], dict[str, Any]]


class Record(BaseModel):
    """Typed, frozen, plain JSON. What a newer version added is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, in the order of the fields."""
        return self.model_dump(mode="json")


class Document(Record):
    """A record that is a file.

    Attributes:
        FORMAT: what is written.
        UPGRADES: from each older format to the next: (document, its path) → document. One without a `format` is of format 1.
        ADVICE: what to do about one that can't be read.
    """

    FORMAT: ClassVar[int]
    UPGRADES: ClassVar[Mapping[int, Upgrade]]
    ADVICE: ClassVar[str]

    @classmethod
    def read(cls, path: Path) -> Self:
        """The document in a file of anybody's.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is not one, or of a format that isn't known here; in a line that names it and says what is wrong.
        """
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise InputError(f"{path} is not a file: {cls.ADVICE}")
        if info.st_size > MOST_BYTES:
            raise InputError(f"{path} has {info.st_size:,} bytes, and at most {MOST_BYTES:,} are expected: {cls.ADVICE}")
        try:
            document: Any = from_json(path.read_bytes(), allow_inf_nan=False)
        except ValueError as error:
            raise InputError(f"{path} is not JSON ({error}): {cls.ADVICE}") from error
        try:
            return cls.model_validate(cls._upgraded(document, path))
        except ValidationError as error:
            raise InputError(f"{path}: {explained(error)}: {cls.ADVICE}") from error

    def write(self, path: Path, write: Callable[[Path, bytes], None] = write_atomically) -> None:
        """Replace the file, or make it, atomically; as an owner of the folder by `Owner.write`."""
        write(path, self.model_dump_json(indent=1).encode())

    @classmethod
    def _upgraded(cls, document: Any, path: Path) -> dict[str, Any]:
        """The document in today's format."""
        if isinstance(document, dict):
            upgraded: dict[str, Any] = document
            while (number := upgraded.get("format", 1)) != cls.FORMAT:
                if type(number) is not int or number not in cls.UPGRADES:
                    break
                upgraded = {**cls.UPGRADES[number](upgraded, path), "format": number + 1}
            else:
                return upgraded
        raise InputError(f"{path} is not of format {' or '.join(map(str, [*cls.UPGRADES, cls.FORMAT]))}: {cls.ADVICE}")


def explained(error: ValidationError) -> str:
    """The place of the first mistake and what was expected there, in a line that shows little of what a stranger wrote."""
    first, *others = error.errors(include_url=False, include_context=False, include_input=False)
    where = ascii(".".join(map(str, first["loc"])))[1:-1]
    what = first["msg"].removeprefix("Value error, ")
    more = f" (and {len(others):,} more mistakes)" if others else ""
    return f"{where if len(where) <= 80 else where[:79] + '…'}: {what}{more}"
