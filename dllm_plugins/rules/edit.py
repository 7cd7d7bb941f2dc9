"""Overwrite committed tokens: LLaDA2.1's token-to-token rule (arXiv 2602.08676).

Source: `LLaDA2MoeModelLM.generate` of the 2.1 checkpoints, beside which the sampler
`llada2.1` also edits a block that has nothing open any more. This rule does not.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import RuleSettings
from dllm_plugins.rules.base import revocation_parameters


class EditSettings(RuleSettings):
    """Parameters of the rule."""

    edit_threshold: float = Field(0.9, ge=0.0, le=1.0, description="the new token must be more probable than this")


class EditRule:
    """A committed position takes the drawn token if that is another one and probable enough."""

    name = "edit"
    summary = (
        "committed tokens are overwritten by another one more probable than `edit_threshold` "
        "(token editing of LLaDA2.1, arXiv 2602.08676)"
    )
    needs = frozenset({"token", "drawn"})
    settings: type[RuleSettings] = EditSettings
    replaces = True

    def revoke(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.RevocationRule`."""
        own = [revocation_parameters(EditSettings, config, self.name) for config in configs]
        level = torch.tensor([item.edit_threshold for item in own], dtype=view.probability.dtype)[:, None]
        return view.committed & (view.drawn != view.token) & (view.probability > level), state
