"""A fixed number of positions a pass (LLaDA, arXiv 2502.09992)."""

from typing import Any

import torch
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.base import most_probable


def pass_quota(block_length: int, steps: int, step: int) -> int:
    """Tokens to commit in pass `step`: block_length / steps, the remainder in the first passes.

    LLaDA's schedule, repeated for every block. At least one, so that a block always ends.
    """
    share, rest = divmod(block_length, steps)
    return max(1, share + (step % steps < rest))


def row_quotas(view: CanvasView, configs: tuple[SamplingConfig, ...]) -> Tensor:
    """How many more positions each row commits in this pass, int64 [R]."""
    width = view.open.shape[-1]
    quotas = [
        pass_quota(width, c.steps if c.steps is not None else width, int(step))
        for c, step in zip(configs, view.step, strict=True)
    ]
    return (torch.tensor(quotas) - view.committed_now).clamp(min=0)


class QuotaRule:
    """LLaDA's low-confidence schedule: the quota of the pass goes to the most probable positions."""

    name = "quota"
    options = frozenset({"steps"})
    summary = "block_length / `steps` positions a pass, the most probable first (arXiv 2502.09992)"

    def decide(self, view: CanvasView, configs: tuple[SamplingConfig, ...], state: Any) -> tuple[Tensor, Any]:
        """See :class:`~dllm_plugins.rules.base.CommitRule`."""
        return most_probable(view.probability, view.open, row_quotas(view, configs)), state
