"""The Hugging Face adapter: importing it teaches transformers the diffusion families and the tri-mode model.

A diffusion checkpoint in its original format loads by the Auto classes and `pipeline`, without
remote code, and its `generate` is the engine's.
`model.generate(**inputs, custom_generate=block_diffusion)` works on a plain base model;
a tri-mode checkpoint samples by diffusion with no further argument.
"""

from dllm_plugins.constraints.values import Grammar
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.constraints.values import Regex
from dllm_transformers.collator import DiffusionCollator
from dllm_transformers.diffusion_config import DiffusionConfig
from dllm_transformers.diffusion_model import DiffusionModelForCausalLM
from dllm_transformers.editing import edit_inputs
from dllm_transformers.export import export
from dllm_transformers.generate import generate
from dllm_transformers.hub import custom_generate_folder
from dllm_transformers.hub import write_custom_generate
from dllm_transformers.modeling import TriModeForCausalLM
from dllm_transformers.output import DiffusionOutput
from dllm_transformers.pair_model import PairConfig
from dllm_transformers.pair_model import PairForCausalLM
from dllm_transformers.pair_model import export_pair
from dllm_transformers.prefix import PrefixCache
from dllm_transformers.registering import register
from dllm_transformers.strategy import block_diffusion
from dllm_transformers.streamers import BatchStreamer
from dllm_transformers.tri_mode import TriModeConfig
from dllm_transformers.vocabulary import add_mask_token

__all__ = [
    "BatchStreamer",
    "DiffusionCollator",
    "DiffusionConfig",
    "DiffusionModelForCausalLM",
    "DiffusionOutput",
    "Grammar",
    "JsonSchema",
    "PairConfig",
    "PairForCausalLM",
    "PrefixCache",
    "Regex",
    "TriModeConfig",
    "TriModeForCausalLM",
    "add_mask_token",
    "block_diffusion",
    "custom_generate_folder",
    "edit_inputs",
    "export",
    "export_pair",
    "generate",
    "write_custom_generate",
]

register()
