"""Positions sampled with noise, block by block: the largest of logit / temperature + noise, in float64."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from dllm_kernels.head.inverse import choose_block
from dllm_kernels.head.inverse import choose_place
from dllm_kernels.head.inverse import draw
from dllm_kernels.head.inverse import masses
from dllm_kernels.head.order import EMPTY
from dllm_kernels.head.order import encode
from dllm_kernels.head.order import ids_of
from dllm_kernels.head.order import logits_of
from dllm_kernels.head.task import Task

_BEYOND = torch.iinfo(torch.int64).max


class Drawer(Protocol):
    """Draws for some rows of a tile, one block after the other."""

    rows: Tensor

    def see(self, first: int, logits: Tensor) -> None:
        """Look at one block, float32 [ROWS, w], whose first column is id `first`."""

    def drawn(self) -> tuple[Tensor, Tensor]:
        """Token int64 [n] and its logit float32 [n]."""


class _Noisy:
    def __init__(self, task: Task, rows: Tensor, offset: int) -> None:
        self.rows = rows
        self._task = task
        self._places = (rows + offset).tolist()
        self._temperature = task.temperature[rows + offset][:, None]

    def _scores(self, first: int, logits: Tensor) -> Tensor:
        stop = first + logits.shape[1]
        noise = torch.stack([self._task.gumbel(place, first, stop) for place in self._places])
        return logits.double() / self._temperature + noise


class WholeDrawer(_Noisy):
    """Draws from the whole vocabulary.

    :param rows: int64 [n], rows of the tile.
    :param offset: position of the tile's first row.
    """

    def __init__(self, task: Task, rows: Tensor, offset: int) -> None:
        super().__init__(task, rows, offset)
        self._score = torch.full_like(rows, -torch.inf, dtype=torch.float64)
        self._logit = torch.full_like(rows, -torch.inf, dtype=torch.float32)
        self._token = torch.zeros_like(rows)

    def see(self, first: int, logits: Tensor) -> None:
        """See :class:`Drawer`."""
        own = logits[self.rows]
        score, index = self._scores(first, own).max(-1)
        better = score > self._score
        self._score = torch.where(better, score, self._score)
        self._token = torch.where(better, index + first, self._token)
        self._logit = torch.where(better, own.gather(1, index[:, None])[:, 0], self._logit)

    def drawn(self) -> tuple[Tensor, Tensor]:
        """See :class:`Drawer`."""
        return self._token, self._logit


class CutDrawer(_Noisy):
    """Draws from each row's `cut` largest logits and those equal to the last of them.

    The largest so far are kept with their scores. Any number of logits may equal the
    last one kept: of these only the best score can be drawn, so one is remembered.
    """

    def __init__(self, task: Task, rows: Tensor, offset: int) -> None:
        super().__init__(task, rows, offset)
        cut = task.cut[rows + offset]
        self._last = cut[:, None] - 1
        size, device = (len(rows), int(cut.max())), rows.device
        self._keys = torch.full(size, EMPTY, device=device)
        self._scores_kept = torch.full(size, -torch.inf, dtype=torch.float64, device=device)
        self._least = torch.full((len(rows), 1), -torch.inf, device=device)
        self._equal_score = torch.full((len(rows), 1), -torch.inf, dtype=torch.float64, device=device)
        self._equal_id = torch.zeros_like(rows)[:, None]

    def see(self, first: int, logits: Tensor) -> None:
        """See :class:`Drawer`."""
        own = logits[self.rows]
        scores = self._scores(first, own)
        found, place = encode(own, first).topk(min(self._keys.shape[1], own.shape[1]))
        keys = torch.cat([self._keys, found], dim=1)
        kept = torch.cat([self._scores_kept, scores.gather(1, place)], dim=1)
        keys, order = keys.topk(self._keys.shape[1])
        least = logits_of(keys.gather(1, self._last))
        block_score, block_index = scores.masked_fill(own != least, -torch.inf).max(-1, keepdim=True)
        old_score = self._scores_kept.masked_fill(logits_of(self._keys) != least, -torch.inf)
        equal = self._equal_score.masked_fill(self._least != least, -torch.inf)
        self._equal_score, self._equal_id = _best(
            torch.cat([equal, old_score, block_score], dim=1),
            torch.cat([self._equal_id, ids_of(self._keys), block_index + first], dim=1),
        )
        self._keys, self._scores_kept, self._least = keys, kept.gather(1, order), least

    def drawn(self) -> tuple[Tensor, Tensor]:
        """See :class:`Drawer`."""
        logits = logits_of(self._keys)
        above = self._scores_kept.masked_fill(logits <= self._least, -torch.inf)
        scores = torch.cat([above, self._equal_score], dim=1)
        ids = torch.cat([ids_of(self._keys), self._equal_id], dim=1)
        score, token = _best(scores, ids)
        at = ((scores == score) & (ids == token)).int().argmax(-1, keepdim=True)
        return token[:, 0], torch.cat([logits, self._least], dim=1).gather(1, at)[:, 0]


class InverseDrawer:
    """Draws where a uniform number says: the block from the masses of all, then the place in it, seen again."""

    def __init__(self, task: Task, rows: Tensor, offset: int, look: Callable[[int], Tensor]) -> None:
        self.rows = rows
        self._look = look
        self._uniform = task.uniform[rows + offset]
        self._temperature = task.temperature[rows + offset][:, None]
        self._firsts: list[int] = []
        self._seen: list[tuple[Tensor, Tensor]] = []

    def see(self, first: int, logits: Tensor) -> None:
        """See :class:`Drawer`."""
        scaled = logits[self.rows].double() / self._temperature
        self._firsts.append(first)
        self._seen.append((scaled.amax(-1), masses(scaled).sum(-1)))

    def drawn(self) -> tuple[Tensor, Tensor]:
        """See :class:`Drawer`."""
        top, mass = (torch.stack(parts, dim=1) for parts in zip(*self._seen, strict=True))
        half = choose_block(top, mass, self._uniform)
        token, chosen = torch.zeros_like(self.rows), torch.zeros_like(self.rows, dtype=torch.float32)
        sure = torch.zeros_like(self.rows, dtype=torch.bool)
        for block in half.block.unique().tolist():
            here = torch.nonzero(half.block == block)[:, 0]
            logits = self._look(self._firsts[block])[self.rows[here]]
            place, sure[here] = choose_place(logits.double() / self._temperature[here], half.of(here))
            token[here] = place + self._firsts[block]
            chosen[here] = logits.gather(1, place[:, None])[:, 0]
        for index in torch.nonzero(~sure)[:, 0].tolist():
            # Too near a border for sums in parts: in one go, as whoever has all logits draws.
            row = torch.cat([self._look(first)[self.rows[index]] for first in self._firsts])
            token[index] = draw(row.double() / self._temperature[index], self._uniform[index])
            chosen[index] = row[token[index]]
        return token, chosen


def _best(scores: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The largest score of each row and the lowest id that has it; [n, 1] each. Id 0 where all are minus infinity."""
    score = scores.amax(-1, keepdim=True)
    token = ids.masked_fill(scores != score, _BEYOND).amin(-1, keepdim=True)
    return score, token.masked_fill(score == -torch.inf, 0)


def drawers(task: Task, offset: int, rows: int, look: Callable[[int], Tensor]) -> list[Drawer]:
    """Those that draw for positions offset ... offset + rows - 1.

    :param look: gives a block's logits again, by its first id.
    """
    own = slice(offset, offset + rows)
    hot, cut, inverted = task.noisy[own], task.cut[own] > 0, torch.nonzero(task.inverted[own])[:, 0]
    found: list[Drawer] = []
    whole, few = torch.nonzero(hot & ~cut)[:, 0], torch.nonzero(hot & cut)[:, 0]
    if len(whole):
        found.append(WholeDrawer(task, whole, offset))
    if len(few):
        found.append(CutDrawer(task, few, offset))
    if len(inverted):
        found.append(InverseDrawer(task, inverted, offset, look))
    return found
