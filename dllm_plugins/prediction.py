"""From logits to tokens: what a denoiser says about N wanted positions."""

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from dllm_kernels.draws import draw as draw_inverse
from dllm_kernels.draws import masses

#: Logits that are drawn from in one go, in float64: as many as a processor keeps at hand.
_TOGETHER = 1 << 17
_EMPTY = torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, slots=True)
class Draw:
    """How one position is drawn: greedily at temperature 0, else by one of two kinds of noise.

    :param gumbel: float64 [V], one number for every id of the vocabulary: the largest of logit /
        temperature + number is drawn, so that like distributions mostly draw the same token.
    :param uniform: one number in (0, 1), which the inverse distribution function turns into an id.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    gumbel: Tensor | None = None
    uniform: float | None = None


GREEDY = Draw()


class Predictions(Protocol):
    """What a pass says at N positions, from logits or from a head that never builds them."""

    @property
    def token(self) -> Tensor:
        """The drawn tokens; int64 [N]."""

    @property
    def probability(self) -> Tensor:
        """The model's probability of each drawn token, at temperature 1; float32 [N]."""

    @property
    def entropy(self) -> Tensor:
        """Entropy of each position's distribution in nats; float32 [N]."""

    @property
    def margin(self) -> Tensor:
        """The largest probability's lead over the second; float32 [N]."""

    @property
    def logits(self) -> Tensor | None:
        """What the tokens were drawn from, [N, V]; None if it was never built."""


@dataclass
class Prediction:
    """Tokens drawn at N positions, with what their logits tell; see :class:`Predictions`.

    :param token: int64 [N].
    :param logits: float [N, V]; V may be a subset of the vocabulary.
    :param ids: int64 [V] if V is a subset, else None.
    """

    token: Tensor
    logits: Tensor
    ids: Tensor | None = None
    _index: Tensor = _EMPTY
    _exact: Tensor = _EMPTY

    @cached_property
    def _probabilities(self) -> Tensor:
        # Not softmax(..., dtype=float32), whose exp for 16-bit logits is a coarser one.
        return torch.softmax(self._exact.float(), dim=-1)

    @cached_property
    def probability(self) -> Tensor:
        """The model's probability of each drawn token, at temperature 1; float32 [N]."""
        return self._probabilities.gather(1, self._index[:, None])[:, 0]

    @cached_property
    def entropy(self) -> Tensor:
        """Entropy of each position's distribution in nats; float32 [N]."""
        return entropy_of(self._exact, self._probabilities)

    @cached_property
    def margin(self) -> Tensor:
        """The largest probability's lead over the second; float32 [N]."""
        return margin_of(self._exact, self._probabilities)


def _widened(logits: Tensor) -> Tensor:
    """The same numbers; 16-bit ones as float32, which processors are faster with."""
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def likeliest(logits: Tensor) -> Tensor:
    """The first id with the largest logit, int64 [N]; logits [N, V].

    As `torch.argmax`, which a processor runs element by element; NumPy's takes whole vectors.
    """
    if logits.device.type != "cpu":
        return torch.argmax(logits, dim=-1)
    return torch.from_numpy(_widened(logits).detach().numpy().argmax(-1))


