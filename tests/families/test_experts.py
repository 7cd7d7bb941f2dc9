"""Experts in one batched product: what transformers' own way gives, wherever it is taken."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Glm4MoeConfig
from transformers import Glm4MoeForCausalLM
from transformers.integrations import moe

from dllm_plugins.denoisers.experts import NAME
from dllm_plugins.denoisers.experts import padded_experts
from dllm_plugins.denoisers.experts import quicken

WIDTH, INNER, EXPERTS, CHOSEN = 24, 16, 16, 2


def glm(**options: Any) -> Glm4MoeForCausalLM:
    """One dense layer and one of experts."""
    config = Glm4MoeConfig(
        vocab_size=32,
        hidden_size=WIDTH,
        intermediate_size=32,
        moe_intermediate_size=INNER,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        n_routed_experts=EXPERTS,
        num_experts_per_tok=CHOSEN,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
    )
    torch.manual_seed(0)
    model: Glm4MoeForCausalLM = Glm4MoeForCausalLM(config).to(**options).eval()
    return model


def experts(dtype: torch.dtype) -> Any:
    found = glm(dtype=dtype).model.layers[1].mlp.experts
    for weight in found.parameters():
        torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
    return found


def one_by_one(layer: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """Row by row and expert by expert, in double precision."""
    found = torch.zeros(hidden.shape, dtype=torch.float64)
    for row, (numbers, shares) in enumerate(zip(chosen.tolist(), weights.double(), strict=True)):
        for number, share in zip(numbers, shares, strict=True):
            gate, up = (layer.gate_up_proj[number].double() @ hidden[row].double()).chunk(2)
            found[row] += share * (layer.down_proj[number].double() @ (torch.nn.functional.silu(gate) * up))
    return found


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("rows", [1, 3, 32, 80])
@pytest.mark.parametrize("spread", ["even", "random", "one"])
@torch.inference_mode()
def test_it_is_the_sum_of_the_experts(rows: int, spread: str, dtype: torch.dtype) -> None:
    """However the rows fall upon them, all upon the same ones included."""
    layer, generator = experts(dtype), torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, WIDTH, generator=generator).to(dtype)
    weights = torch.rand(rows, CHOSEN, generator=generator)
    chosen = {
        "even": torch.arange(rows * CHOSEN).view(rows, CHOSEN) % EXPERTS,
        "random": torch.rand(rows, EXPERTS, generator=generator).topk(CHOSEN).indices,
        "one": torch.tensor([[5, 2]]).expand(rows, CHOSEN),
    }[spread]
    found = padded_experts(layer, hidden, chosen, weights)
    assert found.dtype == dtype
    exact = one_by_one(layer, hidden, chosen, weights)
    assert torch.allclose(found.double(), exact, atol=0.05 if dtype == torch.bfloat16 else 1e-5)


@torch.inference_mode()
def test_mostly_zeros_go_transformers_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows at one expert would be padded to eight times their number."""
    layer, calls = experts(torch.bfloat16), list[Tensor]()

    def called(_experts: Any, hidden: Tensor, *_rest: Tensor) -> Tensor:
        calls.append(hidden)
        return hidden

    monkeypatch.setattr(moe, "grouped_mm_experts_forward", called)
    hidden, weights = torch.randn(16, WIDTH).bfloat16(), torch.rand(16, CHOSEN)
    padded_experts(layer, hidden, torch.arange(32).view(16, 2) % EXPERTS, weights)
    assert not calls
    padded_experts(layer, hidden, torch.tensor([[5, 2]]).expand(16, CHOSEN), weights)
    assert len(calls) == 1


def test_only_models_that_gain_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """bfloat16 on a CPU that multiplies it, and transformers' default before."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True))
    short, single, eager = glm(dtype=torch.bfloat16), glm(dtype=torch.float32), glm(dtype=torch.bfloat16)
    eager.set_experts_implementation("eager")
    for model, used in ((short, NAME), (single, "grouped_mm"), (eager, "eager")):
        quicken(model)
        assert model.config._experts_implementation == used
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace(_is_mkldnn_bf16_supported=lambda: False))
    other = glm(dtype=torch.bfloat16)
    quicken(other)
    assert other.config._experts_implementation == "grouped_mm"
