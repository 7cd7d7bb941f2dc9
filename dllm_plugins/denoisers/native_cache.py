"""Keys and values of one row, for transformers' own classes.

`prefix` holds frozen tokens, exactly; `held` what an approximate cache keeps from an
earlier pass. Both are seen by every token of a pass, in that order; positions are rotary
and were applied when the keys were made, so the order does not matter to the result.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Layers = list[tuple[Tensor, Tensor]]


class NativeCache:
    """Per layer, keys and values [1, kv_heads, length, head_dim]."""

    def __init__(self) -> None:
        self.prefix: Layers = []
        self.held: Layers = []
        self._pending: Layers = []

    @property
    def length(self) -> int:
        """Frozen positions."""
        return _length(self.prefix)

    def __len__(self) -> int:
        """Positions that every token sees: frozen and held ones."""
        return _length(self.prefix) + _length(self.held)

    def first(self, length: int) -> "NativeCache":
        """The first `length` positions of the prefix; nothing is copied, since nothing is written in place."""
        made = NativeCache()
        made.prefix = _slice(self.prefix, 0, length)
        return made

    def opened(self) -> Any:
        """A transformers cache that begins with what is kept; a pass may append to it freely."""
        return as_cache(_join(self.prefix, self.held))

    def pend(self, cache: Any, count: int) -> None:
        """Take the keys of a pass's first `count` tokens; :meth:`freeze` or :meth:`hold` decides about them."""
        kept = len(self)
        layers = [] if cache is None else [(layer.keys, layer.values) for layer in cache.layers]
        self._pending = _slice(layers, kept, count)

    @torch.inference_mode()
    def freeze(self, count: int) -> None:
        """The first `count` pending tokens join the prefix; held keys go."""
        self.prefix = _join(self.prefix, _slice(self._pending, 0, count))
        self.held = []

    @torch.inference_mode()
    def hold(self, indices: Sequence[int]) -> None:
        """These pending tokens are held, in place of the earlier ones."""
        places = torch.tensor(list(indices), dtype=torch.int64)
        self.held = [
            (keys.index_select(2, places.to(keys.device)), values.index_select(2, places.to(values.device)))
            for keys, values in self._pending
        ]

    def release(self) -> None:
        """Forget what is held."""
        self.held = []


def as_cache(layers: Layers) -> Any:
    """A transformers cache that begins with these keys and values, one pair per layer."""
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache()
    for keys, values in layers:
        layer = DynamicLayer()
        layer.lazy_initialization(keys, values)
        layer.keys, layer.values = keys, values
        cache.layers.append(layer)
    return cache


def _length(layers: Layers) -> int:
    return layers[0][0].shape[2] if layers else 0


def _slice(layers: Layers, begin: int, count: int) -> Layers:
    return [(keys[:, :, begin : begin + count], values[:, :, begin : begin + count]) for keys, values in layers]


def _join(left: Layers, right: Layers) -> Layers:
    if not left or not right:
        return left or right
    return [
        (torch.cat([left_keys, right_keys], dim=2), torch.cat([left_values, right_values], dim=2))
        for (left_keys, left_values), (right_keys, right_values) in zip(left, right, strict=True)
    ]
