"""Families that keep Qwen's names and layers: SDAR, WeDLM, RND1, Fast-dLLM v2, Tiny-A2D, Open-dCoder.

What differs between them is who sees whom, the shift and the sampler; the weights load as
they are. Each one's source stands beside it.
"""

from functools import partial
from typing import TYPE_CHECKING
from typing import Any

from dllm_plugins.families.layout import EXPERTS
from dllm_plugins.families.layout import Config
from dllm_plugins.families.layout import Layout
from dllm_plugins.families.layout import common_config
from dllm_plugins.families.layout import require
from dllm_plugins.libraries.classes import always
from dllm_plugins.libraries.classes import transformers_class

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BIT_EQUAL = "logits equal the reference's bit for bit"
CLOSE = "logits equal the reference's within 1e-4"


def _config(name: str, more: tuple[str, ...], original: Config) -> dict[str, Any]:
    require(original, name, hidden_act=("silu",))
    return common_config(original, name, *more)


def _wedlm(original: Config) -> "type[PreTrainedModel]":
    return transformers_class("Qwen3ForCausalLM" if original.get("qk_norm") else "Qwen2ForCausalLM")


def _a2d(original: Config) -> "type[PreTrainedModel]":
    known = {"a2d-qwen2": "Qwen2ForCausalLM", "a2d-qwen3": "Qwen3ForCausalLM", "a2d-llama": "LlamaForCausalLM"}
    require(original, "a2d", model_type=tuple(known))
    return transformers_class(known[original["model_type"]])


