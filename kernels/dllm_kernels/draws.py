"""Draws by the inverse distribution function: one uniform number decides a position.

The first id whose cumulative mass reaches the number's share of the whole is drawn, all in
float64; an id without mass never is.
"""

import torch
from torch import Tensor


def masses(scaled: Tensor) -> Tensor:
    """e^(x - largest) of logits / temperature, float64 [..., V], overwritten; nothing where all are minus infinity."""
    top = scaled.amax(-1, keepdim=True)
    if bool(top.isinf().any()):
        # Infinite ones share everything.
        only = torch.where(scaled == torch.inf, 0.0, -torch.inf)
        scaled = torch.where(top == torch.inf, only, scaled)
        top = top.masked_fill(top.isinf(), 0.0)
    return scaled.sub_(top).exp_()


def draw_from(mass: Tensor, uniform: Tensor) -> Tensor:
    """The id each of `uniform`, float64 [...] in (0, 1), draws; int64 [...], 0 where nothing has mass.

    :param mass: float64 [..., V], 0 or more, overwritten.
    """
    reached = mass.cumsum_(-1)
    # The first that reaches a number above 0: never one without mass of its own.
    found = torch.searchsorted(reached, (uniform * reached[..., -1])[..., None])
    return found[..., 0].clamp_(max=mass.shape[-1] - 1)


def draw(scaled: Tensor, uniform: Tensor) -> Tensor:
    """The id drawn from each logits / temperature, float64 [..., V], overwritten; int64 [...]."""
    return draw_from(masses(scaled), uniform)
