"""Sure tokens vouch for their neighbours (LocalLeap, arXiv 2510.07081).

The values are those of the authors' evaluation (friedrichor/LocalLeap): anchors at 0.9,
neighbours at 0.75, at most 4 positions away.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import RuleDefaults
from dllm_plugins.rules.base import RuleSettings
from dllm_plugins.rules.base import most_probable
from dllm_plugins.rules.base import parameters
from dllm_plugins.rules.history import committed_meanwhile
from dllm_plugins.rules.threshold import DEFAULT_THRESHOLD


class LocalLeapSettings(RuleSettings):
    """Parameters of the rule."""

    relaxed: float = Field(0.75, gt=0.0, le=1.0, description="least probability of a position near an anchor")
    radius: int = Field(4, ge=0, le=1024, description="how many positions away an anchor still counts")


class LocalLeapRule(RuleDefaults):
    """Commit all anchors, p >= threshold, and near an anchor of this pass whatever has p >= relaxed."""

    name = "local_leap"
    options = frozenset({"threshold"})
    settings = LocalLeapSettings
    summary = (
        "every position at least as probable as `threshold` (default 0.9), and those within `radius` of one that "
        "reach `relaxed`; at least one a pass (LocalLeap, arXiv 2510.07081)"
    )

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.CommitRule`."""
        own = [parameters(self.settings, config, self.name) for config in configs]
        dtype = view.probability.dtype
        levels = [DEFAULT_THRESHOLD if config.threshold is None else config.threshold for config in configs]
        anchors = (view.open | committed_meanwhile(view)) & (
            view.probability >= torch.tensor(levels, dtype=dtype)[:, None]
        )
        radius = torch.tensor([item.radius for item in own])[:, None, None]
        distance = (view.position[:, :, None] - view.position[:, None, :]).abs()
        near = ((distance <= radius) & anchors[:, None, :]).any(-1)
        relaxed = torch.tensor([item.relaxed for item in own], dtype=dtype)[:, None]
        chosen = view.open & (anchors | (near & (view.probability >= relaxed)))
        none_yet = (view.committed_now == 0) & ~chosen.any(-1)
        return chosen | most_probable(view.probability, view.open, none_yet.long()), state
