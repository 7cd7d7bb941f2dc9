"""The parts of a tri-mode checkpoint that are ours: its config and its denoiser's tensors."""

from typing import Any

import torch
from torch import Tensor
from torch import nn
from transformers import LlamaConfig
from transformers import PreTrainedConfig

from dllm_plugins.denoisers.low_rank import LINEARS
from dllm_plugins.denoisers.low_rank import low_rank_sizes
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.limits import check_numbers
from dllm_plugins.reading import reading

MODEL_TYPE = "dllm_tri_mode"
#: Where the denoiser's tensors stand among those of a checkpoint.
DENOISER_PREFIX = "denoiser."


class TriModeConfig(LlamaConfig):
    """A Llama with a gated low-rank denoiser; see docs/default-model.md.

    :param denoiser_rank: rank of the low-rank pairs.
    :param denoiser_chain: width of the chain head.
    :param denoiser_shortlist: how many token ids drafts are chosen among; 0 for all.
    """

    model_type = MODEL_TYPE
    denoiser_rank: int = 32
    denoiser_chain: int = 640
    denoiser_shortlist: int = 0

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers.

        :raises CheckpointError: for values that no config has.
        """
        check_numbers(config_dict, "config.json")
        with reading("config.json"):
            return super().from_dict(config_dict, **kwargs)


def shape_of(config: PreTrainedConfig) -> LlamaShape:
    """The base's numbers; that of a tri-mode model is a Llama.

    :raises CheckpointError: if the base is nothing that the engine's forward does.
    """
    found = config.to_dict()
    return LlamaShape.from_config(found | ({"model_type": "llama"} if found["model_type"] == MODEL_TYPE else {}))


class TriModeDenoiser(nn.Module):
    """The denoiser's tensors, under the names of the shipped safetensors file."""

    def __init__(self, config: TriModeConfig) -> None:
        super().__init__()
        shape = shape_of(config)
        hidden, rank, chain = shape.hidden, config.denoiser_rank, config.denoiser_chain
        sizes = low_rank_sizes(shape)
        self.mask_embedding = nn.Parameter(torch.zeros(hidden))
        self.chain = _pair(3 * hidden, chain, hidden)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: _pair(sizes[name][0], rank, sizes[name][1]) for name in LINEARS})
            for _ in range(config.num_hidden_layers)
        )
        if config.denoiser_shortlist:
            self.register_buffer("draft_tokens", torch.zeros(config.denoiser_shortlist, dtype=torch.int32))


def _pair(inner: int, rank: int, outer: int) -> nn.ParameterDict:
    return nn.ParameterDict(
        {"down": nn.Parameter(torch.zeros(rank, inner)), "up": nn.Parameter(torch.zeros(outer, rank))}
    )


def denoiser_tensors(model: nn.Module) -> dict[str, Tensor] | None:
    """The denoiser's tensors of a tri-mode model by their shipped names; None for other models."""
    denoiser = getattr(model, "denoiser", None)
    if not isinstance(denoiser, TriModeDenoiser):
        return None
    return {name: tensor.detach() for name, tensor in denoiser.state_dict().items()}
