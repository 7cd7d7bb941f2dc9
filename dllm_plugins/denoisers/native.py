"""transformers' own classes as denoisers, whatever their attention.

Sequences of a pass are forwarded one by one: padding would change how products are
tiled, and with that the last bits of a row's logits (docs/design.md, Numerics). Who sees
whom is a mask of our own, so a causal class serves bidirectional, block-causal and
reordered models alike.
"""

from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.experts import quicken
from dllm_plugins.denoisers.native_cache import NativeCache
from dllm_plugins.denoisers.rows import Rows
from dllm_plugins.denoisers.rows import wanted_of
from dllm_plugins.denoisers.visibility import additive
from dllm_plugins.denoisers.visibility import linked
from dllm_plugins.denoisers.visibility import visible
from dllm_plugins.errors import OptionError
from dllm_plugins.libraries.private_transformers import device_of
from dllm_plugins.messages import message

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class NativeDenoiser(Rows[NativeCache]):
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`.

    :param model: with a body in `model.base_model` and its head in `get_output_embeddings()`.
    :param own_mask: the class hides what it must by itself (local windows): whole sequences
        only, without a cache.
    """

    def __init__(self, model: "PreTrainedModel", spec: ModelSpec, *, own_mask: bool = False) -> None:
        super().__init__()
        self.spec = spec
        self.model = model
        self.own_mask = own_mask
        quicken(model)
        self._body: Any = model.base_model
        self._head = self._find_head(model)
        # transformers renamed the argument in 5.24.
        self._cache_name = "cache" if "cache" in signature(self._body.forward).parameters else "past_key_values"

    @staticmethod
    def _find_head(model: "PreTrainedModel") -> Any:
        """From hidden states to logits; masked language models have a transform before the last product."""
        head: Any = model.get_output_embeddings()
        transform: Any = getattr(model, "head", None)
        if transform is None or transform is head:
            return head
        return lambda hidden: head(transform(hidden))

    def open_row(self, prefix: PrefixState | None = None, length: int = 0) -> int:
        """A handle with an empty prefix, or with the first `length` positions of a kept one."""
        return self._open(prefix.first(length) if isinstance(prefix, NativeCache) else NativeCache())

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Keep these keys of the row's first segment of the last pass; see the protocol."""
        if self.own_mask:
            raise OptionError(
                message("{} can only forward whole canvases; leave {approximate_cache} out", self.spec.name)
            )
        self._rows[row].hold(indices)

    def release(self, row: int) -> None:
        """Forget the held keys."""
        self._rows[row].release()

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        """One pass; see :meth:`~dllm_plugins.denoisers.base.Denoiser.forward`."""
        found: list[Tensor] = []
        first: int | None = None
        for call in linked(segments):
            hidden, cache = self._one(call)
            if call[0].row != first:
                first = call[0].row
                self._rows[first].pend(cache, len(call[0].tokens))
            found += wanted_of(hidden, call)
        return found

    def _one(self, call: Sequence[Segment]) -> tuple[Tensor, Any]:
        """Hidden states [tokens, hidden] of linked segments in one call, and the cache behind it."""
        device = self._device()
        tokens = torch.tensor([[token for segment in call for token in segment.tokens]], device=device)
        if self.own_mask:
            assert len(call) == 1, "only whole sequences can be forwarded without a mask of one's own"
            return self._body(input_ids=tokens).last_hidden_state[0], None
        positions = torch.tensor([[place for segment in call for place in segment.positions]], device=device)
        kept = self._rows[call[0].row]
        # transformers passes a mask of four dimensions on as it is.
        mask = additive(visible(call, len(kept))[None], self.model.dtype, device)
        cache = kept.opened()
        hidden: Tensor = self._body(
            input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=True, **{self._cache_name: cache}
        ).last_hidden_state[0]
        return hidden, cache

    def _device(self) -> torch.device:
        """Where tokens go: to the embedding, or where its weights come when they are elsewhere (accelerate)."""
        embedding = self._body.get_input_embeddings()
        return device_of(embedding, embedding.weight)

    @torch.inference_mode()
    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        """Logits [N, vocabulary]; see :meth:`~dllm_plugins.denoisers.base.Denoiser.logits`."""
        found: Tensor = self._head(hidden)
        return found

    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same: there is no shortlist."""
        return self.logits(hidden), None
