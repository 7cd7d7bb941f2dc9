"""A fixed number of positions a pass, chosen at random (MDLM ancestral order, arXiv 2406.07524)."""

from typing import Any

import torch
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import most_probable
from dllm_plugins.rules.quota import row_quotas


class RandomRule:
    """The quota of the pass goes to positions drawn from the row's own noise."""

    name = "random"
    options = frozenset({"steps"})
    summary = "block_length / `steps` positions a pass, in random order (arXiv 2406.07524)"

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.CommitRule`."""
        width = view.open.shape[-1]
        order = torch.stack(
            [
                noise.uniform(Key(Purpose.RULE_ORDER, step=int(step), extra=int(done)), width)
                for noise, step, done in zip(view.noise, view.step, view.committed_now, strict=True)
            ]
        )
        return most_probable(order, view.open, row_quotas(view, configs)), state
