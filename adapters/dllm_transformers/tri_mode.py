"""The parts of a tri-mode checkpoint that are ours: its config and its denoiser's tensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import nn
from transformers import LlamaConfig
from transformers import PreTrainedConfig

from dllm_plugins.denoisers.low_rank import CHAINED
from dllm_plugins.denoisers.low_rank import DRAFTS
from dllm_plugins.denoisers.low_rank import LINEARS
from dllm_plugins.denoisers.low_rank import RANKED
from dllm_plugins.denoisers.low_rank import check_low_rank
from dllm_plugins.denoisers.low_rank import low_rank_sizes
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.denoisers.weights import check_llama
from dllm_plugins.denoisers.weights import read_tensors
from dllm_plugins.errors import CheckpointError
from dllm_plugins.files import limits
from dllm_plugins.files.limits import check_numbers
from dllm_plugins.files.reading import reading
from dllm_transformers.arguments import DTYPE_KEYS
from dllm_transformers.arguments import checked
from dllm_transformers.arguments import dtype_of
from dllm_transformers.arguments import entries_of

MODEL_TYPE = "dllm_tri_mode"
REMEDY = "export the model again"
#: Where the denoiser's tensors stand among those of a checkpoint.
DENOISER_PREFIX = "denoiser."


class TriModeConfig(LlamaConfig):
    """A Llama with a gated low-rank denoiser; see docs/default-model.md.

    :param denoiser_rank: rank of the low-rank pairs.
    :param denoiser_chain: width of the draft head.
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
        :raises OptionError: for a dtype that no weight has, and for a way to compute experts.
        """
        for name in DTYPE_KEYS:
            dtype_of(kwargs.get(name))
        # There are none: transformers would note it and do nothing.
        checked({"experts_implementation": kwargs.pop("experts_implementation", None)}, (), frozenset())
        check_numbers(config_dict, "config.json")
        with reading("config.json"):
            return super().from_dict(config_dict, **kwargs)


def config_of(given: Any, entries: Mapping[str, Any]) -> TriModeConfig:
    """A config from its entries, or from where they are, with some of them changed.

    :raises CheckpointError: for a file that cannot be read, and values that no config has.
    :raises OptionError: for the config of another class.
    """
    if isinstance(given, TriModeConfig):
        return given
    found: TriModeConfig = TriModeConfig.from_dict({**entries_of(given), **entries})
    return found


def shape_of(config: PreTrainedConfig) -> LlamaShape:
    """The base's numbers; that of a tri-mode model is a Llama.

    :raises CheckpointError: if the base is nothing that the engine's forward does.
    """
    found = config.to_dict()
    return LlamaShape.from_config(found | ({"model_type": "llama"} if found["model_type"] == MODEL_TYPE else {}))


def check_config(config: TriModeConfig) -> LlamaShape:
    """The base's numbers, if all of them and the denoiser's are such as a model has.

    :raises CheckpointError: naming one that is none.
    """
    shape = shape_of(config)
    for name, least in (("denoiser_rank", 1), ("denoiser_chain", 1), ("denoiser_shortlist", 0)):
        most = shape.vocabulary if name == "denoiser_shortlist" else limits.WIDTH
        limits.whole(getattr(config, name), name, "config.json", least, most)
    return shape


def check_folder(folder: Path, config: TriModeConfig) -> None:
    """Refuse a checkpoint whose tensors are not all that its config says.

    :raises CheckpointError: naming one that is missing, surplus, misshapen, or no weight or token id.
    """
    shape, tensors, origin = check_config(config), read_tensors(folder), str(folder)
    own = {name: tensors.pop(name) for name in [*tensors] if name.startswith(DENOISER_PREFIX)}
    check_llama(tensors, shape, origin, REMEDY)
    weights, drafts = check_low_rank(
        {name.removeprefix(DENOISER_PREFIX): tensor for name, tensor in own.items()}, shape, origin, REMEDY
    )
    numbers = {
        "denoiser_rank": len(weights[RANKED]),
        "denoiser_chain": len(weights[CHAINED]),
        "denoiser_shortlist": 0 if drafts is None else len(drafts),
    }
    for name, number in numbers.items():
        if getattr(config, name) != number:
            raise CheckpointError(
                f"{origin}: config.json says {name}={getattr(config, name)}, and its tensors say {number}; {REMEDY}"
            )


class DenoiserTensors(nn.Module):
    """The denoiser's tensors, under the names of the shipped safetensors file."""

    def __init__(self, config: TriModeConfig) -> None:
        super().__init__()
        shape = check_config(config)
        hidden, rank, chain = shape.hidden, config.denoiser_rank, config.denoiser_chain
        sizes = low_rank_sizes(shape)
        self.mask_embedding = nn.Parameter(torch.zeros(hidden))
        self.chain = _pair(3 * hidden, chain, hidden)
        self.layers = nn.ModuleList(
            nn.ModuleDict({name: _pair(sizes[name][0], rank, sizes[name][1]) for name in LINEARS})
            for _ in range(config.num_hidden_layers)
        )
        if config.denoiser_shortlist:
            self.register_buffer(DRAFTS, torch.zeros(config.denoiser_shortlist, dtype=torch.int32))


def _pair(inner: int, rank: int, outer: int) -> nn.ParameterDict:
    return nn.ParameterDict(
        {"down": nn.Parameter(torch.zeros(rank, inner)), "up": nn.Parameter(torch.zeros(outer, rank))}
    )


def denoiser_tensors(model: nn.Module) -> dict[str, Tensor] | None:
    """The denoiser's tensors of a tri-mode model by their shipped names; None for other models."""
    denoiser = getattr(model, "denoiser", None)
    if not isinstance(denoiser, DenoiserTensors):
        return None
    return {name: tensor.detach() for name, tensor in denoiser.state_dict().items()}
