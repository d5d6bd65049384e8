"""Names that strangers give: of datasets, kinds, models, factors, attributes. They become parts of paths, HTML, CSV, markdown and plots.

A name is looked at once, where it is read (`check_name`). What is free text, such as the name of a value, is looked at there for what no
line can show (`check_text`), and escaped where it is written.
"""

from __future__ import annotations

from splits.errors import InputError, shown

LONGEST_NAME = 100  # bytes of UTF-8: a file's name has room for 255, and some of it is ours
LONGEST_TEXT = 10_000  # characters
RESERVED = '/\\<>|$`"'  # of paths, HTML, markdown tables, mathtext and quotes
NOT_FIRST = ".-=+@"  # hidden files and "..", options, and what spreadsheets take for a formula


def check_name(what: str, name: str) -> str:
    """`name`, if it can be one: a line of letters of any script, digits, spaces inside, and most punctuation.

    Args:
        what: whose name it is, for the error: "the dataset", "factor[2].name".
        name: what was read; anything but a str is refused too.

    Raises:
        InputError: for a name that is empty or too long, begins with one of `NOT_FIRST`, holds one of `RESERVED`, or isn't one line.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"{what}: a name is expected, got {shown(name)}")
    if wrong := [character for character in name if character in RESERVED or not character.isprintable()]:
        raise InputError(f"{what}: {shown(name)} can't be a name, as it holds {shown(wrong[0])}")
    if name[0] in NOT_FIRST:
        raise InputError(f"{what}: {shown(name)} can't be a name, as it begins with {name[0]!r}")
    if name != name.strip():
        raise InputError(f"{what}: {shown(name)} can't be a name, as it begins or ends with a space")
    if len(name.encode()) > LONGEST_NAME:
        raise InputError(f"{what}: a name of at most {LONGEST_NAME} bytes is expected, got {len(name.encode()):,}: {shown(name)}")
    return name


def check_text(what: str, text: str) -> str:
    """`text`, if a line can show it: no control or format characters, no line ends.

    Raises:
        InputError: saying which one it holds, or that it is too long.
    """
    if not isinstance(text, str):
        raise InputError(f"{what}: text is expected, got {shown(text)}")
    if len(text) > LONGEST_TEXT:
        raise InputError(f"{what}: at most {LONGEST_TEXT:,} characters are expected, got {len(text):,}")
    if wrong := next((character for character in text if not character.isprintable()), None):
        raise InputError(f"{what}: {shown(text)} holds {shown(wrong)}, which no line can show")
    return text
