"""What rules remember of a position from pass to pass, and what a pass itself committed already.

Positions are named by `view.position`: a canvas slides and blocks follow each other, so an index
means nothing in the next pass. States are tensors with one row per canvas row.
"""

import torch
from torch import Tensor

from dllm_plugins.rules.base import CanvasView


def recalled(known: Tensor, position: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Values kept for positions `known` [R, W], put where those positions are now in `position` [R, B].

    :param values: [R, W, ...].
    :returns: whether anything is known of each position, bool [R, B]; then each of `values` as
        [R, B, ...], meaningless where nothing is known.
    """
    same = (position[:, :, None] == known[:, None, :]) & (position >= 0)[:, :, None]
    index = same.int().argmax(-1)
    rows = torch.arange(len(position))[:, None]
    return same.any(-1), *(value[rows.to(value.device), index.to(value.device)] for value in values)


def committed_meanwhile(view: CanvasView) -> Tensor:
    """Positions of the view that this very pass committed in an earlier call, bool [R, B].

    What earlier passes committed is `view.committed`, or not in the view at all.
    """
    return ~view.open & ~view.committed & (view.position >= 0)


def is_run_start(inside: Tensor, position: Tensor) -> Tensor:
    """Where a run of neighbouring positions begins, bool [R, B]; all of them are `inside`."""
    follows = torch.zeros_like(inside)
    follows[:, 1:] = inside[:, :-1] & (position[:, 1:] == position[:, :-1] + 1)
    return inside & ~follows
