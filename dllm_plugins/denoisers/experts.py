"""Experts of a mixture, for passes of few rows: all of them in one batched product.

transformers multiplies expert by expert. In 16 bits on a CPU a product of three or four rows
is mostly preparation, and a pass over a block is hundreds of such products. Here the rows of
each expert are filled up with zeros to those of the busiest one. Where that would be mostly
zeros, because few rows go to few of many experts, or most go to the same one, transformers'
own way is taken; likewise in float32, where it is as fast.

It is registered under :data:`NAME` where transformers looks for such functions.
"""

from typing import TYPE_CHECKING
from typing import Any

import torch
from torch import Tensor
from torch import nn

from dllm_kernels.private_torch import onednn_multiplies_bfloat16
from dllm_plugins.libraries.private_transformers import can_set_experts
from dllm_plugins.libraries.private_transformers import experts_of
from dllm_plugins.libraries.private_transformers import gated

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "dllm_padded"
#: What padding may cost: rows multiplied per row that counts, above which experts go one by one.
MOST = 4


def padded_experts(experts: Any, hidden: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum of each row's chosen experts, [N, width].

    :param experts: transformers' module, with `gate_up_proj` [E, 2 * inner, width] and
        `down_proj` [E, width, inner].
    :param hidden: [N, width], any floating dtype.
    :param chosen: int64 [N, k], the experts of each row.
    :param weights: float [N, k].
    """
    picks = chosen.reshape(-1)
    count = len(experts.gate_up_proj)
    owners, order = torch.sort(picks, stable=True)
    loads = torch.bincount(picks, minlength=count)
    most = int(loads.max())
    if most * count > MOST * len(picks):
        from transformers.integrations.moe import grouped_mm_experts_forward

        found: Tensor = grouped_mm_experts_forward(experts, hidden, chosen, weights)
        return found
    begins = loads.cumsum(0) - loads
    slots = owners * most + torch.arange(len(picks), device=picks.device) - begins.index_select(0, owners)
    rows = hidden.new_zeros(count * most, hidden.shape[1])
    rows.index_copy_(0, slots, hidden.index_select(0, order // chosen.shape[1]))
    inner = gated(experts, torch.bmm(rows.view(count, most, -1), experts.gate_up_proj.transpose(1, 2)))
    outer = torch.bmm(inner, experts.down_proj.transpose(1, 2)).view(count * most, -1)
    back = torch.empty_like(slots).index_copy_(0, order, slots)
    mixed = outer.index_select(0, back).view(*chosen.shape, -1) * weights[:, :, None]
    return mixed.sum(1).to(hidden.dtype)


def quicken(model: "PreTrainedModel") -> None:
    """Let a model's experts use :func:`padded_experts`, if it has any and they gain by it.

    They do where all of them are plain gated ones in bfloat16 on a CPU whose oneDNN
    multiplies it, and nothing else than transformers' default was asked for.
    """
    config: Any = model.config.get_text_config()
    if experts_of(config) != "grouped_mm" or not can_set_experts(model):
        return
    experts = [module for module in model.modules() if hasattr(module, "gate_up_proj") and hasattr(module, "has_gate")]
    if onednn_multiplies_bfloat16() and experts and all(map(_plain, experts)):
        from transformers.integrations.moe import ExpertsInterface

        ExpertsInterface.register(NAME, padded_experts)
        model.set_experts_implementation(NAME)


def _plain(experts: nn.Module) -> bool:
    """Whether :func:`padded_experts` computes what this module computes, and on a CPU in bfloat16."""
    unlike = ("has_bias", "is_transposed", "has_post_expert_norm", "_is_expert_parallel")
    weight: Any = experts.gate_up_proj
    return (
        isinstance(weight, Tensor)
        and weight.ndim == 3
        and weight.dtype == torch.bfloat16
        and weight.device.type == "cpu"
        and getattr(experts, "has_gate", False)
        and not any(getattr(experts, name, False) for name in unlike)
    )
