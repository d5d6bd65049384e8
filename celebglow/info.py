"""What a saved flow is, read from its files: without torch and diffusers, whose import takes seconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from splits.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from celebglow.population import Population

BUNDLED = Path(__file__).parent / "weights"
INDEX, CONFIG, WEIGHTS = "model_index.json", "config.json", "diffusion_pytorch_model.safetensors"  # diffusers' names
NAMED = ("bundled", "openai")  # flows that are called by a name
COMPONENTS = {  # what a flow's folder may name as its parts; diffusers would import, and so run, anything
    "flow": (["celebglow.glow", "Glow"], ["celebglow.convert.graph_glow", "GraphGlow"], ["celebglow.graph", "GraphGlow"]),
    "directions": (["celebglow.directions", "Directions"],),
}
SHOWN = ("resolution", "channels", "steps", "widths", "coupling", "bits")  # of a flow's config, as far as it has them

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class SavedFlow:
    """A flow on disk, and its attribute directions if it has any.

    Attributes:
        folder: where it lies.
        config: of the flow, as plain data; names that begin with an underscore are diffusers' own.
        directions: the config of its attribute directions.
        walkable: whether it has directions; without, it is what `flow train` leaves.
    """

    folder: Path
    config: Mapping[str, Any]
    directions: Mapping[str, Any]
    walkable: bool = True

    @classmethod
    def open(cls, name: str | Path = "bundled", *, to_walk: bool = True) -> SavedFlow:
        """Read the configs of a flow.

        Args:
            name: "bundled" or a folder.
            to_walk: whether it has to have attribute directions.

        Raises:
            InputError: if there is no such flow, its configs are damaged, or it names classes that are not celebglow's.
        """
        folder = BUNDLED if str(name) == "bundled" else Path(name)
        whole = (folder / INDEX).is_file()
        if not whole and not to_walk:
            folder = without_directions(folder)
        if not whole and (to_walk or not (folder / CONFIG).is_file()):
            raise InputError(no_flow(folder))
        if whole:
            refuse_code(folder)
        try:
            config = _config(folder / "flow" if whole else folder)
            latents = int(config["channels"]) * int(config["resolution"]) ** 2
            none = {"attributes": [], "num_latents": latents, "centered": True}
            flow = cls(folder, config, _config(folder / "directions") if whole else none, whole)
            _ = flow.default_attributes, int(flow.directions["num_latents"])  # they are there
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise unreadable(folder, error) from error
        return flow

    @property
    def resolution(self) -> int:
        return int(self.config["resolution"])

    @property
    def attributes(self) -> tuple[str, ...]:
        return tuple(self.directions["attributes"])

    @property
    def default_attributes(self) -> tuple[str, ...]:
        """Those that a CelebGlow varies unless others are named."""
        return tuple(self.directions.get("default") or self.attributes)

    def resolve(self, name: str) -> tuple[int, float]:
        """The row of an attribute and its sign; raises InputError if there is none, naming the close matches."""
        return resolve(name, self.attributes, self.directions.get("aliases"))

    def info(self) -> dict[str, Any]:
        """What `CelebGlowPipeline.info` says of it, without loading it.

        Raises:
            InputError: if its weights are missing or damaged.
        """
        if self.walkable:
            flow: Tensors = _tensors(self.folder / "flow")
            directions: Tensors = _tensors(self.folder / "directions")
        else:
            size = int(self.directions["num_latents"])
            flow, directions = _tensors(self.folder), {"table": np.zeros((0, size)), "origin": np.zeros(size)}
        return info(self.config, flow, self.directions, directions, fused=self.config.get("_class_name") == "Glow")


def info(
    config: Mapping[str, Any], flow: Tensors, directions_config: Mapping[str, Any], directions: Tensors, fused: bool
) -> dict[str, Any]:
    """A flow and its directions as plain data: shape, size, attributes, hash."""
    shown = {name: config[name] for name in SHOWN if name in config}
    return {
        **{name: list(value) if isinstance(value, tuple | list) else value for name, value in shown.items()},
        "decode": decode_path(fused),
        "parameters": sum(tensor.size for tensor in flow.values()),
        "latents": int(directions_config["num_latents"]),
        "attributes": list(directions_config["attributes"]),
        "sha256": sha256([(config, flow), (directions_config, directions)]),
    }


def decode_path(fused: bool) -> str:
    """How latents are decoded, in words."""
    return "fused, channels last" if fused else "graph executed"


def sha256(modules: Iterable[tuple[Mapping[str, Any], Tensors]]) -> str:
    """The hash of all that determines a flow's pictures: the configs and the weights, in single precision, of flow and directions."""
    digest = hashlib.sha256()
    for config, tensors in modules:
        # an option that is not used does not change pictures
        used = {key: value for key, value in config.items() if not key.startswith("_") and value is not None}
        digest.update(json.dumps(used, sort_keys=True).encode())
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode() + np.ascontiguousarray(tensor, np.float32).tobytes())
    return digest.hexdigest()