def _first(logits: Tensor, probabilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Place, logit and probability of the likeliest id, [N, 1] each."""
    place = likeliest(logits)[:, None]
    return place, logits.gather(1, place).float(), probabilities.gather(1, place)


def entropy_of(logits: Tensor, probabilities: Tensor) -> Tensor:
    """Entropy in nats, float32 [N], of logits [N, V] whose softmax is given, float32 [N, V].

    -sum p log p without a logarithm per id: log p = logit - largest + log(largest p).
    """
    _, top, most = _first(logits, probabilities)
    # Impossible ids count nothing, but zero times minus infinity would be no number.
    below = (logits.float() - top).clamp_(min=torch.finfo(torch.float32).min)
    mean: Tensor = torch.linalg.vecdot(probabilities, below)
    return (-most.log()[:, 0] - mean).clamp_(min=0.0)


def margin_of(logits: Tensor, probabilities: Tensor) -> Tensor:
    """The largest probability's lead over the second, float32 [N]; as :func:`entropy_of`."""
    if probabilities.shape[-1] < 2:
        return probabilities[:, 0]
    place, _, most = _first(logits, probabilities)
    return (most - probabilities.scatter(1, place, -1.0).amax(-1, keepdim=True))[:, 0]


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


def inverse(logits: Tensor, draw: Draw, uniform: Tensor) -> Tensor:
    """One draw per row, int64 [...], of tempered and cut logits [..., V] by `uniform`, float64 [...] in (0, 1)."""
    scaled = _truncate(logits.to(torch.float64, copy=True).div_(draw.temperature), draw)
    return draw_inverse(scaled, uniform)


def _spared(logits: Tensor, draw: Draw, uniform: Tensor, never: int) -> Tensor:
    """:func:`inverse` of whole distributions [N, V] where `never` is not drawn.

    As a head without logits draws, among all ids: only a number [N] that falls to `never` draws once more, by
    where in its share it fell. So every other id has its share of what is left, without logits unless they are needed.
    """
    index = inverse(logits, draw, uniform)
    fell = (index == never).nonzero()[:, 0]
    if len(fell):
        mass = masses(logits[fell].double() / draw.temperature)
        within = (uniform[fell] * mass.sum(-1) - mass[:, :never].sum(-1)) / mass[:, never]
        tiny = torch.finfo(torch.float64).tiny
        index[fell] = inverse(without(logits[fell], [never]), draw, within.clamp(tiny, 1.0))
    return index


def _draw_one(logits: Tensor, draw: Draw, ids: Tensor | None) -> Tensor:
    assert draw.gumbel is not None, "a temperature above 0 needs noise"
    noise = draw.gumbel if ids is None else draw.gumbel[ids.cpu()]
    return gumbel_max(logits, draw, noise.to(logits.device))


def _together(draws: Sequence[Draw], places: Sequence[int], width: int) -> Iterator[list[int]]:
    """Places whose draws are tempered and cut alike, a few rows of `width` at a time."""
    kinds: dict[tuple[float, int | None, float | None], list[int]] = {}
    for place in places:
        draw = draws[place]
        kinds.setdefault((draw.temperature, draw.top_k, draw.top_p), []).append(place)
    most = max(1, _TOGETHER // max(1, width))
    for alike in kinds.values():
        yield from (alike[first : first + most] for first in range(0, len(alike), most))


def distribution(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """What each of N positions is drawn from, [N, V]: tempered and cut as its draw says, greedy ones untouched."""
    found = torch.empty_like(logits)
    for places in _together(draws, range(len(draws)), logits.shape[-1]):
        rows, draw = logits[places], draws[places[0]]
        if draw.temperature > 0:
            rows = _truncate(rows.double() / draw.temperature, draw)
        found[places] = torch.softmax(rows, dim=-1).to(logits.dtype)
    return found


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


def _drawable(logits: Tensor, never: int | None) -> Tensor:
    return logits if never is None else without(logits, [never])


def predict(
    logits: Tensor, draws: Sequence[Draw], ids: Tensor | None = None, *, never: int | None = None
) -> Prediction:
    """Draw one token at each of N positions.

    Greedy positions take the first largest logit. Sampled ones follow the softmax of logits /
    temperature in float64, top-k before top-p; how, see :class:`Draw`.

    :param never: an id that is not drawn, though it counts among the probabilities.
    """
    hot = [place for place, draw in enumerate(draws) if draw.temperature > 0]
    exact = _widened(logits)
    if len(hot) < len(logits):
        index = likeliest(exact)
        if never is not None and bool((index == never).any()):
            index = likeliest(without(exact, [never]))
    else:
        index = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    numbered = [place for place in hot if draws[place].uniform is not None]
    for places in _together(draws, numbered, logits.shape[-1]):
        numbers = torch.tensor([draws[place].uniform for place in places], dtype=torch.float64, device=logits.device)
        draw = draws[places[0]]
        if never is None or draw.top_k is not None or draw.top_p is not None:
            index[places] = inverse(_drawable(logits[places], never), draw, numbers)
        else:
            index[places] = _spared(logits[places], draw, numbers, never)
    for place in hot:
        if draws[place].uniform is None:
            index[place] = _draw_one(_drawable(logits[place], never), draws[place], ids)
    return Prediction(index if ids is None else ids[index], logits, ids, index, exact)
