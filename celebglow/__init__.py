"""CelebGlow: faces made by walking attribute directions in the latent space of a Glow.

    pipe = celebglow.CelebGlowPipeline.from_pretrained("bundled")
    pipe(person=7, smile=0.6, blond=-1.0, age=0.2).images[0]

What is exported is imported when it is first used: torch and diffusers take seconds.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "CelebGlowPipeline": "celebglow.pipeline",
    "Decoder": "celebglow.decoder",
    "Directions": "celebglow.directions",
    "Glow": "celebglow.glow",
    "openai_flow": "celebglow.convert.openai",
}
__all__ = list(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
