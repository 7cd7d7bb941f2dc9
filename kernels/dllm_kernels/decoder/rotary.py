"""Rotary embeddings (arXiv 2104.09864): cosines and sines from a table, so that a position has the same bits always."""

import torch
from torch import Tensor

#: Positions added to the table at once: products of one shape, because vectorised cosines differ from others.
BLOCK = 512


class Rotary:
    """:param frequencies: float32 [half], radians per position; `scale` multiplies cosines and sines."""

    def __init__(self, frequencies: Tensor, scale: float) -> None:
        self._frequencies = frequencies.cpu()
        self._scale = scale
        self._table = torch.zeros(2, 0, len(frequencies))

    def __call__(self, positions: Tensor, rows: int) -> Tensor:
        """Cosines and sines of int64 `positions` [n] on the CPU, float32 [2, rows, 1, half], zero behind row n."""
        longest = int(positions.max()) + 1 if len(positions) else 0
        if longest > self._table.shape[1]:
            self._grow(longest)
        found = torch.zeros(2, rows, 1, self._table.shape[2])
        found[:, : len(positions), 0] = self._table[:, positions.cpu()]
        return found

    def _grow(self, length: int) -> None:
        parts = [self._table]
        for begin in range(self._table.shape[1], length, BLOCK):
            angles = torch.outer(torch.arange(begin, begin + BLOCK, dtype=torch.float32), self._frequencies)
            parts.append(torch.stack([angles.cos(), angles.sin()]) * self._scale)
        self._table = torch.cat(parts, dim=1)


def rotated(x: Tensor, rotary: Tensor) -> Tensor:
    """Heads [N, heads, head_dim] at their positions; `rotary` float32 [2, N, 1, head_dim / 2]."""
    cosines, sines = rotary
    first, second = x.chunk(2, dim=-1)
    return torch.cat(
        [(first * cosines).addcmul_(second, sines, value=-1), (second * cosines).addcmul_(first, sines)], dim=-1
    )
