"""DiffuLLaMA-7B (arXiv 2410.17891): a Llama whose rows see everything, shifted by one.

Source: HKUNLP/DiffuLLaMA c17e897, which loads the checkpoint into `LlamaForCausalLM` itself; its
config is an ordinary Llama's, so users must name the family. The mask is a token of its
tokenizer. No recorded run exists: the reference always samples.
"""

from typing import Any

from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import common_config
from dllm_plugins.families.layout import require
from dllm_plugins.libraries.classes import always

NAME = "diffullama"


def config(original: Config) -> dict[str, Any]:
    """Llama's own names."""
    require(original, NAME, model_type=("llama",), hidden_act=("silu", None))
    return common_config(original, NAME)


LAYOUT = Layout(
    name=NAME,
    architectures=frozenset({"LlamaForCausalLM"}),
    model_types=frozenset({"llama"}),
    native=always("LlamaForCausalLM"),
    classes="Llama",
    config=config,
    attention="bidirectional",
    shifted=True,
    checkpoints=("diffusionfamily/diffullama",),
    modes={"diffusion": NAME},
    licence="see the checkpoint's page",
    verified="the class is the one the reference loads; its sampler was read, not run",
    named_only=True,
)
