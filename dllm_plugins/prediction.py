"""From logits to tokens: what a denoiser says about N wanted positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Draw:
    """How one position is drawn. `gumbel` is float64 [V]; None means greedy."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    gumbel: Tensor | None = None


GREEDY = Draw()


@dataclass
class Prediction:
    """Tokens drawn at N positions.

    :param token: int64 [N].
    :param logits: float [N, V]; V may be a subset of the vocabulary.
    :param ids: int64 [V] if V is a subset, else None.
    """

    token: Tensor
    logits: Tensor
    ids: Tensor | None = None
    _index: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    @cached_property
    def _probabilities(self) -> Tensor:
        return torch.softmax(self.logits.float(), dim=-1)

    @cached_property
    def probability(self) -> Tensor:
        """The model's probability of each drawn token, at temperature 1; float32 [N]."""
        return self._probabilities.gather(1, self._index[:, None])[:, 0]

    @cached_property
    def entropy(self) -> Tensor:
        """Entropy of each position's distribution in nats; float32 [N]."""
        entropy: Tensor = torch.special.entr(self._probabilities).sum(-1)
        return entropy


def _truncate(logits: Tensor, draw: Draw) -> Tensor:
    """Set all but the top-k and then the top-p tokens to minus infinity; logits float64 [..., V]."""
    if draw.top_k is not None and draw.top_k < logits.shape[-1]:
        least = torch.topk(logits, draw.top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if draw.top_p is not None and draw.top_p < 1.0:
        values, order = torch.sort(logits, descending=True, stable=True)
        mass = torch.softmax(values, dim=-1)
        beyond = mass.cumsum(-1) - mass >= draw.top_p
        logits = logits.scatter(-1, order, values.masked_fill(beyond, -torch.inf))
    return logits


def gumbel_max(logits: Tensor, draw: Draw, gumbel: Tensor) -> Tensor:
    """One draw per row, int64 [...]: the largest of tempered and cut logits [..., V] + `gumbel`, float64 [..., V]."""
    scaled = _truncate(logits.double() / draw.temperature, draw)
    index: Tensor = torch.argmax(scaled + gumbel, dim=-1)
    return index


def _draw_one(logits: Tensor, draw: Draw, ids: Tensor | None) -> Tensor:
    assert draw.gumbel is not None
    noise = draw.gumbel if ids is None else draw.gumbel[ids.cpu()]
    return gumbel_max(logits, draw, noise.to(logits.device))


def distribution(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """What each of N positions is drawn from, [N, V]: tempered and cut as its draw says, greedy ones untouched."""
    rows = [
        torch.softmax(_truncate(row.double() / draw.temperature, draw), dim=-1).to(row.dtype)
        if draw.temperature > 0
        else torch.softmax(row, dim=-1)
        for row, draw in zip(logits, draws, strict=True)
    ]
    return torch.stack(rows)


def without(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """Logits [N, V] from which none of these ids is ever drawn."""
    if not ids:
        return logits
    return logits.index_fill(-1, torch.tensor(list(ids), device=logits.device), -torch.inf)


def probability_of(logits: Tensor, token: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The model's probability [N] of tokens [N] at temperature 1; logits [N, V].

    :param dtype: of the softmax; None for the logits' own.
    """
    return torch.softmax(logits, dim=-1, dtype=dtype).gather(1, token[:, None])[:, 0]


def predict(logits: Tensor, draws: Sequence[Draw], ids: Tensor | None = None) -> Prediction:
    """Draw one token at each of N positions.

    Greedy positions take the first largest logit. Sampled ones take the largest of
    logits / temperature + Gumbel noise in float64, top-k before top-p.
    """
    index = torch.argmax(logits, dim=-1)
    for place, draw in enumerate(draws):
        if draw.temperature > 0:
            index[place] = _draw_one(logits[place], draw, ids)
    return Prediction(index if ids is None else ids[index], logits, ids, index)