#: JetAstra/SDAR c2041a8 (`generate.py` and the training copy of the modelling file).
SDAR = Layout(
    name="sdar",
    architectures=frozenset({"SDARForCausalLM"}),
    model_types=frozenset({"sdar"}),
    native=always("Qwen3ForCausalLM"),
    classes="Qwen3",
    config=partial(_config, "sdar", ()),
    attention="block-causal",
    shifted=False,
    checkpoints=("JetLM/SDAR-1.7B-Chat", "JetLM/SDAR-4B-Chat", "JetLM/SDAR-8B-Chat", "Gen-Verse/TraDo-8B-Instruct"),
    modes={"diffusion": "sdar"},
    block_length=4,
    licence="Apache-2.0 by the model card, MIT by the repository",
    cases=("sdar",),
    verified=CLOSE,
    mask_id=151669,
)
#: PKU-SEC-Lab/TEAM-MoE-dLLM e9c502e, a modified copy of the checkpoint's modelling file.
SDAR_MOE = Layout(
    name="sdar_moe",
    architectures=frozenset({"SDARMoeForCausalLM"}),
    model_types=frozenset({"sdar_moe"}),
    native=always("Qwen3MoeForCausalLM"),
    classes="Qwen3Moe",
    config=partial(_config, "sdar_moe", EXPERTS),
    attention="block-causal",
    shifted=False,
    checkpoints=("JetLM/SDAR-30B-A3B-Chat", "JetLM/SDAR-30B-A3B-Sci"),
    modes={"diffusion": "sdar"},
    block_length=4,
    licence="Apache-2.0 by the model card, MIT by the repository",
    cases=("sdar_moe",),
    verified=CLOSE,
    mask_id=151669,
)
#: Tencent/WeDLM 0216110 `hf_compat/modeling_wedlm.py`; arXiv 2512.22737.
WEDLM = Layout(
    name="wedlm",
    architectures=frozenset({"WeDLMForCausalLM"}),
    model_types=frozenset({"wedlm"}),
    native=_wedlm,
    classes="Qwen2 or Qwen3",
    config=partial(_config, "wedlm", ()),
    attention="causal, reordered",
    shifted=False,
    checkpoints=("tencent/WeDLM-7B-Instruct", "tencent/WeDLM-8B-Instruct"),
    modes={"diffusion": "wedlm"},
    samplers=("wedlm_block",),
    block_length=16,
    licence="Apache-2.0",
    cases=("wedlm_qwen2", "wedlm_qwen3"),
    verified=BIT_EQUAL,
    mask_id=151665,
)
#: RadicalNumerics/RND1 87d5f46 `rnd/`.
RND1 = Layout(
    name="rnd1",
    architectures=frozenset({"RND1LM"}),
    model_types=frozenset({"rnd1"}),
    native=always("Qwen3MoeForCausalLM"),
    classes="Qwen3Moe",
    config=partial(_config, "rnd1", EXPERTS),
    attention="bidirectional",
    shifted=True,
    checkpoints=("radicalnumerics/RND1-Base-0910",),
    modes={"diffusion": "rnd1"},
    licence="Apache-2.0",
    cases=("rnd1",),
    verified=CLOSE,
    mask_id=151669,
)
#: A copy of the checkpoints' modelling file (Satgoy152/DualDiffusion 189fa7a); arXiv 2509.26328.
FAST_DLLM_V2 = Layout(
    name="fast_dllm_v2",
    architectures=frozenset({"Fast_dLLM_QwenForCausalLM"}),
    model_types=frozenset({"Fast_dLLM_Qwen"}),
    native=always("Qwen2ForCausalLM"),
    classes="Qwen2",
    config=partial(_config, "fast_dllm_v2", ()),
    attention="block-causal",
    shifted=True,
    checkpoints=("Efficient-Large-Model/Fast_dLLM_v2_1.5B", "Efficient-Large-Model/Fast_dLLM_v2_7B"),
    modes={"diffusion": "fast_dllm_v2"},
    stop_ids=frozenset({151645}),
    licence="see the checkpoint's page",
    cases=("fastdllm_v2",),
    verified=BIT_EQUAL,
    mask_id=151665,
)
#: ZHZisZZ/dllm ca176752 `dllm/pipelines/a2d`; the mask token is in the tokenizer's files.
A2D = Layout(
    name="a2d",
    architectures=frozenset({"A2DQwen3LMHeadModel", "A2DQwen2LMHeadModel", "A2DLlamaLMHeadModel"}),
    model_types=frozenset({"a2d-qwen2", "a2d-qwen3", "a2d-llama"}),
    native=_a2d,
    classes="Qwen2, Qwen3 or Llama",
    config=partial(_config, "a2d", ()),
    attention="bidirectional",
    shifted=False,
    checkpoints=("dllm-hub/Qwen3-0.6B-diffusion-mdlm-v0.1", "dllm-hub/Qwen3-0.6B-diffusion-bd3lm-v0.1"),
    samplers=("mdlm", "bd3lm"),
    hints={"mdlm": "mdlm", "bd3lm": "bd3lm"},
    licence="see the checkpoint's page",
    cases=("a2d_qwen3",),
    verified=BIT_EQUAL,
)
#: pengzhangzhi/Open-dLLM 8b38787; its config is an ordinary Qwen2's.
OPEN_DCODER = Layout(
    name="open_dcoder",
    architectures=frozenset({"Qwen2ForCausalLM"}),
    model_types=frozenset({"qwen2"}),
    native=always("Qwen2ForCausalLM"),
    classes="Qwen2",
    config=partial(_config, "open_dcoder", ()),
    attention="bidirectional",
    shifted=True,
    checkpoints=("fredzzp/open-dcoder-0.5B",),
    modes={"diffusion": "open_dcoder"},
    licence="Apache-2.0 by the repository",
    cases=("open_dcoder",),
    verified=BIT_EQUAL,
    named_only=True,
)
#: NVIDIA-NeMo/Automodel `examples/dllm_generate`; its config calls itself SDAR.
IDLM = Layout(
    name="idlm",
    architectures=frozenset({"SDARForCausalLM"}),
    model_types=frozenset({"sdar"}),
    native=always("Qwen3ForCausalLM"),
    classes="Qwen3",
    config=partial(_config, "idlm", ()),
    attention="causal",
    shifted=True,
    checkpoints=("yifanyu/I-DLM-8B",),
    modes={"diffusion": "idlm"},
    block_length=4,
    licence="see the checkpoint's page",
    verified="the class is the one Automodel loads; its sampler was read and compared with an uncached loop",
    mask_id=151669,
    named_only=True,
)
LAYOUTS = (SDAR, SDAR_MOE, WEDLM, RND1, FAST_DLLM_V2, A2D, OPEN_DCODER, IDLM)
