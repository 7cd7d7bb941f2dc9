"""Families whose class is in transformers under its own name: BERT-chat and DiffusionGemma."""

from typing import Any

from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import pick
from dllm_plugins.families.layout import require
from dllm_plugins.libraries.classes import always


def _config(original: Config) -> dict[str, Any]:
    """All of it: the class reads it itself."""
    unread = ("architectures", "model_type", "auto_map", "transformers_version", "torch_dtype", "dtype")
    return {name: value for name, value in original.items() if name not in unread}


def _gemma_config(original: Config) -> dict[str, Any]:
    """All of it, if its encoder is causal."""
    require(original.get("text_config") or {}, "diffusion_gemma", use_bidirectional_attention=(None, "vision"))
    return _config(original)


#: Rendered as dllm does; the published tokenizers have none.
_CHAT = """\
{%- set names = {'system': 'SYS', 'user': 'Question', 'assistant': 'Answer'} -%}
{%- for message in messages -%}
{{ '[' + names[message['role']] + ']\n' + message['content'] | trim + '\n[/' + names[message['role']] + ']\n\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '[Answer]\n' }}{%- endif -%}"""


def _gemma_sampling(generation: Config) -> dict[str, Any]:
    """Its generation config has its own names for two of them."""
    same = ("t_min", "t_max", "stability_threshold", "confidence_threshold")
    bound = pick(generation.get("sampler_config") or {}, ("entropy_bound",))
    steps = generation.get("max_denoising_steps")
    return pick(generation, same) | bound | ({} if steps is None else {"steps": steps})


#: ZHZisZZ/dllm ca176752; two of three layers see a local window, so no 4-D mask of one's own.
BERT_CHAT = Layout(
    name="bert_chat",
    architectures=frozenset({"ModernBertForMaskedLM"}),
    model_types=frozenset({"modernbert"}),
    native=always("ModernBertForMaskedLM"),
    classes="ModernBert",
    config=_config,
    attention="own",
    shifted=False,
    modes={"diffusion": "mdlm"},
    chat_template=_CHAT,
    stops=("\n[/Answer]", "[/Answer]"),
    checkpoints=("dllm-hub/ModernBERT-base-chat-v0.1", "dllm-hub/ModernBERT-large-chat-v0.1"),
    licence="see the checkpoint's page",
    cases=("bert_chat",),
    verified="logits equal the reference's bit for bit",
)
#: transformers' own; uniform noise, self-conditioning, causal encoder and bidirectional decoder. Text only.
DIFFUSION_GEMMA = Layout(
    name="diffusion_gemma",
    architectures=frozenset({"DiffusionGemmaForBlockDiffusion"}),
    model_types=frozenset({"diffusion_gemma"}),
    native=always("DiffusionGemmaForBlockDiffusion"),
    classes="DiffusionGemma",
    config=_gemma_config,
    attention="causal context, bidirectional block",
    shifted=False,
    checkpoints=("google/diffusiongemma-26B-A4B-it",),
    licence="see the checkpoint's page",
    cases=("diffusion_gemma",),
    verified="transformers' own class",
    modes={"diffusion": "diffusion_gemma"},
    samplers=("flow_uniform",),
    block_length=256,
    noise="uniform",
    sampling=_gemma_sampling,
)
LAYOUTS = (BERT_CHAT, DIFFUSION_GEMMA)
