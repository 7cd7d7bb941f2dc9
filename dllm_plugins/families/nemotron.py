"""Nemotron-Labs-Diffusion: a Ministral3 body with two masks on one set of weights.

Prompt, finished blocks and verification are causal; the block being denoised sees the
prefix and all of itself. Source: a public copy of the checkpoint's modelling file; equal
to `Ministral3ForCausalLM` within 3e-5, rotary scaling and query scale included.
"""

from typing import Any

from dllm_plugins.families.layout import COMMON
from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import Tensors
from dllm_plugins.families.layout import pick
from dllm_plugins.families.layout import renamed
from dllm_plugins.families.layout import require
from dllm_plugins.libraries.classes import always

NAME = "nemotron_labs"


def config(original: Config) -> dict[str, Any]:
    """Ministral3's own names; `rope_parameters` carries the scaling."""
    require(
        original,
        NAME,
        dlm_paradigm=("bidirectional",),
        attention_bias=(False, None),
        mlp_bias=(False, None),
        sliding_window=(None,),
        hidden_act=("silu",),
    )
    found = pick(original, COMMON)
    found.pop("attention_bias", None)
    found.pop("mlp_bias", None)
    return {**found, "sliding_window": None}


def tensors(stored: Tensors, _original: Config) -> Tensors:
    """Two prefixes."""
    return renamed(stored, ("encoder.", "model."), ("diffusion_head.", "lm_head."))


LAYOUT = Layout(
    name=NAME,
    architectures=frozenset({"NemotronLabsDiffusionModel"}),
    model_types=frozenset({"nemotron_labs_diffusion"}),
    native=always("Ministral3ForCausalLM"),
    classes="Ministral3",
    config=config,
    tensors=tensors,
    attention="causal context, bidirectional block",
    shifted=False,
    checkpoints=(
        "nvidia/Nemotron-Labs-Diffusion-3B",
        "nvidia/Nemotron-Labs-Diffusion-8B",
        "nvidia/Nemotron-Labs-Diffusion-14B",
    ),
    modes={
        "diffusion": "nemotron",
        "speculative": "nemotron_speculative",
        "ar": "nemotron_ar",
        "repair": "nemotron_repair",
    },
    licence="NVIDIA Nemotron Open Model License",
    cases=("nemotron_labs",),
    verified="logits equal the reference's within 1e-4, both masks",
    mask_id=100,
)
