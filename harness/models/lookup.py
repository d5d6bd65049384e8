"""Models by name, a user's own among them: `module:function` is found, and its code read, before any of it is run."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.models.registry import MODELS, Model
from splits.errors import InputError, did_you_mean
from splits.names import check_name

if TYPE_CHECKING:
    from torch import nn

OURS = Path(__file__).parents[1]  # in a checkout it lies beside a user's model, and is no part of it


def find(name: str) -> Model:
    """The model of that name, or the user's that `module:function` names, looked for in the current folder first.

    A user's module is imported, which runs its code.

    Raises:
        ValueError: for an unknown name, with close matches; if there is no such module or function in it, or one that takes other
            arguments, or whose options are no plain data.
    """
    if is_own(name):
        return _imported(name)
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}{did_you_mean(name, MODELS)} (or give one of your own as module:function)")
    return MODELS[name]


def is_own(name: str) -> bool:
    """Whether that is the name of a user's model."""
    return ":" in name


def code_of(name: str) -> tuple[Path, ...]:
    """The files of a user's model: its module, and what that imports from its own folder. They are read, nothing is imported.

    Raises:
        ValueError: if there is no such module.
    """
    module_name, _ = _parts(name)
    with _current_folder_first():
        file = _module_file(module_name, name)
    if file is None:
        return ()
    root = file.parents[module_name.count(".") + (file.name == "__init__.py")]
    # Of what is installed, only its own package: beside it lies torch, or all that comes with Python.
    installed = root.name in ("site-packages", "dist-packages") or root == Path(sysconfig.get_path("stdlib"))
    own = root / module_name.partition(".")[0] if installed else root
    return _code(file, root, own)


def code_hash(code: Sequence[Path]) -> str:
    """SHA-256 of those files, "" of none."""
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in code]
    return hashlib.sha256("".join(hashes).encode()).hexdigest() if hashes else ""


def _parts(name: str, what: str = "model") -> tuple[str, str]:
    """Module and function of a name."""
    module_name, _, function = name.partition(":")
    if module_name.endswith(".py"):
        file = Path(module_name)
        raise InputError(f"{name!r} names a file, and a module is expected: in the folder {file.parent}, {file.stem}:{function}")
    check_name(f"the {what}", name)
    if not module_name or not function:
        raise InputError(f"the {what} {name!r}: a module and a function in it are expected, such as my_module:build")
    return module_name, function


def function_of(name: str, what: str = "model") -> Callable[..., Any]:
    """The function that `module:function` names, looked for in the current folder first. Its module is imported, which runs its code.

    Args:
        name: of the function.
        what: it is, for messages.

    Raises:
        ValueError: if there is no such module or function in it.
    """
    module_name, function = _parts(name, what)
    with _current_folder_first():
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # whatever a user's module raises
            reason = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            raise _not_importable(module_name, name, reason, what) from error
    found = getattr(module, function, None)
    if not callable(found):
        there = [key for key, value in vars(module).items() if callable(value)]
        raise InputError(f"{module_name} has no function {function!r}{did_you_mean(function, there)}")
    return found  # type: ignore[no-any-return]


def _imported(name: str) -> Model:
    build = function_of(name)

    @functools.wraps(build)
    def at_home(*args: Any, **options: Any) -> nn.Module:
        with _current_folder_first():  # it may import what lies beside it only now
            return build(*args, **options)  # type: ignore[no-any-return]

    summary = (inspect.getdoc(build) or "a model of your own").splitlines()[0]
    model = Model(name, at_home, "user", summary)
    try:
        inspect.signature(build).bind(3, 7, **model.options)
    except TypeError as error:
        raise InputError(
            f"{name} must work as {_parts(name)[1]}(in_channels, num_outputs), with defaults for everything else: {error}"
        ) from None
    for option, default in model.options.items():
        if not _is_kept(default):
            raise InputError(
                f"{name}: option {option}: its default is of type {type(default).__name__}, and options are kept with the run: a number, a "
                f"string, a boolean, None, or a list or a dict (its keys strings) of them is expected; give a name such as 'relu'"
            )
    return replace(model, code=code_of(name))


def _is_kept(value: object) -> bool:
    """Whether a document has an option's value as it is, but for a tuple, which becomes a list."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_kept(each) for key, each in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_kept, value))
    return value is None or isinstance(value, bool | int | float | str)


def _not_importable(module_name: str, name: str, reason: str, what: str = "model") -> InputError:
    return InputError(f"can't import {module_name!r} for the {what} {name!r}, looked for in {Path.cwd()} too: {reason}")


def _module_file(module_name: str, name: str) -> Path | None:
    """The file that importing the module runs, or has run; None for one that has none. Packages on the way are not imported."""
    if module_name in sys.modules:
        loaded = getattr(sys.modules[module_name], "__file__", None)
        return Path(loaded) if loaded else None
    places: list[str] | None = None  # those of sys.path
    origin = None
    whole = ""
    for part in module_name.split("."):
        whole = f"{whole}.{part}" if whole else part
        try:
            finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
            spec = next((found for finder in finders if (found := finder.find_spec(whole, places))), None)
        except KeyError:  # a folder without __init__.py in another such: Python looks for the outer one among what is imported
            places = [str(Path(place, part)) for place in places or ()]
            continue
        if spec is None:
            raise _not_importable(module_name, name, f"No module named {whole!r}")
        places = list(spec.submodule_search_locations or ())
        origin = spec.origin if spec.has_location else None
    return Path(origin) if origin else None


def _code(file: Path, root: Path, own: Path) -> tuple[Path, ...]:
    """A module's file and those in `own` that it imports from `root`, and so on, sorted. They are read: what is loaded may vary."""
    packages = (folder / "__init__.py" for folder in file.parents if folder.is_relative_to(own) and folder != root)
    waiting = [file, *(package for package in packages if package.is_file())]
    found = set(waiting)
    while waiting:
        current = waiting.pop()
        if current.suffix != ".py":
            continue
        for imported in _imports(current, root):
            for candidate in (imported.with_suffix(".py"), imported / "__init__.py"):
                if not candidate.is_relative_to(own) or OURS in candidate.parents:
                    continue
                if candidate.is_file() and candidate not in found:
                    found.add(candidate)
                    waiting.append(candidate)
    return tuple(sorted(found))


def _imports(file: Path, root: Path) -> Iterator[Path]:
    """The places where what a file imports would lie, without a suffix, were it in `root`; packages on the way too."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # so nothing can have imported it
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            starts = [(root, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if node.level else root
            starts = [(base, f"{node.module}.{alias.name}" if node.module else alias.name) for alias in node.names]
        else:
            continue
        for base, name in starts:
            for part in name.split("."):
                base /= part
                yield base


@contextlib.contextmanager
def _current_folder_first() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
