"""What the system refused, in words: an OSError says what it is, and not what to do."""

from __future__ import annotations

import errno

ADVICE = {
    errno.ENOENT: "check the path",
    errno.EEXIST: "it is in the way of a file or folder that the command makes: move it, or choose another place",
    errno.ENOTDIR: "a part of this path is a file, where a folder is expected: name another place",
    errno.EISDIR: "it is a folder, and a file is expected",
    errno.EACCES: "check its permissions, or name another place",
    errno.EPERM: "check its permissions, or name another place",
    errno.EROFS: "nothing can be written there: name another place",
    errno.ENOSPC: "the disk is full: make room, and run the same command again",
    errno.EDQUOT: "your share of the disk is used up: make room, and run the same command again",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or do less at the same time",
}


def in_words(error: OSError, name: str | None = None) -> str:
    """What happened to which file, and what to do; `name` stands for a file that the error does not name.

    >>> in_words(FileNotFoundError(errno.ENOENT, "No such file or directory", "table.csv"))
    'No such file or directory: table.csv; check the path'
    """
    if not error.strerror:
        return str(error)
    name = error.filename if error.filename is not None else name
    advice = f"; {ADVICE[error.errno]}" if error.errno in ADVICE else ""
    return f"{error.strerror}{'' if name is None else f': {name}'}{advice}"
