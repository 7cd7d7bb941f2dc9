"""Which of the open positions a pass commits: what several samplers have in common."""

from collections.abc import Sequence

import torch
from torch import Tensor


def at_least(confidence: Tensor, threshold: float | None) -> list[int]:
    """Indices of all that are at least as sure as `threshold`, the surest one always; it alone if that is None.

    :param confidence: [N], N above 0.
    """
    sure = torch.zeros_like(confidence, dtype=torch.bool) if threshold is None else confidence >= threshold
    sure[confidence.argmax()] = True
    return sure.nonzero()[:, 0].tolist()


def spread(values: Tensor, positions: Sequence[int], span: range, elsewhere: float = -torch.inf) -> Tensor:
    """Values [N] of some positions among all of `span`, so that ties fall as in the references."""
    index = torch.tensor(positions, device=values.device) - span.start
    return values.new_full((len(span),), elsewhere).index_copy(0, index, values)


def quotas(length: int, steps: int) -> list[int]:
    """How many positions each of `steps` passes commits, the remainder first (LLaDA's schedule)."""
    share, rest = divmod(length, steps)
    return [share + (step < rest) for step in range(steps)]
