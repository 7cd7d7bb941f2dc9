"""What a denoiser may offer beside its contract: from hidden states to tokens without logits in between."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from dllm_kernels.head import PackedHead
from dllm_kernels.head import Unmasked
from dllm_kernels.head import unmask
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import Said


class Unmasks(Protocol):
    """What a denoiser may offer beside its contract."""

    def unmask(self, hidden: Tensor, draws: Sequence[Draw], left: Tensor | None = None) -> Said | None:
        """What is said at N positions, without logits; hidden [N, width], `left` as in `Denoiser.logits`.

        None if these draws need logits. That must depend on the draws alone, so that a row is
        decoded alike in any company.
        """


def unmasked(
    hidden: Tensor, weight: Tensor, draws: Sequence[Draw], packed: PackedHead | None = None
) -> Unmasked | None:
    """An :class:`Unmasks` for a head that is one product, by the kernel.

    None for draws with top_p, and for those with top_k that no Gumbel numbers decide.

    :param hidden: [N, width], in the dtype of `weight` [V, width].
    :param packed: see :func:`dllm_kernels.head.pack_head`.
    """
    if any(
        (draw.top_p is not None and draw.top_p < 1.0) or (draw.top_k and draw.uniform is not None) for draw in draws
    ):
        return None
    noise = [draw.gumbel for draw in draws]
    cuts = [draw.top_k or 0 for draw in draws]

    def part(place: int, start: int, stop: int) -> Tensor:
        own = noise[place]
        assert own is not None
        return own[start:stop]

    numbers = [torch.nan if draw.uniform is None else draw.uniform for draw in draws]
    return unmask(
        hidden,
        weight,
        temperature=torch.tensor([draw.temperature for draw in draws], dtype=torch.float64),
        noise=part if any(own is not None for own in noise) else None,
        uniform=torch.tensor(numbers, dtype=torch.float64),
        cut=torch.tensor(cuts, dtype=torch.int64),
        packed=packed,
    )
