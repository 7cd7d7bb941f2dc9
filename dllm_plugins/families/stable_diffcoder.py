"""Stable-DiffCoder-8B (arXiv 2601.15892): a Llama in blocks of four, although its config says plain `llama`.

Source: the checkpoints' modelling file (ByteDance, MIT), a subclass of `LlamaForCausalLM` that
changes nothing but `generate`; its config was seen through SJTU-DENG-Lab/Diffulex 184ba97.
"""

from typing import Any

from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import common_config
from dllm_plugins.families.layout import require
from dllm_plugins.libraries.classes import always

NAME = "stable_diffcoder"


def config(original: Config) -> dict[str, Any]:
    """Llama's own names."""
    require(original, NAME, model_type=("llama",), hidden_act=("silu", None))
    return common_config(original, NAME)


LAYOUT = Layout(
    name=NAME,
    architectures=frozenset({"StableDiffcoderForCausalLM"}),
    model_types=frozenset({"llama"}),
    native=always("LlamaForCausalLM"),
    classes="Llama",
    config=config,
    attention="block-causal",
    shifted=False,
    checkpoints=("ByteDance-Seed/Stable-DiffCoder-8B-Base", "ByteDance-Seed/Stable-DiffCoder-8B-Instruct"),
    modes={"diffusion": NAME},
    block_length=4,
    licence="MIT",
    cases=("stable_diffcoder",),
    verified="logits equal the reference's bit for bit",
    mask_id=5,
)
