"""The former place of `GraphGlow`: flows that an older version saved name this module, and diffusers imports it to load them."""

from celebglow.convert.graph_glow import GraphGlow

__all__ = ["GraphGlow"]
