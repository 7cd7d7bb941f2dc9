"""DiffusionGemma with transformers' own attention and caches, a call for each segment: what fast ways are measured by.

See :mod:`~dllm_plugins.denoisers.gemma` for who sees whom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.native_cache import Layers
from dllm_plugins.denoisers.native_cache import NativeCache
from dllm_plugins.denoisers.native_cache import as_cache
from dllm_plugins.denoisers.visibility import additive
from dllm_plugins.denoisers.visibility import visible

FULL, SLIDING = "full_attention", "sliding_attention"


@dataclass(frozen=True)
class PlainGemma:
    """One call at a time.

    :param body: of the model, with an encoder and a decoder.
    :param cache_name: what its forward calls its cache.
    :param kinds: per layer, whether it slides.
    :param window: of sliding layers.
    """

    body: Any
    cache_name: str
    kinds: Sequence[int]
    window: int
    dtype: torch.dtype

    def __call__(self, call: Sequence[Segment], store: NativeCache) -> Tensor:
        """Hidden states [tokens, hidden] of a segment and those behind it; what is encoded goes into the store."""
        if not call[0].causal:
            return self._decode(call[0], self._last(store.layers(store.length)))
        known = len(call[0].tokens)
        hidden, cache = self._encode(call[0], store)
        found = [hidden]
        for segment in call[1:]:
            hidden_keys = known - segment.behind[0][1]
            found.append(self._decode(segment, self._last(_without(cache, hidden_keys))))
        for number, layer in enumerate(cache.layers):
            store.write(number, layer.keys[0, :, -known:], layer.values[0, :, -known:], store.length)
        return torch.cat(found)

    def _encode(self, segment: Segment, store: NativeCache) -> tuple[Tensor, Any]:
        """Hidden states of a causal segment and the cache it was appended to."""
        length = store.length
        cache = as_cache(self._last(store.layers(length)) if length else [])
        near = min(length, self.window - 1)
        sliding = within(visible([segment], near), self.window)
        output = self.body.get_encoder()(
            input_ids=self._ids(segment.tokens),
            attention_mask={FULL: self._mask(visible([segment], length)), SLIDING: self._mask(sliding)},
            position_ids=self._ids(segment.positions),
            **{self.cache_name: cache},
        )
        return output.last_hidden_state[0], cache

    def _decode(self, segment: Segment, before: Layers) -> Tensor:
        """Hidden states of a canvas, which sees all of itself and of what stands before it."""
        conditioning = segment.conditioning
        dtype = self.body.get_input_embeddings().weight.dtype
        output = self.body.get_decoder()(
            decoder_input_ids=self._ids(segment.tokens),
            decoder_position_ids=self._ids(segment.positions),
            decoder_attention_mask={FULL: None, SLIDING: None},
            self_conditioning_logits=None if conditioning is None else conditioning[None].to(dtype),
            **{self.cache_name: as_cache(before)},
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    def _last(self, layers: Layers) -> Layers:
        """The last positions of each layer that its window reaches."""
        found: Layers = []
        for (keys, values), slides in zip(layers, self.kinds, strict=False):
            begin = max(keys.shape[2] - self.window + 1, 0) if slides else 0
            found.append((keys[:, :, begin:], values[:, :, begin:]))
        return found

    def _ids(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([list(numbers)], device=self.body.get_input_embeddings().weight.device)

    def _mask(self, seen: Tensor) -> Tensor:
        return additive(seen[None], self.dtype, self.body.get_input_embeddings().weight.device)


def within(seen: Tensor, window: int) -> Tensor:
    """What is seen, bool [n, slots], no farther than the window; the last n slots are the positions themselves."""
    places = torch.arange(seen.shape[1])
    return seen & (places[seen.shape[1] - len(seen) :, None] - places[None, :] < window)


def _without(cache: Any, count: int) -> Layers:
    """What a cache holds before its last `count` positions."""
    return [
        (layer.keys[:, :, : layer.keys.shape[2] - count], layer.values[:, :, : layer.values.shape[2] - count])
        for layer in cache.layers
    ]
