"""transformers' own classes as denoisers, whatever their attention.

Who sees whom is ours to say, so a causal class serves bidirectional, block-causal and reordered models alike. The
positions of a call stand in one line (:mod:`~dllm_plugins.denoisers.packed`), be they of one row or of all. Rows that
share a call share its weights and route through mixtures of experts together, but products of another shape are
rounded differently: a row's last bits then depend on its company (docs/design.md, Numerics). So a call is of one row
unless the model was loaded with `batch_invariant=False`.

Classes that do not take attention from outside, and compiled ones, are computed with transformers' own attention and
cache, a call for each row; those that hide keys by themselves forward whole sequences, padded where they share a call.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.experts import quicken
from dllm_plugins.denoisers.grouping import neighbours
from dllm_plugins.denoisers.grouping import similar
from dllm_plugins.denoisers.native_cache import NativeCache
from dllm_plugins.denoisers.native_cache import as_cache
from dllm_plugins.denoisers.packed import PackedPass
from dllm_plugins.denoisers.packed import RowSpan
from dllm_plugins.denoisers.packed import SeenSlots
from dllm_plugins.denoisers.packed import in_line
from dllm_plugins.denoisers.packed import packs
from dllm_plugins.denoisers.packed import through
from dllm_plugins.denoisers.rows import Rows
from dllm_plugins.denoisers.rows import wanted_of
from dllm_plugins.denoisers.visibility import additive
from dllm_plugins.denoisers.visibility import linked
from dllm_plugins.denoisers.visibility import visible
from dllm_plugins.denoisers.whole import whole_sequences
from dllm_plugins.errors import OptionError
from dllm_plugins.libraries.private_transformers import device_of
from dllm_plugins.libraries.private_transformers import rope_kinds
from dllm_plugins.messages import message

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Most positions of a call of several rows: where weights have long ceased to matter, and activations begin to.
MOST = 4096
#: Rotary frequencies that depend on the longest position of a call: others' would change a row's.
CHANGING = frozenset({"dynamic", "longrope"})

#: Segments of one row that are forwarded over one another.
Call = Sequence[Segment]


def head_of(model: "PreTrainedModel") -> Any:
    """From hidden states to logits; masked language models have a transform before the last product."""
    head: Any = model.get_output_embeddings()
    transform: Any = getattr(model, "head", None)
    if transform is None or transform is head:
        return head
    return lambda hidden: head(transform(hidden))


class NativeDenoiser(Rows[NativeCache]):
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`.

    :param model: with a body in `model.base_model` and its head in `get_output_embeddings()`.
    :param own_mask: the class hides what it must by itself (local windows): whole sequences
        only, without a cache.
    :param batch_invariant: forward rows one by one, so that no bit depends on their company; the spec's `batched`
        says whether they are forwarded together.
    :param plain: leave attention to transformers: a call for each row, whose prefix is copied for it.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        spec: ModelSpec,
        *,
        own_mask: bool = False,
        batch_invariant: bool = True,
        plain: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.own_mask = own_mask
        quicken(model)
        self._body: Any = model.base_model
        self._head = self._find_head(model)
        # transformers renamed the argument in 5.24.
        self._cache_name = "cache" if "cache" in signature(self._body.forward).parameters else "past_key_values"
        self._packs = not own_mask and not plain and packs(model)
        config: Any = model.config.get_text_config()
        self._layers: int = config.num_hidden_layers
        together = (self._packs or own_mask) and not rope_kinds(config) & CHANGING
        self.spec = replace(spec, batched=together and not batch_invariant)

    @staticmethod
    def _find_head(model: "PreTrainedModel") -> Any:
        return head_of(model)

    def open_row(self, prefix: PrefixState | None = None, length: int = 0) -> int:
        """A handle with an empty prefix, or with a copy of the first `length` positions of a kept one."""
        return self._open(prefix.copy(length) if isinstance(prefix, NativeCache) else self._new_store())

    def _new_store(self) -> NativeCache:
        return NativeCache()

    def keys_bytes(self, rows: Sequence[int]) -> int:
        """See :class:`~dllm_plugins.denoisers.base.FullDenoiser`; nothing for classes without a cache."""
        return 0 if self.own_mask else sum(map(NativeCache().room, rows)) * self._position_bytes

    @cached_property
    def _position_bytes(self) -> int:
        """Of the keys and values of one position in all layers."""
        layers: list[Any] = [module for module in self._body.modules() if hasattr(module, "k_proj")]
        # In some layers values are the keys.
        pairs = ((layer.k_proj, getattr(layer, "v_proj", None) or layer.k_proj) for layer in layers[: self._layers])
        numbers: int = sum(part.out_features for pair in pairs for part in pair)
        return numbers * self.model.dtype.itemsize

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
        calls = linked(segments)
        groups = list(self._groups(calls))
        hidden: dict[int, Tensor] = {}
        # A row's first call comes last, so that its keys stay.
        for group in reversed(groups):
            own = [calls[place] for place in group]
            for call in own:
                self._rows[call[0].row].reserve(_length(call))
            hidden |= zip(group, self._compute(own), strict=True)
        companies = [{calls[place][0].row for place in group} for group in groups]
        self._shared = frozenset(row for rows in companies if len(rows) > 1 for row in rows)
        for call in reversed(calls):
            self._pend(call)
        return [part for place, call in enumerate(calls) for part in wanted_of(hidden[place], call)]

    def _groups(self, calls: Sequence[Call]) -> Iterator[list[int]]:
        """Which calls, by their places, are made as one."""
        if not self.spec.batched:
            return iter([place] for place in range(len(calls)))
        lengths = [_length(call) for call in calls]
        return similar(lengths, MOST) if self.own_mask else neighbours(lengths, MOST)

    def _pend(self, call: Call) -> None:
        """The keys of a call's first segment wait for what becomes of them."""
        if not self.own_mask:
            self._rows[call[0].row].pend(len(call[0].tokens))

    def _compute(self, calls: Sequence[Call]) -> list[Tensor]:
        """Hidden states [tokens, hidden] of each call, and its keys in its row's store."""
        if self.own_mask:
            return whole_sequences(self._body, [call[0].tokens for call in calls], self._device())
        if self._packs:
            hidden = self._packed(calls)
            if hidden is not None:
                return hidden
            # The class keeps what it is given from some layer.
            self._packs, self.spec = False, replace(self.spec, batched=False)
        return [self._plain(call) for call in calls]

    def _packed(self, calls: Sequence[Call]) -> list[Tensor] | None:
        """All of them in one line; None if the pass did not come to every layer."""
        parts, lengths = [], [_length(call) for call in calls]
        for call, rows in zip(calls, in_line(lengths), strict=True):
            store = self._rows[call[0].row]
            parts.append(RowSpan(store, rows, store.kept, (SeenSlots.at(visible(call, store.kept)),)))
        together = [segment for call in calls for segment in call]
        forward = partial(
            self._body,
            input_ids=self._ids([segment.tokens for segment in together]),
            # transformers passes a mask of four dimensions on as it is, and ours are in the pass.
            attention_mask=torch.zeros(1, 1, 1, 1, device=self._device()),
            position_ids=self._ids([segment.positions for segment in together]),
            use_cache=False,
        )
        hidden = through(self.model, PackedPass(parts[::-1]), self._layers, forward)
        return None if hidden is None else list(hidden.split(lengths))

    def _plain(self, call: Call) -> Tensor:
        """One call with transformers' own attention and cache: what all others are measured by."""
        store = self._rows[call[0].row]
        kept = store.kept
        cache = as_cache(store.layers(kept) if kept else [])
        hidden: Tensor = self._body(
            input_ids=self._ids([segment.tokens for segment in call]),
            attention_mask=additive(visible(call, kept)[None], self.model.dtype, self._device()),
            position_ids=self._ids([segment.positions for segment in call]),
            use_cache=True,
            **{self._cache_name: cache},
        ).last_hidden_state[0]
        for number, layer in enumerate(cache.layers):
            store.write(number, layer.keys[0, :, kept:], layer.values[0, :, kept:], kept)
        return hidden

    def _ids(self, numbers: Sequence[Sequence[int]]) -> Tensor:
        """Int64 [1, N], one after another."""
        return torch.tensor([[number for part in numbers for number in part]], device=self._device())

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


def _length(call: Call) -> int:
    return sum(len(segment.tokens) for segment in call)
