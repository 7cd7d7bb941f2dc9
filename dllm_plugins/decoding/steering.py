"""Penalties and bans: what a request does to the model's logits before anything is drawn.

Where text is written from left to right, a position's logits are changed by what stands before it, as transformers'
processors change them. On a canvas, whose positions are settled in any order, all that is settled counts.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: As transformers calls one: ids so far, int64 [1, N], and float32 logits [1, V] to logits.
Processor = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Steering:
    """Of one row.

    :param prompt: where the answer begins.
    :param penalty: logits of tokens that are there already are divided by it, negative ones multiplied.
    :param ngram: no run of so many tokens comes twice.
    :param banned: ids that never come.
    :param phrases: runs of ids that never come.
    :param least: tokens before which no stop id comes.
    :param processors: applied last, in their order.
    """

    prompt: int
    stop_ids: frozenset[int]
    penalty: float = 1.0
    ngram: int = 0
    banned: frozenset[int] = frozenset()
    phrases: tuple[tuple[int, ...], ...] = ()
    least: int = 0
    processors: tuple[Processor, ...] = ()

    def onward(self, tokens: Sequence[int], positions: Sequence[int], logits: Tensor) -> Tensor:
        """Logits [N, V] of positions that follow what stands before each of them; float32."""
        rows = [self._next(tokens[:position], row) for position, row in zip(positions, _copied(logits), strict=True)]
        return torch.stack(rows)

    def _next(self, before: Sequence[int], row: Tensor) -> Tensor:
        self._penalise(row, before)
        bans = [*self.banned, *_repeating(before, self.ngram), *_completing(before, self.phrases)]
        self._ban(row, bans, len(before))
        for processor in self.processors:
            ids = torch.tensor([list(before)], device=row.device)
            row = processor(ids, row[None])[0]
        return row

    def on_canvas(self, tokens: Sequence[int], positions: Sequence[int], mask: int, logits: Tensor) -> Tensor:
        """Logits [N, V] of positions of a canvas, the mask id where it is open; float32."""
        rows, settled = _copied(logits), [token for token in tokens if token != mask]
        for position, row in zip(positions, rows, strict=True):
            self._penalise(row, settled)
            self._ban(row, self.banned, position)
        return rows

    def _penalise(self, row: Tensor, tokens: Iterable[int]) -> None:
        if self.penalty == 1.0:
            return
        index = torch.tensor(sorted({token for token in tokens if token < len(row)}), device=row.device)
        found = row[index]
        row[index] = torch.where(found < 0, found * self.penalty, found / self.penalty)

    def _ban(self, row: Tensor, ids: Iterable[int], position: int) -> None:
        early = self.stop_ids if position - self.prompt < self.least else ()
        bans = sorted({*ids, *early})
        if bans:
            row[torch.tensor(bans, device=row.device)] = -torch.inf


def _copied(logits: Tensor) -> Tensor:
    return logits.to(torch.float32, copy=True)


def _repeating(before: Sequence[int], size: int) -> list[int]:
    """Ids that would end a run of `size` tokens that is there already."""
    if not size or len(before) + 1 < size:
        return []
    head = tuple(before[len(before) - size + 1 :])
    ends = range(size - 1, len(before))
    return [before[end] for end in ends if tuple(before[end - size + 1 : end]) == head]


def _completing(before: Sequence[int], phrases: Iterable[tuple[int, ...]]) -> list[int]:
    """Ids that would complete a phrase; one that is longer than the text so far is passed over, as in transformers."""
    found = []
    for phrase in phrases:
        head = phrase[:-1]
        if len(phrase) <= len(before) and tuple(before[len(before) - len(head) :]) == head:
            found.append(phrase[-1])
    return found
