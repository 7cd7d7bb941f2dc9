"""Early positions first, and tokens that say something (PC-Sampler, arXiv 2508.13021; NEUIR/PC-Sampler 8b106b0)."""

from typing import Any
from typing import Self

import torch
from pydantic import Field
from pydantic import field_validator
from pydantic import model_validator
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import RuleDefaults
from dllm_plugins.rules.base import RuleSettings
from dllm_plugins.rules.base import most_probable
from dllm_plugins.rules.base import parameters
from dllm_plugins.rules.corpus import frequencies
from dllm_plugins.rules.corpus import surprise
from dllm_plugins.rules.quota import row_quotas

_SMALLEST = 1e-300


class PositionAwareSettings(RuleSettings):
    """Parameters of the rule."""

    decay: float = Field(
        0.25, ge=0.0, allow_inf_nan=False, description="how much earlier positions are preferred; 0 is not at all"
    )
    clip: float = Field(10.0, gt=0.0, description="largest p * -log frequency; needs corpus")
    corpus: str | tuple[float, ...] | None = Field(
        None, description="how frequent tokens are: a list by id, or a .json, .npy, .npz or .safetensors file"
    )

    @field_validator("corpus")
    @classmethod
    def _is_readable(cls, value: str | tuple[float, ...] | None) -> str | tuple[float, ...] | None:
        if value is not None:
            frequencies(value)
        return value

    @model_validator(mode="after")
    def _clip_has_an_effect(self) -> Self:
        if "clip" in self.model_fields_set and self.corpus is None:
            raise ValueError(f"clip={self.clip} has no effect without corpus; leave it out or give a corpus")
        return self


class PositionAwareRule(RuleDefaults):
    """The quota of the pass by exp(-decay * position) * min(p * -log p_corpus, clip); by p for lack of a corpus."""

    name = "position_aware"
    options = frozenset({"steps"})
    needs = frozenset({"token"})
    settings = PositionAwareSettings
    summary = (
        "block_length / `steps` positions a pass by exp(-decay * position) * min(p * -log p_corpus, clip), "
        "or p in place of the second factor if no `corpus` is given (PC-Sampler, arXiv 2508.13021)"
    )

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.CommitRule`."""
        own = [parameters(self.settings, config, self.name) for config in configs]
        worth = torch.stack([_worth(view, row, item) for row, item in enumerate(own)])
        decay = torch.tensor([item.decay for item in own], dtype=torch.float64)[:, None]
        # In logarithms: far from the prompt the product would be 0 everywhere.
        score = worth.clamp(min=_SMALLEST).log() - decay * view.position
        return most_probable(score, view.open, row_quotas(view, configs)), state


def _worth(view: CanvasView, row: int, own: PositionAwareSettings) -> Tensor:
    """What each position's token is worth wherever it stands, float64 [B]."""
    probability = view.probability[row].double()
    if own.corpus is None:
        return probability
    return (probability * surprise(frequencies(own.corpus), view.token[row])).clamp(max=own.clip)
