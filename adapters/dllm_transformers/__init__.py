"""The Hugging Face adapter: importing it teaches transformers the tri-mode model.

`model.generate(**inputs, custom_generate=block_diffusion)` works on a plain base model;
a tri-mode checkpoint samples by diffusion with no further argument.
"""

from dllm_transformers.export import export
from dllm_transformers.generate import generate
from dllm_transformers.hub import custom_generate_folder
from dllm_transformers.hub import write_custom_generate
from dllm_transformers.modeling import TriModeForCausalLM
from dllm_transformers.modeling import register
from dllm_transformers.output import DiffusionOutput
from dllm_transformers.prefix import PrefixCache
from dllm_transformers.strategy import block_diffusion
from dllm_transformers.streamers import BatchStreamer
from dllm_transformers.tri_mode import TriModeConfig

__all__ = [
    "BatchStreamer",
    "DiffusionOutput",
    "PrefixCache",
    "TriModeConfig",
    "TriModeForCausalLM",
    "block_diffusion",
    "custom_generate_folder",
    "export",
    "generate",
    "write_custom_generate",
]

register()
