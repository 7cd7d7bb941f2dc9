"""Each interface that transformers does not promise is still there; the name of a test says which broke."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import nn
from transformers import AutoModelForCausalLM
from transformers import PreTrainedTokenizerFast
from transformers import Qwen3MoeConfig
from transformers import pipeline

from dllm_plugins.libraries import private_transformers


@pytest.fixture(scope="module")
def model() -> Any:
    """A tiny mixture of experts."""
    config = Qwen3MoeConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        moe_intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_experts=4,
        num_experts_per_tok=2,
    )
    return AutoModelForCausalLM.from_config(config)


def test_generate_has_default_options() -> None:
    """GenerationConfig._get_default_generation_params."""
    found = private_transformers.default_generation_options()
    assert found["do_sample"] is False
    assert found["num_beams"] == 1


def test_pipelines_keep_their_arguments(model: Any) -> None:
    """Pipeline._generate_kwargs; without it arguments of the pipeline would pass unseen."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, unk_token="a")))
    made = pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu", max_new_tokens=3)
    assert private_transformers.arguments_of(made) == {"max_new_tokens": 3}


def test_experts_can_be_replaced(model: Any) -> None:
    """PreTrainedModel._can_set_experts_implementation, config._experts_implementation and experts._apply_gate."""
    assert private_transformers.can_set_experts(model)
    assert private_transformers.experts_of(model.config) == "grouped_mm"
    (experts,) = (module for module in model.modules() if hasattr(module, "gate_up_proj"))
    rows = torch.randn(3, 16)
    expected = nn.functional.silu(rows[:, :8]) * rows[:, 8:]
    torch.testing.assert_close(private_transformers.gated(experts, rows), expected)


def test_where_accelerate_moves_weights() -> None:
    """The attribute `_hf_hook` of a module that accelerate dispatched."""
    accelerate = pytest.importorskip("accelerate", reason="needs the extra accelerate")
    module = nn.Linear(2, 2)
    assert private_transformers.device_of(module, module.weight) == torch.device("cpu")
    accelerate.hooks.add_hook_to_module(module, accelerate.hooks.AlignDevicesHook(execution_device="meta"))
    assert private_transformers.device_of(module, module.weight) == torch.device("meta")
