"""iLLaDA-8B: a tied Llama with grouped keys whose rows see everything; not LLaDA-8B's layout.

Source: ML-GSAI/LLaDA README ("by setting mask_id=5 ..."); a transcription of the
checkpoint's modelling file equals `LlamaForCausalLM` bit for bit.
"""

from typing import Any

from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import common_config
from dllm_plugins.families.layout import require
from dllm_plugins.libraries.classes import always

NAME = "illada"


def config(original: Config) -> dict[str, Any]:
    """Llama's own names."""
    require(original, NAME, layer_norm_eps=(None,), hidden_act=("silu",), resid_pdrop=(0.0, None))
    return common_config(original, NAME)


LAYOUT = Layout(
    name=NAME,
    architectures=frozenset({"ILLaDAForCausalLM"}),
    model_types=frozenset({"illada"}),
    native=always("LlamaForCausalLM"),
    classes="Llama",
    config=config,
    attention="bidirectional",
    shifted=False,
    checkpoints=("GSAI-ML/iLLaDA-8B-Base", "GSAI-ML/iLLaDA-8B-Instruct"),
    modes={"diffusion": "llada"},
    samplers=("fast_dllm",),
    licence="Apache-2.0",
    cases=("illada",),
    verified="logits equal a transcription of the reference bit for bit",
    mask_id=5,
)
