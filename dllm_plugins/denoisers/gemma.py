"""DiffusionGemma: a causal encoder fills a cache, a bidirectional decoder reads it.

Causal segments go through the encoder, all others through the decoder, over the frozen
prefix and whatever encoder tokens of the same pass they are behind. Both share their
weights. In sliding layers an encoder token sees a window that ends with itself, while
every token of a canvas sees all of the canvas and the same last `window - 1` positions
before it. Rows are always forwarded one by one: what a pass says is what the next one is given, so
that what rounding changes grows from pass to pass. Text only.
"""

from collections.abc import Callable
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.gemma_plain import FULL
from dllm_plugins.denoisers.gemma_plain import SLIDING
from dllm_plugins.denoisers.gemma_plain import PlainGemma
from dllm_plugins.denoisers.gemma_plain import within
from dllm_plugins.denoisers.native import Call
from dllm_plugins.denoisers.native import NativeDenoiser
from dllm_plugins.denoisers.native_cache import as_cache
from dllm_plugins.denoisers.packed import PackedPass
from dllm_plugins.denoisers.packed import RowSpan
from dllm_plugins.denoisers.packed import SeenSlots
from dllm_plugins.denoisers.packed import through
from dllm_plugins.denoisers.visibility import visible
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import message

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class GemmaDenoiser(NativeDenoiser):
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`.

    :param model: a DiffusionGemmaForBlockDiffusion.
    :param plain: as for :class:`~dllm_plugins.denoisers.native.NativeDenoiser`.
    """

    def __init__(self, model: "PreTrainedModel", spec: ModelSpec, *, plain: bool = False) -> None:
        super().__init__(model, spec, plain=plain)
        config: Any = model.config.get_text_config()
        self.window: int = config.sliding_window
        self._kinds = [int(kind == SLIDING) for kind in config.layer_types]

    @staticmethod
    def _find_head(model: "PreTrainedModel") -> Callable[[Tensor], Tensor]:
        """Logits [N, V] in single precision, softly capped."""
        head: Any = model.get_output_embeddings()
        cap = float(model.config.get_text_config().final_logit_softcapping)

        def capped(hidden: Tensor) -> Tensor:
            logits: Tensor = head(hidden).float()
            return torch.tanh(logits / cap) * cap

        return capped

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Refused: the decoder's keys are never kept."""
        raise OptionError(message("{} only has an exact cache; leave {approximate_cache} out", self.spec.name))

    def _pend(self, call: Call) -> None:
        """Canvases leave no keys."""
        self._rows[call[0].row].pend(len(call[0].tokens) if call[0].causal else 0)

    def _compute(self, calls: Sequence[Call]) -> list[Tensor]:
        """Hidden states [tokens, hidden] of each call, and what it encodes in its row's store."""
        for call in calls:
            if any(segment.apart is not None for segment in call):
                raise OptionError(f"{self.spec.name} cannot hide single keys from a token; choose another mode")
            assert all(not segment.causal for segment in call[1:]), "one segment of a call is encoded"
            assert call[0].causal or len(call) == 1, "nothing can be behind a canvas, which leaves no keys"
        if not self._packs:
            plain = PlainGemma(self._body, self._cache_name, self._kinds, self.window, self.model.dtype)
            return [plain(call, self._rows[call[0].row]) for call in calls]
        return [torch.cat([self._hidden(call, segment) for segment in call]) for call in calls]

    def _hidden(self, call: Call, segment: Segment) -> Tensor:
        """Hidden states [tokens, hidden] of a segment of a call."""
        return self._encode(segment) if segment.causal else self._decode(call, segment)

    def _encode(self, segment: Segment) -> Tensor:
        """Hidden states of a causal segment, whose keys go into its row's store."""
        store = self._rows[segment.row]
        seen, begin = visible([segment], store.length), max(store.length - self.window + 1, 0)
        looks = SeenSlots.at(seen), SeenSlots.at(within(seen, self.window), begin)
        forward = partial(
            self._body.get_encoder(),
            input_ids=self._ids([segment.tokens]),
            attention_mask={FULL: None, SLIDING: None},
            position_ids=self._ids([segment.positions]),
        )
        return self._through(RowSpan(store, slice(0, len(seen)), store.length, looks), forward)

    def _decode(self, call: Call, segment: Segment) -> Tensor:
        """Hidden states of a canvas, which sees all of itself and of what stands before it."""
        store, count = self._rows[segment.row], len(segment.tokens)
        before = store.length + (segment.behind[0][1] if segment.behind else 0)
        # Behind what the call encodes, all of which may join the prefix.
        own = store.length + (len(call[0].tokens) if call[0].causal else 0)
        seen = torch.ones(count, own + count, dtype=torch.bool)
        seen[:, before:own] = False
        looks = SeenSlots.at(seen), SeenSlots.at(seen, max(before - self.window + 1, 0))
        dtype = self._body.get_input_embeddings().weight.dtype
        conditioning = segment.conditioning
        forward = partial(
            self._body.get_decoder(),
            decoder_input_ids=self._ids([segment.tokens]),
            decoder_position_ids=self._ids([segment.positions]),
            decoder_attention_mask={FULL: None, SLIDING: None},
            self_conditioning_logits=None if conditioning is None else conditioning[None].to(dtype),
            # It wants one, though there is nothing in it: what is seen is in the pass.
            **{self._cache_name: as_cache(store.layers(0))},
        )
        return self._through(RowSpan(store, slice(0, count), own, looks), forward)

    def _through(self, part: RowSpan, forward: Callable[..., Any]) -> Tensor:
        hidden = through(self.model, PackedPass((part,), self._kinds), self._layers, forward)
        assert hidden is not None, "this class hands a pass on to all of its layers"
        return hidden
