"""Dream-7B, Dream-Coder, DiffuCoder, DreamOn (arXiv 2508.15487): a Qwen2 whose rows see everything, shifted by one.

Source: the checkpoints' modelling file (copy in ZHZisZZ/dllm), equal to
`Qwen2ForCausalLM` bit for bit. DreamReasoner calls itself `Dream` too, but is another
architecture (query and key norms, block-causal, unshifted): refused.
"""

from typing import Any

from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import common_config
from dllm_plugins.families.layout import require
from dllm_plugins.libraries.classes import always

NAME = "dream"


def config(original: Config) -> dict[str, Any]:
    """Qwen2's own names."""
    require(original, NAME, model_type=("Dream",), block_size=(None,), hidden_act=("silu",))
    return common_config(original, NAME)


LAYOUT = Layout(
    name=NAME,
    architectures=frozenset({"DreamModel"}),
    model_types=frozenset({"Dream"}),
    native=always("Qwen2ForCausalLM"),
    classes="Qwen2",
    config=config,
    attention="bidirectional",
    shifted=True,
    checkpoints=(
        "Dream-org/Dream-v0-Base-7B",
        "Dream-org/Dream-v0-Instruct-7B",
        "Dream-org/Dream-Coder-v0-Instruct-7B",
        "Dream-org/DreamOn-v0-7B",
        "apple/DiffuCoder-7B-Instruct",
    ),
    licence="Apache-2.0 (DiffuCoder: apple-amlr)",
    cases=("dream", "dreamon"),
    verified="logits equal the reference's bit for bit",
    modes={"diffusion": "dream"},
    samplers=("dreamon",),
    hints={"dreamon": "dreamon"},
    mask_id=151666,
)
