"""Keys and values of one row, in place, for transformers' own classes.

What is frozen stands first, behind it what an approximate cache holds of an earlier pass; every token of a pass sees
both. A pass writes right behind them, over what the pass before left there, so nothing is copied but what is new.
Positions are rotary and were applied when the keys were made, so the order of the slots does not matter to the result.
"""

from typing import Any

import torch
from torch import Tensor

from dllm_kernels.decoder.store import Slots

#: Room is made in whole pages of so many positions.
PAGE = 64

Layers = list[tuple[Tensor, Tensor]]


class NativeCache(Slots):
    """Per layer, keys and values [kv_heads, capacity, head_dim]; a layer is made when it is first written.

    No two rows share memory: what one writes, no other can see.
    """

    page = PAGE

    @torch.inference_mode()
    def reserve(self, rows: int) -> None:
        """Make room for `rows` positions behind what is kept; what was pending is lost if the store grows."""
        capacity = self._larger(rows)
        if capacity == self.capacity:
            return
        # One after another: never more than one layer is there twice.
        for store in (self.keys, self.values):
            for layer, old in enumerate(store):
                grown = old.new_empty(len(old), capacity, old.shape[2])
                grown[:, : self.kept] = old[:, : self.kept]
                store[layer] = grown
        self.capacity = capacity

    @torch.inference_mode()
    def write(self, layer: int, keys: Tensor, values: Tensor, begin: int) -> None:
        """Put keys and values [kv_heads, n, head_dim] into the slots from `begin` on; layers come in their order."""
        for store, new in ((self.keys, keys), (self.values, values)):
            if layer == len(store):
                store.append(new.new_empty(len(new), self.capacity, new.shape[2]))
            store[layer][:, begin : begin + new.shape[1]] = new

    def copy(self, length: int) -> "NativeCache":
        """A store of its own that holds the first `length` positions of this prefix.

        :raises KernelError: if fewer are frozen.
        """
        made = type(self)()
        self._copy_to(made, length)
        return made

    @torch.inference_mode()
    def _copy_to(self, made: "NativeCache", length: int) -> None:
        self._refuse_more_than_frozen(length)
        if not length:
            return
        made.reserve(length)
        for layer, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            made.write(layer, keys[:, :length], values[:, :length], 0)
        made.length = length

    def layers(self, end: int) -> Layers:
        """Keys and values [1, kv_heads, end, head_dim] of the first `end` slots, per layer; views."""
        return [
            (keys[None, :, :end], values[None, :, :end]) for keys, values in zip(self.keys, self.values, strict=True)
        ]


def as_cache(layers: Layers) -> Any:
    """A transformers cache that begins with these keys and values, one pair per layer; it copies when it grows."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache
