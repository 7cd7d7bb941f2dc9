"""Cosines and sines of rotary positions, from a table, so that a position's are always the same bits."""

import torch
from torch import Tensor

#: Positions added to the table at once: products of one shape, because vectorised cosines differ from others.
BLOCK = 512


class Rotary:
    """:param frequencies: float32 [half], radians per position; `scale` multiplies cosines and sines."""

    def __init__(self, frequencies: Tensor, scale: float) -> None:
        self._frequencies = frequencies
        self._scale = scale
        self._table = torch.zeros(2, 0, len(frequencies))

    def __call__(self, positions: Tensor, rows: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of int64 `positions` [n], float32 [rows, 1, half] each, zero behind the n-th row."""
        longest = int(positions.max()) + 1 if len(positions) else 0
        if longest > self._table.shape[1]:
            self._grow(longest)
        found = torch.zeros(2, rows, 1, self._table.shape[2])
        found[:, : len(positions), 0] = self._table[:, positions]
        return found[0], found[1]

    def _grow(self, length: int) -> None:
        parts = [self._table]
        for begin in range(self._table.shape[1], length, BLOCK):
            angles = torch.outer(torch.arange(begin, begin + BLOCK, dtype=torch.float32), self._frequencies)
            parts.append(torch.stack([angles.cos(), angles.sin()]) * self._scale)
        self._table = torch.cat(parts, dim=1)
