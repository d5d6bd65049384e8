"""CelebGlowPipeline: a person's seed and attribute values in, pictures out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput, logging
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from celebglow.architecture import check_precision
from celebglow.decoder import Decoder
from celebglow.directions import Directions
from celebglow.flow import Flow
from celebglow.glow import Glow
from celebglow.info import BUNDLED, INDEX, decode_path, info, no_flow, refuse_code, sha256, unreadable
from harness.io.atomic import naming
from harness.machine import lacking
from splits.errors import InputError

BATCH_LATENTS = 72 * 12288  # latent dimensions decoded at once: 72 images of 64 x 64, fast on two cores and small in memory


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Make a GPU's convolutions deterministic and true fp32, where torch's default is TF32. It is global: enter it once, not per thread."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Hide the progress bars of diffusers, which a few small files don't need, and restore them afterwards."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@dataclass
class CelebGlowOutput(BaseOutput):  # type: ignore[misc]
    """`images`: PIL images, or uint8 (B, R, R, C) with `output_type="np"`."""

    images: list[Image.Image] | NDArray[np.uint8]


class CelebGlowPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Faces of persons who exist only as seeds, at any values of the attributes.

    Args:
        flow: whose latents are walked.
        directions: of its attributes.
    """

    def __init__(self, flow: Flow, directions: Directions) -> None:
        super().__init__()
        self.register_modules(flow=flow, directions=directions)
        self._decoder: tuple[torch.device, Callable[[Tensor], Tensor]] | None = None

    @classmethod
    def from_pretrained(cls, name: str | Path = "bundled", **kwargs: Any) -> CelebGlowPipeline:
        """Load "bundled", the flow that comes with the package, or a folder that `save_pretrained` wrote, as `openai_flow`'s.

        No code that a folder brings or names is run: a flow of a class of your own is for `CelebGlowPipeline(flow, directions)`.

        Raises:
            ValueError: if there is no such flow, it cannot be read, or it names classes that are not celebglow's.
        """
        folder = BUNDLED if str(name) == "bundled" else Path(name)
        if not (folder / INDEX).is_file():
            raise InputError(no_flow(folder))
        refuse_code(folder)
        import celebglow.graph  # noqa: F401  # diffusers loads a flow's class from modules that are imported only

        try:
            with no_progress_bars():
                pipeline: CelebGlowPipeline = super().from_pretrained(
                    folder, **{"low_cpu_mem_usage": False, "local_files_only": True} | kwargs
                )
        except Exception as error:  # whatever a damaged file makes the readers raise
            if lack := lacking(error):  # it is not the flow's fault
                raise OSError(lack) from error
            raise unreadable(folder, error) from error
        pipeline.flow.float()  # half precision is for the disk
        pipeline.directions.float()
        return pipeline

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Write flow and directions, for `from_pretrained`; an error says where to, and how many bytes."""
        tensors = [*self.flow.state_dict().values(), *self.directions.state_dict().values()]
        with naming(Path(save_directory), sum(tensor.nbytes for tensor in tensors)):
            super().save_pretrained(save_directory, **options)

    @property
    def attributes(self) -> tuple[str, ...]:
        return tuple(self.directions.config.attributes)

    @property
    def default_attributes(self) -> tuple[str, ...]:
        """Those that a CelebGlow varies unless others are named."""
        return tuple(self.directions.config.default or self.attributes)

    @property
    def decode_path(self) -> str:
        """How latents are decoded, in words."""
        return decode_path(isinstance(self.flow, Glow))

    @property
    def resolution(self) -> int:
        return int(self.flow.config.resolution)

    @property
    def batch(self) -> int:
        """Images decoded at once. A function of the flow alone, since the batch can change pixels."""
        return max(1, BATCH_LATENTS // int(self.flow.num_latents))

    def resolve(self, name: str) -> tuple[int, float]:
        """The row of an attribute and its sign; raises InputError if there is none, naming the close matches."""
        return self.directions.resolve(name)

    def info(self) -> dict[str, Any]:
        """What this flow is, as plain data; `celebglow.info.SavedFlow.info` reads the same from its files."""
        (config, flow), (directions_config, directions) = self._modules()
        return info(config, flow, directions_config, directions, fused=isinstance(self.flow, Glow))

    def sha256(self) -> str:
        """The hash of all that determines the pictures: configs, weights and directions."""
        return sha256(self._modules())

    def _modules(self) -> list[tuple[dict[str, Any], dict[str, NDArray[np.float32]]]]:
        """Config and weights of flow and directions, as NumPy has them."""
        return [
            (dict(module.config), {name: tensor.float().cpu().numpy() for name, tensor in module.state_dict().items()})
            for module in (self.flow, self.directions)
        ]

    def person(self, person: int, seed: int = 0, temperature: float = 0.7) -> Tensor:
        """The latent (D,) of a person: N(0, temperature²) noise that depends on nothing but (seed, person).

        Drawn by numpy's frozen RandomState stream on the CPU: the same on every device, version, batch and part.

        Raises:
            ValueError: for a negative seed or number.
        """
        if min(seed, person) < 0:
            raise InputError(f"a person and a seed of at least 0 are expected, not {person} and {seed}")
        stream = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([seed, person])))
        return torch.from_numpy((stream.standard_normal(self.flow.num_latents) * temperature).astype(np.float32))

    def grid(self, latent: Tensor, values: Tensor, precision: str = "fp32", resolution: int | None = None) -> NDArray[np.uint8]:
        """Pictures (M, R, R, C) uint8 of one person, `latent` (D,), at the attribute values `values` (M, A).

        Args:
            latent: as `person` gives it.
            values: rows in the order of `attributes`.
            precision: "fp32" or "bf16".
            resolution: R, a divisor of the flow's; smaller pictures are area averages. The flow's if None.
        """
        directions = self.directions.to("cpu")
        base = directions.base(latent[None])[0]
        parts = (directions.walk(base, part) for part in values.split(self.batch))
        return np.concatenate([self._decode(part, precision, resolution) for part in parts])

    def pictures(self, latents: Tensor) -> NDArray[np.uint8]:
        """Pictures (B, R, R, C) uint8 of latents (B, D)."""
        return np.concatenate([self._decode(part, "fp32", None) for part in latents.split(self.batch)])

    @torch.inference_mode()
    def _decode(self, latents: Tensor, precision: str, resolution: int | None) -> NDArray[np.uint8]:
        check_precision(precision)
        device = self.flow.device
        if self._decoder is None or self._decoder[0] != device:
            self._decoder = (device, Decoder(self.flow) if isinstance(self.flow, Glow) else self.flow.decode)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            images = self._decoder[1](latents.to(device))
        images = self.flow.postprocess(images.float())
        factor = self.resolution // (resolution or self.resolution)
        if factor > 1:
            images = F.avg_pool2d(images.float(), factor).round().to(torch.uint8)
        return images.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    @torch.no_grad()
    def __call__(
        self,
        person: int | Sequence[int] = 0,
        seed: int = 0,
        temperature: float = 0.7,
        precision: str = "fp32",
        output_type: str = "pil",
        **values: float,
    ) -> CelebGlowOutput:
        """Pictures of one or several persons with the given attribute values; what is not given is 0.

        Args:
            person: number or numbers.
            seed: of the population: another seed, other people.
            temperature: standard deviation of the latent noise; less is nearer to the average face.
            precision: "fp32" or "bf16".
            output_type: "pil" or "np".
            **values: attribute values, about -1 to 1.

        Raises:
            ValueError: for an unknown attribute, or what is no number.
        """
        row = torch.zeros(1, len(self.attributes))
        for name, value in values.items():
            index, sign = self.directions.resolve(name)
            try:
                row[0, index] += sign * float(value)
            except (TypeError, ValueError) as error:
                raise InputError(f"{name} is a number, about -1 to 1, not {value!r:.80}") from error
        if np.asarray(person).dtype.kind not in "iu":
            raise InputError(f"person is a whole number, or several, not {person!r:.80}")
        persons = [int(p) for p in np.atleast_1d(person)]
        with exact_convolutions():
            images = np.concatenate([self.grid(self.person(p, seed, temperature), row, precision) for p in persons])
        if output_type == "np":
            return CelebGlowOutput(images=images)
        return CelebGlowOutput(images=[Image.fromarray(image.squeeze()) for image in images])
