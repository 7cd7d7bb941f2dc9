"""The tri-mode default on llama.cpp: the base for clean rows, the adapter switched on for open ones.

A call of llama.cpp has one causal flag and one set of adapters, so clean rows are decoded first, then
open ones on top of their keys. Switching the adapter leaves the clean rows' logits and keys as they are, bit
for bit. Mask rows are fed as embeddings; rotary positions are told apart from places in the cache
(:mod:`~dllm_plugins.llama_cpp.placed`).

llama.cpp multiplies a single row differently from two or more, whose results do not depend on
how many they are. So no call computes or returns a single clean row: a second one keeps it
company. Whether that makes clean rows invariant on this machine is measured when the model is loaded.
"""

from collections.abc import Hashable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dllm_kernels import tiles
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.draft_head import DraftHead
from dllm_plugins.errors import OptionError
from dllm_plugins.gguf.adapter import read_adapter
from dllm_plugins.gguf.tensors import read_rows
from dllm_plugins.gguf.tensors import read_tensor
from dllm_plugins.llama_cpp.batch import Span
from dllm_plugins.llama_cpp.calls import Chunk
from dllm_plugins.llama_cpp.calls import Planning
from dllm_plugins.llama_cpp.context import Outputs
from dllm_plugins.llama_cpp.passes import Passes
from dllm_plugins.llama_cpp.placed import PlacedContext
from dllm_plugins.llama_cpp.placed import PlacedModel
from dllm_plugins.llama_cpp.placed import PlacedSpan
from dllm_plugins.llama_cpp.sharing import fewest_of_equal_bits
from dllm_plugins.messages import message

#: Why a mode that looks at text with both sides in view is not served.
BLIND = {"repair": message("open rows see no clean ones behind them there; load it with {backend}='kernels'")}
#: Why a mode that promises another one's text is not served where rows are not invariant.
LOSSY = {
    "speculative": message(
        "it promises the text of mode 'ar', but llama.cpp on this machine rounds a row differently in "
        "other company; take mode 'ar' or 'diffusion', or {backend}='torch'"
    )
}
#: By the kind of a pass: what its calls with clean rows are, and those with open ones.
_KINDS = {"verify": ("verify", "draft"), "prefill": ("prefill", "predict"), "fused": ("freeze", "predict")}


class LlamaTriModeDenoiser(Passes):
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`. Hidden states of clean rows are their logits.

    :param model: the base, closed together with this.
    :param adapter: a file of :func:`~dllm_plugins.gguf.adapter.write_adapter` for it.
    :param spec: its `numerics` is set to what is measured; modes that cannot keep their promise then are refused.
    :param cache: type of keys and values, "F16" or "F32".
    :raises CheckpointError: if the adapter is damaged or another base's.
    :raises GgufError: if llama.cpp does not take it.
    """

    planning = Planning(placed=True, pads=True)

    def __init__(self, model: PlacedModel, adapter: Path, spec: ModelSpec, cache: str = "F16") -> None:
        super().__init__(model, PlacedContext(model, cache))
        self.extras = read_adapter(adapter, model.width)
        self._adapters = ((model.adapter(adapter), 1.0),)
        self._mask = self.extras.mask_embedding.float().numpy()
        self._embedding = read_tensor(model.header, model.header.tensors["token_embd.weight"])
        down, up = (part.to(self._embedding) for part in (self.extras.chain_down, self.extras.chain_up))
        self._draft_head = DraftHead(down, up, lambda weight: partial(tiles.product, weight=weight), self._embed)
        drafts = self.extras.draft_tokens
        self._shortlist_head = None if drafts is None else self._embedding[drafts].contiguous()
        invariant = fewest_of_equal_bits(self.context, self._shelf) is not None
        refused = BLIND if invariant else BLIND | LOSSY
        self.spec = replace(
            spec,
            mixes=False,
            numerics="row-invariant" if invariant else "approximate",
            modes=tuple(mode for mode in spec.modes if mode not in refused),
            refused=refused,
        )

    def key(self, chunk: Chunk) -> Hashable:
        """Steps for which this is equal may share a call."""
        return chunk.causal, len(chunk.tokens), chunk.noisy, chunk.rotary is None

    def counted(self, chunk: Chunk) -> bool:
        """Calls with open rows are counted apart."""
        return chunk.noisy

    def width(self, segment: Segment) -> int:
        """Open rows have hidden states, clean ones logits."""
        return self.model.width if segment.noisy else self.model.vocabulary

    def decode(self, part: Sequence[tuple[int, Chunk]]) -> list[Outputs]:
        """Rows of steps that share a call: logits of clean ones, final hidden states of open ones."""
        noisy, causal = part[0][1].noisy, part[0][1].causal
        self.context.use(self._adapters if noisy else ())
        return self.context.decode([self._span(*one) for one in part], causal=causal, hidden=noisy)

    def _span(self, stream: int, chunk: Chunk) -> Span:
        if chunk.rotary is None and not chunk.noisy:
            return Span(stream, chunk.begin, chunk.tokens, wanted=chunk.wanted)
        rotary = chunk.rotary or range(chunk.begin, chunk.begin + len(chunk.tokens))
        return PlacedSpan(stream, chunk.begin, (), self.embedded(chunk.tokens), chunk.wanted, rotary)

    def embedded(self, tokens: Sequence[int]) -> "NDArray[np.float32]":
        """Embeddings [tokens, width], the mask's too: its id is the vocabulary's size."""
        info = self.model.header.tensors["token_embd.weight"]
        size = info.shape[0]
        found = read_rows(self.model.header, info, [min(token, size - 1) for token in tokens])
        found[[token >= size for token in tokens]] = self._mask
        return found

    def rounds(self, row: int, kind: str) -> Mapping[str, int]:
        """How many calls the row took part in in the last pass, by kind.

        :param kind: what the pass was planned as; calls have kinds of their own where it names both.
        """
        clean, noisy = _KINDS.get(kind, (kind, kind))
        return self._rounds(row, {False: clean, True: noisy})

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Refused: the cache of this model is exact.

        :raises OptionError: always.
        """
        raise OptionError(message("{} has an exact cache only; leave {approximate_cache} out", self.spec.name))

    def release(self, row: int) -> None:
        """Nothing is held."""

    @torch.inference_mode()
    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        """Logits [N, vocabulary]; see :meth:`~dllm_plugins.denoisers.base.Denoiser.logits`."""
        return hidden if left is None else self._head(hidden, left, self._embedding)

    @torch.inference_mode()
    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits over the shortlist of frequent tokens, where the adapter carries one."""
        if self._shortlist_head is None:
            return self.logits(hidden, left), None
        return self._head(hidden, left, self._shortlist_head), self.extras.draft_tokens

    def _head(self, hidden: Tensor, left: Tensor, head: Tensor) -> Tensor:
        return tiles.product(self._draft_head(hidden.to(head), left), head)

    def _embed(self, tokens: Tensor) -> Tensor:
        return self._embedding[tokens]
