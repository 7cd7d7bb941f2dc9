"""Draws by the inverse distribution function: one uniform number decides a position.

The first id whose cumulative mass reaches the number's share of the whole is drawn, all in
float64; an id without mass never is. Where logits come block by block, the block is found
first and then the place inside it. Sums in another order differ in their last digits, so a
draw that is that close to the border between two ids says so, and is made again in one go:
both ways draw the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

#: A draw closer to a border than this share of the whole mass is not sure. Sums over a million
#: ids in any order are a thousand times closer to one another.
CLOSE = 1e-10


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


@dataclass(frozen=True, slots=True)
class Half:
    """What is known of N draws once the masses of all blocks are.

    :param block: int64 [N], where each draw is.
    :param rest: float64 [N], the mass to reach inside that block, in which the largest has mass 1.
    :param close: float64 [N], how near a border may not be, likewise.
    """

    block: Tensor
    rest: Tensor
    close: Tensor

    def of(self, index: Tensor) -> "Half":
        """Some of the draws."""
        return Half(self.block[index], self.rest[index], self.close[index])


def choose_block(top: Tensor, mass: Tensor, uniform: Tensor) -> Half:
    """The block each draw is in.

    :param top: float64 [N, blocks], largest logit / temperature of a block.
    :param mass: float64 [N, blocks], sum of e^(x - top).
    """
    most = top.amax(-1, keepdim=True)
    scale = (top - most.masked_fill(most.isinf(), 0.0)).exp()
    reached = (scale * mass).cumsum(-1)
    whole = reached[:, -1]
    target = uniform * whole
    block = torch.searchsorted(reached, target[:, None]).clamp_(max=top.shape[1] - 1)
    before = torch.nn.functional.pad(reached, (1, 0)).gather(1, block)[:, 0]
    own = scale.gather(1, block)[:, 0]
    return Half(block[:, 0], (target - before) / own, whole * CLOSE / own)


def choose_place(scaled: Tensor, half: Half) -> tuple[Tensor, Tensor]:
    """The place of each draw in its block, int64 [N], and whether it is sure, bool [N].

    :param scaled: float64 [N, w], logits / temperature of the chosen block, overwritten.
    """
    reached = masses(scaled).cumsum_(-1)
    place = torch.searchsorted(reached, half.rest[:, None]).clamp_(max=scaled.shape[1] - 1)
    before = torch.nn.functional.pad(reached, (1, 0)).gather(1, place)[:, 0]
    after = reached.gather(1, place)[:, 0]
    # No number is larger than no number: without mass nothing is sure either.
    sure = (half.rest - before > half.close) & (after - half.rest > half.close)
    return place[:, 0], sure
