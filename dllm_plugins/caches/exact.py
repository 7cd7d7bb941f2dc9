"""The exact prefix cache: one static store of keys and values per row.

A token's slot is its position, so a key is found at the same place in every mode and
every batch; attention over a row is then reduced in one fixed order. New rows are
written right behind the prefix; freezing only moves the mark, and whatever is noisy is
overwritten by the next pass.
"""

import torch
from torch import Tensor

from dllm_kernels import tiles
from dllm_plugins.denoisers.weights import LlamaShape

#: Keys are padded to whole chunks; attention sums chunk by chunk.
CHUNK = tiles.CHUNK


class ExactCache:
    """Keys and values of one row: float32 [kv_heads, capacity, head_dim] per layer."""

    def __init__(self, shape: LlamaShape, devices: list[torch.device]) -> None:
        self.shape = shape
        self.devices = devices
        self.length = 0
        self.capacity = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def reserve(self, rows: int) -> None:
        """Make room for `rows` positions behind the prefix; the prefix is kept."""
        needed = -(-(self.length + rows) // CHUNK) * CHUNK
        if needed <= self.capacity:
            return
        capacity = max(needed, 2 * self.capacity)
        size = (self.shape.kv_heads, capacity, self.shape.head_dim)
        for store in (self.keys, self.values):
            grown = [torch.zeros(size, device=device) for device in self.devices]
            for new, old in zip(grown, store, strict=False):
                new[:, : self.length] = old[:, : self.length]
            store[:] = grown
        self.capacity = capacity

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put [rows, kv_heads, head_dim] behind the prefix; returns whole chunks of keys and values."""
        end = self.length + len(keys)
        padded = -(-end // CHUNK) * CHUNK
        self.keys[layer][:, self.length : end] = keys.transpose(0, 1)
        self.values[layer][:, self.length : end] = values.transpose(0, 1)
        return self.keys[layer][:, :padded], self.values[layer][:, :padded]

    def freeze(self, count: int) -> None:
        """The first `count` rows written last join the prefix."""
        self.length += count

    def copy(self, length: int) -> "ExactCache":
        """A cache of its own that holds the first `length` positions of this prefix."""
        made = ExactCache(self.shape, self.devices)
        made.reserve(length)
        for new, old in zip([*made.keys, *made.values], [*self.keys, *self.values], strict=True):
            new[:, :length] = old[:, :length]
        made.length = length
        return made
