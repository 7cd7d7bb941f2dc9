"""From hidden states to tokens: through logits, or by a head that goes straight there.

Logits of N positions over a large vocabulary are built to be reduced to one token and a
few numbers. A denoiser may do both at once (:class:`Unmasks`); where it does not, or
somebody wants the logits themselves, they are built, and :func:`~dllm_plugins.prediction.predict`
reads them. Both ways draw the same tokens from the same logits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol

import torch
from torch import Tensor

from dllm_kernels.head import PackedHead
from dllm_kernels.head import Unmasked
from dllm_kernels.head import unmask
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import Said
from dllm_plugins.prediction import predict


class Unmasks(Protocol):
    """What a denoiser may offer beside its contract."""

    def unmask(self, hidden: Tensor, draws: Sequence[Draw], left: Tensor | None = None) -> Said | None:
        """What is said at N positions, without logits; hidden [N, width], `left` as in `Denoiser.logits`.

        None if these draws need logits. That must depend on the draws alone, so that a row is
        decoded alike in any company.
        """


def say(
    denoiser: Denoiser, hidden: Tensor, draws: Sequence[Draw], left: Tensor | None = None, *, logits: bool = False
) -> Said:
    """What is said at N positions; hidden [N, width].

    :param logits: whether the logits are wanted, too.
    """
    straight: Any = None if logits else getattr(denoiser, "unmask", None)
    found: Said | None = None if straight is None else straight(hidden, draws, left)
    return predict(denoiser.logits(hidden, left), draws) if found is None else found


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


@dataclass(frozen=True, slots=True)
class Ask:
    """What one row wants to know of some of its positions.

    :param hidden: [n, width].
    :param left: int64 [n, 2], for :meth:`~dllm_plugins.denoisers.base.Denoiser.logits`; all asks have one, or none.
    :param logits: whether the logits are wanted, too.
    """

    hidden: Tensor
    draws: Sequence[Draw]
    left: Tensor | None = None
    logits: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """One row's part of what was said at several rows' positions.

    :param tokens: the drawn ones.
    """

    tokens: list[int]
    whole: Said
    rows: slice

    @property
    def probability(self) -> Tensor:
        """Float32 [n]."""
        return self.whole.probability[self.rows]

    @property
    def entropy(self) -> Tensor:
        """Float32 [n]."""
        return self.whole.entropy[self.rows]

    @property
    def margin(self) -> Tensor:
        """Float32 [n]."""
        return self.whole.margin[self.rows]

    def logits_at(self, index: int) -> Tensor:
        """What a token was drawn from, [V]; for those who asked for logits."""
        assert self.whole.logits is not None
        return self.whole.logits[self.rows.start + index]


def answers(whole: Said, counts: Sequence[int]) -> list[Answer]:
    """Parts of `counts` positions each."""
    tokens, found, begin = whole.token.tolist(), [], 0
    for count in counts:
        found.append(Answer(tokens[begin : begin + count], whole, slice(begin, begin + count)))
        begin += count
    return found


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def ask_all(denoiser: Denoiser, asks: Sequence[Ask]) -> list[Answer]:
    """Answers in the order of `asks`: in one go those that want logits, in another the rest.

    What a row's options are decides how it is answered, never what its company asks for.
    """
    found: dict[int, Answer] = {}
    for wanted in (False, True):
        own = [place for place, ask in enumerate(asks) if ask.logits is wanted]
        if not own:
            continue
        chosen = [asks[place] for place in own]
        lefts = [ask.left for ask in chosen if ask.left is not None]
        whole = say(
            denoiser,
            _joined([ask.hidden for ask in chosen]),
            [draw for ask in chosen for draw in ask.draws],
            _joined(lefts) if lefts else None,
            logits=wanted,
        )
        found |= zip(own, answers(whole, [len(ask.draws) for ask in chosen]), strict=True)
    return [found[place] for place in range(len(asks))]
