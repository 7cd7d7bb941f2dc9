"""The draft head: what an open row says once the tokens on its left are known.

h' = h + W2 silu(W1 [h; e(left); e(left of left)]), in the spirit of arXiv 2402.05109.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


class DraftHead:
    """From hidden states to hidden states.

    :param down: [inner, 3 * width]; `up`: [width, inner].
    :param product: makes a linear layer of a weight, row-invariant where the denoiser is.
    :param embed: from ids of any shape to their embeddings, one dimension more.
    """

    def __init__(
        self,
        down: Tensor,
        up: Tensor,
        product: Callable[[Tensor], Callable[[Tensor], Tensor]],
        embed: Callable[[Tensor], Tensor],
    ) -> None:
        self._down, self._up = product(down), product(up)
        self._embed = embed

    def __call__(self, hidden: Tensor, left: Tensor) -> Tensor:
        """Hidden states [N, width], changed where the left token is known.

        :param left: int64 [N, 2], the tokens one and two positions left, -1 where unknown.
        """
        left = left.to(hidden.device)
        known = self._embed(left.clamp(min=0)) * (left >= 0).to(hidden)[..., None]
        inputs = torch.cat([hidden, unit_rms(known[:, 0]), unit_rms(known[:, 1])], dim=-1)
        inner = F.silu(self._down(inputs)).to(hidden.dtype)
        return hidden + self._up(inner).to(hidden.dtype) * (left[:, :1] >= 0).to(hidden)


def unit_rms(x: Tensor) -> Tensor:
    """Rows scaled to a root mean square of one; rows of zeros stay zero."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)
