"""DiffusionGemma: a causal encoder fills a cache, a bidirectional decoder reads it.

Causal segments go through the encoder, all others through the decoder, over the frozen
prefix and whatever encoder tokens of the same pass they are behind. Both share their
weights. In sliding layers an encoder token sees a window that ends with itself, while
every token of a canvas sees all of the canvas and the same last `window - 1` positions
before it. Rows are forwarded one by one, as in
:class:`~dllm_plugins.denoisers.native.NativeDenoiser`. Text only.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.gemma_cache import WindowedCache
from dllm_plugins.denoisers.native import NativeDenoiser
from dllm_plugins.denoisers.visibility import additive
from dllm_plugins.denoisers.visibility import visible
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FULL, SLIDING = "full_attention", "sliding_attention"


class GemmaDenoiser(NativeDenoiser):
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`.

    :param model: a DiffusionGemmaForBlockDiffusion.
    """

    def __init__(self, model: "PreTrainedModel", spec: ModelSpec) -> None:
        super().__init__(model, spec)
        config: Any = model.config.get_text_config()
        self.window: int = config.sliding_window
        self._windows = [self.window - 1 if kind == SLIDING else None for kind in config.layer_types]

    @staticmethod
    def _find_head(model: "PreTrainedModel") -> Callable[[Tensor], Tensor]:
        """Logits [N, V] in single precision, softly capped."""
        head: Any = model.get_output_embeddings()
        cap = float(model.config.get_text_config().final_logit_softcapping)

        def capped(hidden: Tensor) -> Tensor:
            logits: Tensor = head(hidden).float()
            return torch.tanh(logits / cap) * cap

        return capped

    def open_row(self, prefix: PrefixState | None = None, length: int = 0) -> int:
        """A handle with an empty prefix, or with the first `length` positions of a kept one."""
        return self._open(prefix.first(length) if isinstance(prefix, WindowedCache) else WindowedCache(self._windows))

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Refused: the decoder's keys are never kept."""
        raise OptionError(message("{} only has an exact cache; leave {approximate_cache} out", self.spec.name))

    def _one(self, call: Sequence[Segment]) -> tuple[Tensor, Any]:
        """Hidden states [tokens, hidden] of a segment and those behind it, and the encoder's cache."""
        kept = self._rows[call[0].row]
        assert isinstance(kept, WindowedCache), "open_row makes no other"
        if any(segment.apart is not None for segment in call):
            raise OptionError(f"{self.spec.name} cannot hide single keys from a token; choose another mode")
        if not call[0].causal:
            assert len(call) == 1, "nothing can be behind a canvas, which leaves no keys"
            return self._decode(call[0], kept.opened()), None
        known = len(call[0].tokens)
        hidden, cache = self._encode(call[0], kept)
        found = [hidden]
        for segment in call[1:]:
            assert not segment.causal, "one segment of a pass is encoded"
            found.append(self._decode(segment, kept.behind(cache, known, segment.behind[0][1])))
        return torch.cat(found), cache

    def _encode(self, segment: Segment, kept: WindowedCache) -> tuple[Tensor, Any]:
        """Hidden states of a causal segment and the cache it was appended to."""
        cache = kept.opened()
        near = min(kept.length, self.window - 1)
        masks = {FULL: self._mask(visible([segment], kept.length)), SLIDING: self._mask(self._slide(segment, near))}
        output = self._body.get_encoder()(
            input_ids=self._ids(segment.tokens),
            attention_mask=masks,
            position_ids=self._ids(segment.positions),
            **{self._cache_name: cache},
        )
        return output.last_hidden_state[0], cache

    def _slide(self, segment: Segment, near: int) -> Tensor:
        """Like `visible` over `near` cached positions, but no farther than the window."""
        seen = visible([segment], near)
        places = torch.arange(seen.shape[1])
        return seen & (places[near:, None] - places[None, :] < self.window)

    def _decode(self, segment: Segment, cache: Any) -> Tensor:
        """Hidden states of a canvas, which sees all of itself and of `cache`."""
        conditioning = segment.conditioning
        dtype = self._body.get_input_embeddings().weight.dtype
        output = self._body.get_decoder()(
            decoder_input_ids=self._ids(segment.tokens),
            decoder_position_ids=self._ids(segment.positions),
            decoder_attention_mask={FULL: None, SLIDING: None},
            self_conditioning_logits=None if conditioning is None else conditioning[None].to(dtype),
            **{self._cache_name: cache},
        )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden

    def _ids(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor([list(numbers)], device=self._body.get_input_embeddings().weight.device)

    def _mask(self, seen: Tensor) -> Tensor:
        return additive(seen[None], self.model.dtype, self._body.get_input_embeddings().weight.device)
