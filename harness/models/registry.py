"""The models by name: what each is, how to build it, what of it is our reconstruction."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from torch import nn

from splits.errors import InputError, did_you_mean

Family = Literal["supervised", "pretrained", "representation", "user"]
Builder = Callable[..., nn.Module]
OURS = Path(__file__).parents[1]  # in a checkout it lies beside a user's model, and is no part of it


@dataclass(frozen=True)
class Model:
    """A model that can be benched.

    Attributes:
        name: as on the command line.
        build: (in_channels, num_outputs, **options) → a module (B, C, 64, 64) float32 in [0, 1] → (B, num_outputs).
        family: supervised; pretrained; representation, trained without labels and read out by an MLP; or a user's.
        summary: what it is, in a line.
        parameters: trained parameters for 3 channels and 7 outputs, without the readout; None if not known beforehand.
        reconstruction: what the paper leaves open and we chose; empty if nothing.
        quick_steps: training steps in the preset `quick`, chosen so that a run takes a slow CPU core (40 GMAC/s) about a minute.
        quick_learning_rate, quick_batch, quick_precision: in the preset `quick`.
        code: the files of a user's model: its module, and what that imports from its own folder.
    """

    name: str
    build: Builder
    family: Family
    summary: str
    parameters: int | None = None
    reconstruction: str = ""
    quick_steps: int = 400
    quick_learning_rate: float = 5e-4
    quick_batch: int = 64
    quick_precision: Literal["auto", "fp32"] = "auto"
    code: tuple[Path, ...] = ()

    @property
    def options(self) -> dict[str, Any]:
        """The options that `build` takes, with their defaults."""
        parameters = list(inspect.signature(self.build).parameters.values())
        return {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in ("in_channels", "num_outputs")}

    def takes(self, option: str) -> bool:
        """Whether `build` takes an option of that name."""
        return option in self.options or any(p.kind is p.VAR_KEYWORD for p in inspect.signature(self.build).parameters.values())

    def resolve(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """All options, defaults overridden.

        Raises:
            ValueError: for an option that the model hasn't, with close matches, or a value of another type than its default.
        """
        options = self.options
        for key, value in overrides.items():
            if not self.takes(key):
                raise InputError(f"{self.name} has no option model.{key}{did_you_mean(key, self.options)}")
            options[key] = _as(f"model.{key}", value, options.get(key))
        return options


def _as(key: str, value: Any, default: Any) -> Any:
    """A value of the type of an option's default, where that has one: a word would be true, and 4 hash otherwise than 4.0."""
    wanted = list if isinstance(default, tuple) else type(default)
    if wanted is float and type(value) is int:
        return float(value)
    if wanted in (bool, int, float, list) and type(value) is not wanted:
        raise InputError(f"{key}: {wanted.__name__} is expected, as its default {default!r} is one, got {value!r}")
    return value


_MODELS: dict[str, Model] = {}
MODELS: Mapping[str, Model] = MappingProxyType(_MODELS)


def register(name: str, **facts: Any) -> Callable[[Builder], Builder]:
    """Decorate a builder to make it a model; `facts` are the other attributes of `Model`.

    Raises:
        ValueError: if the name is taken.
    """

    def decorate(build: Builder) -> Builder:
        if name in _MODELS:
            raise InputError(f"a model named {name!r} is registered already, from {_MODELS[name].build.__module__}")
        _MODELS[name] = Model(name, build, **facts)
        return build

    return decorate


def find(name: str) -> Model:
    """The model of that name, or the user's that ``module:function`` names, looked for in the current folder first.

    Raises:
        ValueError: for an unknown name, with close matches; if there is no such module or function in it.
    """
    if ":" in name:
        return _imported(name)
    if name not in _MODELS:
        raise InputError(f"unknown model {name!r}{did_you_mean(name, _MODELS)} (or give one of your own as module:function)")
    return _MODELS[name]


def _imported(name: str) -> Model:
    module_name, _, function = name.partition(":")
    if module_name.endswith(".py"):
        file = Path(module_name)
        raise InputError(f"{name!r} names a file, and a module is expected: in the folder {file.parent}, {file.stem}:{function}")
    with _current_folder_first():
        try:
            module = importlib.import_module(module_name)
        except (Exception, SystemExit) as error:  # whatever a user's module raises
            told = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
            raise InputError(
                f"can't import {module_name!r} for the model {name!r}, looked for in {Path.cwd()} too: {told}"
            ) from error
    build = getattr(module, function, None)
    if not callable(build):
        there = [key for key, value in vars(module).items() if callable(value)]
        raise InputError(f"{module_name} has no function {function!r}{did_you_mean(function, there)}")

    @functools.wraps(build)
    def at_home(*args: Any, **options: Any) -> nn.Module:
        with _current_folder_first():  # it may import what lies beside it only now
            return build(*args, **options)  # type: ignore[no-any-return]

    model = Model(name, at_home, "user", (inspect.getdoc(build) or "a model of your own").splitlines()[0])
    try:
        inspect.signature(build).bind(3, 7, **model.options)
        json.dumps(model.options)  # they are kept with the run
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{name} is to be called as {function}(in_channels, num_outputs), all else with defaults: {error}"
        ) from None
    if not module.__file__:
        return model
    file = Path(module.__file__)
    root = file.parents[module_name.count(".") + (file.name == "__init__.py")]
    # Of what is installed, only its own package: beside it lies torch.
    own = root / module_name.partition(".")[0] if root.name in ("site-packages", "dist-packages") else root
    return replace(model, code=_code(file, root, own))


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
    """Where what a file imports would lie, without a suffix, were it in `root`; packages on the way too."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:  # so nothing can have imported it
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


def families() -> Iterator[tuple[Family, list[Model]]]:
    """The registered models by family."""
    names: tuple[Family, ...] = ("supervised", "pretrained", "representation")
    for family in names:
        yield family, [model for model in _MODELS.values() if model.family == family]
