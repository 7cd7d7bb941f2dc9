"""Denoisers: models as the engine sees them."""

from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment

__all__ = ["Denoiser", "ModelSpec", "Segment"]
