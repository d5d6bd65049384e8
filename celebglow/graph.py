"""The former place of `GraphGlow`: flows that were saved before 0.2 name this module, and diffusers imports it to load them."""

from celebglow.convert.graph_glow import GraphGlow

__all__ = ["GraphGlow"]
