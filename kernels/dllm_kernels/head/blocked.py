"""The head block by block: an online softmax over the vocabulary, [N, V] never built.

Positions are worked on in tiles of ROWS, filled up with zeros, and the vocabulary in
blocks of BLOCK ids, so every product and every sum has a shape that does not depend on
how many positions are wanted: a row's result has the same bits in any company. A block's
weights serve all tiles while they are in the processor's cache.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.head.draws import drawers
from dllm_kernels.head.finish import Sums
from dllm_kernels.head.finish import block_sums
from dllm_kernels.head.finish import statistics
from dllm_kernels.head.order import EMPTY
from dllm_kernels.head.order import encode
from dllm_kernels.head.order import ids_of
from dllm_kernels.head.order import logits_of
from dllm_kernels.head.packed import BLOCK
from dllm_kernels.head.packed import ROWS
from dllm_kernels.head.task import Task
from dllm_kernels.head.task import Unmasked


class _Tile:
    """Up to ROWS positions and what is known of them so far."""

    def __init__(self, task: Task, offset: int) -> None:
        self.offset = offset
        self.count = min(ROWS, task.positions - offset)
        self._task = task
        device = task.weight.device
        self._hidden = F.pad(task.hidden[offset : offset + ROWS], (0, 0, 0, ROWS - self.count))
        self._best = torch.full((ROWS,), -torch.inf, device=device)
        self._second = torch.full((ROWS,), -torch.inf, device=device)
        self._token = torch.zeros(ROWS, dtype=torch.int64, device=device)
        self._sums: list[tuple[Tensor, Tensor, Tensor]] = []
        self._drawers = drawers(task, offset, self.count, self._look)
        self._keys = torch.full((ROWS, task.top_k), EMPTY, device=device)

    def _look(self, first: int) -> Tensor:
        """Logits float32 [ROWS, w] of one block."""
        logits = _product(self._task, first)(self._hidden)
        self._mask(first, logits)
        return logits.float()

    def see(self, first: int, product: Callable[[Tensor], Tensor], out: Tensor | None) -> None:
        """Look at a block of w ids from `first` on.

        :param product: from hidden states to logits [ROWS, w].
        :param out: takes the logits, [N, w].
        """
        logits = product(self._hidden)
        self._mask(first, logits)
        if out is not None:
            out[self.offset : self.offset + self.count] = logits[: self.count]
        wide = logits.float()
        largest = wide.amax(-1)
        for drawer in self._drawers:
            drawer.see(first, wide)
        if self._task.top_k:
            found = encode(wide, first).topk(min(self._task.top_k, wide.shape[1])).values
            self._keys = torch.cat([self._keys, found], dim=1).topk(self._task.top_k).values
        self._lead(first, wide, largest)
        # float() copies bfloat16 only; the sums may overwrite either, the logits being read for the last time.
        self._sums.append((largest, *block_sums(wide, largest)))

    def _mask(self, first: int, logits: Tensor) -> None:
        task, stop = self._task, first + logits.shape[1]
        if task.banned is not None:
            inside = task.banned[(task.banned >= first) & (task.banned < stop)]
            logits.index_fill_(1, inside - first, -torch.inf)
        if task.banned_at is not None:
            place, ids = task.banned_at[:, 0] - self.offset, task.banned_at[:, 1]
            inside = (place >= 0) & (place < self.count) & (ids >= first) & (ids < stop)
            logits[place[inside], ids[inside] - first] = -torch.inf
        if task.forced is not None:
            forced = task.forced[self.offset : self.offset + self.count]
            inside = (forced >= first) & (forced < stop)
            here = torch.nonzero(inside)[:, 0]
            kept = logits[here, forced[here] - first]
            logits[: self.count].masked_fill_(forced[:, None] >= 0, -torch.inf)
            logits[here, forced[here] - first] = kept

    def _lead(self, first: int, logits: Tensor, largest: Tensor) -> None:
        """Keep the two largest; an id is looked for only where a row has a new leader."""
        old = self._best
        self._second = torch.maximum(self._second, torch.minimum(largest, old))
        ahead = torch.nonzero(largest > old)[:, 0]
        if not len(ahead):
            return
        own = logits[ahead]
        index = own.argmax(-1, keepdim=True)
        self._token[ahead] = index[:, 0] + first
        next_best = own.scatter_(1, index, -torch.inf).amax(-1)
        self._second[ahead] = torch.maximum(self._second[ahead], next_best)
        self._best = torch.maximum(largest, old)

    def finish(self) -> Unmasked:
        """The tile's answer."""
        token, chosen = self._token, self._best
        for drawer in self._drawers:
            drawn, logit = drawer.drawn()
            token, chosen = token.index_copy(0, drawer.rows, drawn), chosen.index_copy(0, drawer.rows, logit)
        sums = Sums(*(torch.stack(parts, dim=1) for parts in zip(*self._sums, strict=True)))
        parts = (token, *statistics(sums, chosen, self._second), ids_of(self._keys), logits_of(self._keys))
        return Unmasked(*(part[: self.count] for part in parts))


def _product(task: Task, first: int) -> Callable[[Tensor], Tensor]:
    """From hidden states [ROWS, width] to the logits of the block that begins with id `first`."""
    ids = slice(first, first + BLOCK)
    bias = None if task.bias is None else task.bias[ids]
    if task.packed is not None:
        return partial(task.packed.product, first=first, bias=bias)
    return partial(F.linear, weight=task.weight[ids], bias=bias)


def blocked(task: Task) -> Unmasked:
    """See :func:`~dllm_kernels.head.unmask`."""
    tiles = [_Tile(task, offset) for offset in range(0, max(task.positions, 1), ROWS)]
    logits = task.weight.new_empty(task.positions, task.vocabulary) if task.logits else None
    for first in range(0, task.vocabulary, BLOCK):
        product = _product(task, first)
        out = None if logits is None else logits[:, first : first + BLOCK]
        for tile in tiles:
            tile.see(first, product, out)
    parts = [tile.finish() for tile in tiles]
    names = ("token", "probability", "entropy", "margin", *(("top_ids", "top_logits") if task.top_k else ()))
    return Unmasked(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names}, logits=logits)