def resolve(name: str, attributes: Sequence[str], aliases: Mapping[str, str] | None = None) -> tuple[int, float]:
    """The row of an attribute, by its name or an alias ("-Young" stands for the opposite of Young), and its sign.

    Raises:
        InputError: if there is none; names the close matches.
    """
    known, other = list(attributes), dict(aliases or {})
    attribute = other.get(name, name)
    if attribute.lstrip("-") not in known:
        raise InputError(f"unknown attribute {name!r}{did_you_mean(name, [*other, *known])}")
    return known.index(attribute.lstrip("-")), -1.0 if attribute.startswith("-") else 1.0


def check_store(root: Path, population: Population, flow: SavedFlow | None) -> None:
    """Refuse a CelebGlow that was made from something else, before torch is imported or a flow is downloaded.

    Args:
        root: folder of the stores.
        population: that is to be made, as far as it is known.
        flow: whose directions are walked; None for one that is to be downloaded, and so is not the bundled one.

    Raises:
        InputError: naming each difference.
    """
    from harness.data.description import read_attributes
    from harness.data.found import check_length, check_source  # zarr
    from harness.data.manifest import Paths

    paths = Paths(root, "celebglow")
    attributes = read_attributes(paths.documents())
    if attributes is None or "flow_sha256" not in attributes["source"]:
        return  # there is none, or it was converted, which the writer refuses
    source = population.source()
    check_source(paths, source if flow is None else {**source, "flow_sha256": flow.info()["sha256"]})
    if flow is not None:
        check_length(paths, population.persons * population.per_person)
    elif attributes["source"]["flow_sha256"] == SavedFlow.open("bundled").info()["sha256"]:
        raise InputError(f"{paths.group} was made with the bundled flow: choose another `out`, or `overwrite`")


def without_directions(folder: Path) -> Path:
    """Where the flow lies in a folder of `flow train` or `flow convert`: in its flow/, unless that was given."""
    inner = folder / "flow"
    return inner if (inner / CONFIG).is_file() and not (folder / CONFIG).is_file() else folder


def check_free(out: Path) -> None:
    """Raise InputError for a folder that a flow would be written over, as that may be somebody's flow."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise InputError(f"{out} is there already: remove it, or choose another folder")


def check_training(out: Path) -> None:
    """Raise InputError for a folder in which a training can neither begin nor continue: that of a flow that was not trained there."""
    if not (out / "checkpoint.pt").exists() and any((out / name).exists() for name in (INDEX, CONFIG, "flow")):
        raise InputError(f"{out} holds a flow, and no checkpoint of its training: remove it, or choose another folder")


def directions_command(folder: Path) -> str:
    """The command that gives the flow in a folder its attribute directions."""
    return f"ood-data flow directions {folder} IMAGES --labels TABLE --attribute NAME --out FOLDER"


def no_flow(path: Path) -> str:
    """What is there instead of a flow that can be walked, and the command that makes one of it."""
    if path.is_file():
        table = " --z-manipulate z_manipulate.npy" if path.suffix == ".pb" else ""
        return f"{path} is a file, not a converted flow: first run ood-data flow convert {path}{table} --out {path.with_suffix('')}"
    for folder in (path, path / "flow"):
        if (folder / CONFIG).is_file():
            return f"{folder} has no attribute directions: first run {directions_command(folder)}"
    if not path.exists() and (meant := did_you_mean(str(path), NAMED, else_all=False)):
        return f"there is no flow {path}{meant}"
    return (
        f"there is no flow in {path} (no {INDEX}): give `bundled`, `openai` (in Python "
        "`celebglow.openai_flow()`), or a folder made by `ood-data flow`"
    )


def unreadable(folder: Path, error: Exception) -> InputError:
    """The error of a flow whose files are damaged, with the first line of what their reader says."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return InputError(f"the flow in {folder} cannot be read ({reason}): fetch or make it again")


def refuse_code(folder: Path) -> None:
    """Raise InputError for a folder from which diffusers would run code that is not ours."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
        parts = {name: value for name, value in index.items() if isinstance(value, list)}
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{folder / INDEX} cannot be read ({error}): fetch or make the flow again") from error
    for name, value in parts.items():
        if value not in COMPONENTS.get(name, ()):
            raise InputError(
                f"{folder / INDEX} names {ascii(value)[:80]} as its {ascii(name)[1:-1][:40]}, which is no class of celebglow's: "
                "its code is not run"
            )
    # Files that diffusers takes for the code of a pipeline or of a part.
    for file in (folder / "None.py", *(folder / name / f"{library}.py" for name, (library, _) in parts.items())):
        if file.exists():
            raise InputError(f"{file} is code, which ood-data does not run: remove it to load the flow")


def _config(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / CONFIG).read_bytes()))


def _tensors(folder: Path) -> dict[str, NDArray[np.float32]]:
    """The weights of a model that diffusers saved, in single precision."""
    try:
        stored = deserialize((folder / WEIGHTS).read_bytes())
        return {name: _array(**tensor) for name, tensor in stored}
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise unreadable(folder, error) from error


def _array(dtype: str, shape: Sequence[int], data: bytes) -> NDArray[np.float32]:
    if dtype == "BF16":  # the upper half of a float32, which NumPy has no name for
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view(np.float32).reshape(shape)
    return np.frombuffer(data, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).astype(np.float32).reshape(shape)
