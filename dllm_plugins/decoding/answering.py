"""Answers what the programs of several rows ask of one pass.

Logits of N positions over a large vocabulary are built to be reduced to one token and a few
numbers. A denoiser may do both at once (:meth:`~dllm_plugins.denoisers.base.FullDenoiser.unmask`); where it does
not, or somebody wants the logits themselves, they are built, and
:func:`~dllm_plugins.prediction.predict` reads them. Both ways draw the same tokens.

Where a position's result cannot depend on the rest of the pass, rows share one product of the head, and likewise where
they share their calls of the model. Elsewhere each ask has one of its own: a shared one would tie a row's last bits to
its company.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from dllm_plugins.decoding.program import Answer
from dllm_plugins.decoding.program import Ask
from dllm_plugins.denoisers.base import FullDenoiser
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import Predictions
from dllm_plugins.prediction import predict


@dataclass(frozen=True, slots=True)
class Question:
    """An ask with the hidden states [N, width] of its positions and their draws.

    :param limit: given logits [N, V] and the ids they are of (None for all), what may be drawn from; None if all.
    """

    ask: Ask
    hidden: Tensor
    draws: Sequence[Draw] | None
    limit: Callable[[Tensor, Tensor | None], Tensor] | None = None

    @property
    def kind(self) -> tuple[bool, bool, bool, bool, bool]:
        """Questions for which this is equal may be answered together: nobody's company changes how he is answered."""
        ask = self.ask
        return self.draws is None, ask.logits, ask.shortlist, ask.left is None, self.limit is None


def question(
    ask: Ask, parts: Sequence[Tensor], limit: Callable[[Tensor, Tensor | None], Tensor] | None = None
) -> Question:
    """An ask about a pass that has been made.

    :param parts: hidden states of the wanted positions, by segment.
    :param limit: see :class:`Question`.
    """
    hidden = parts[ask.of] if isinstance(ask.of, int) else ask.of
    return Question(ask, hidden, None if ask.draws is None else ask.draws(), limit)


def predicted(
    denoiser: FullDenoiser, hidden: Tensor, draws: Sequence[Draw], left: Tensor | None = None, *, logits: bool = False
) -> Predictions:
    """What is said at N positions, with tokens that are never the mask id; hidden [N, width].

    :param logits: whether the logits are wanted, too.
    """
    never = _never(denoiser)
    found = None if logits else denoiser.unmask(hidden, draws, left)
    # Where the mask id comes first, the next best has to be found among the logits.
    if found is not None and not (never is not None and bool((found.token == never).any())):
        return found
    return predict(denoiser.logits(hidden, left), draws, never=never)


def answer_all(denoiser: FullDenoiser, questions: Sequence[Question]) -> list[Answer]:
    """Answers in the order of the questions."""
    found: dict[int, Answer] = {}
    for group in _groups(denoiser, questions):
        for index, answer in zip(group, _together(denoiser, [questions[index] for index in group]), strict=True):
            found[index] = answer
    return [found[index] for index in range(len(questions))]


def _groups(denoiser: FullDenoiser, questions: Sequence[Question]) -> list[list[int]]:
    """Which questions are answered together, by their places."""
    if not (denoiser.spec.batched or denoiser.spec.numerics.startswith("row-invariant")):
        return [[position] for position in range(len(questions))]
    groups: dict[tuple[bool, ...], list[int]] = {}
    for position, one in enumerate(questions):
        groups.setdefault(one.kind, []).append(position)
    return list(groups.values())


def _together(denoiser: FullDenoiser, questions: Sequence[Question]) -> list[Answer]:
    ask, counts = questions[0].ask, [len(one.hidden) for one in questions]
    if questions[0].draws is None and not ask.logits:
        return [Answer(one.hidden) for one in questions]
    if not sum(counts):
        return [Answer(one.hidden, raw=one.hidden.new_empty(0, denoiser.spec.vocabulary)) for one in questions]
    hidden = _joined([one.hidden for one in questions])
    lefts = [one.ask.left for one in questions if one.ask.left is not None]
    left = _joined(lefts) if lefts else None
    if questions[0].draws is None:
        parts = _limited(questions, denoiser.logits(hidden, left), None).split(counts)
        return [Answer(one.hidden, raw=part) for one, part in zip(questions, parts, strict=True)]
    draws = [draw for one in questions for draw in one.draws or ()]
    if ask.shortlist:
        assert left is not None, "drafts know the tokens on their left"
        logits, ids = denoiser.draft_logits(hidden, left)
        whole: Predictions = predict(_limited(questions, logits, ids), draws, ids)
    elif questions[0].limit is not None:
        whole = predict(_limited(questions, denoiser.logits(hidden, left), None), draws, never=_never(denoiser))
    else:
        whole = predicted(denoiser, hidden, draws, left, logits=ask.logits)
    ends = accumulate(counts)
    return [
        Answer(one.hidden, whole, slice(end - count, end))
        for one, count, end in zip(questions, counts, ends, strict=True)
    ]


def _never(denoiser: FullDenoiser) -> int | None:
    """The id that is not drawn, if it is one of the vocabulary's."""
    mask, spec = denoiser.spec.mask_id, denoiser.spec
    return mask if mask < spec.vocabulary else None


def _limited(questions: Sequence[Question], logits: Tensor, ids: Tensor | None) -> Tensor:
    """Logits [N, V] of all questions without what may not be drawn."""
    if questions[0].limit is None:
        return logits
    parts = logits.split([len(one.hidden) for one in questions])
    return _joined(
        [part if one.limit is None else one.limit(part, ids) for one, part in zip(questions, parts, strict=True)]
    )


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
