"""The tri-mode default on llama.cpp: the base for clean rows, the adapter switched on for open ones.

A call of llama.cpp has one causal flag and one set of adapters, so a pass is up to two calls:
clean rows, then open rows on top of their keys, which are dropped again. Switching the adapter
leaves the clean rows' logits and keys as they are, bit for bit. Mask rows are fed as embeddings;
rotary positions are told apart from places in the cache (:mod:`~dllm_plugins.llama_cpp.placed`).

llama.cpp multiplies a single row differently from two or more, whose results do not depend on
how many they are. So no call computes or returns a single clean row: a second one keeps it
company. Whether that makes clean rows invariant on this machine is measured when the model is loaded.
"""

from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dllm_plugins.denoisers.attention import ROWS
from dllm_plugins.denoisers.attention import linear
from dllm_plugins.denoisers.attention import pad_rows
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.torch import refined
from dllm_plugins.errors import OptionError
from dllm_plugins.gguf.adapter import read_adapter
from dllm_plugins.gguf.tensors import read_tensor
from dllm_plugins.llama_cpp.placed import PlacedContext
from dllm_plugins.llama_cpp.placed import PlacedModel
from dllm_plugins.llama_cpp.rows import LlamaRows
from dllm_plugins.llama_cpp.tri_calls import Calls
from dllm_plugins.llama_cpp.tri_parts import parts_of
from dllm_plugins.messages import said

#: Why a mode that promises another one's text is not served where rows are not invariant.
LOSSY = {
    "speculative": said(
        "it promises the text of mode 'ar', but llama.cpp on this machine rounds a row differently in "
        "other company; take mode 'ar' or 'diffusion', or {backend}='torch'"
    )
}
#: By the kind of a pass: what its calls with clean rows are, and those with open ones.
_KINDS = {"verify": ("verify", "draft"), "prefill": ("prefill", "predict"), "fused": ("freeze", "predict")}
#: How many tokens a call has while it is measured whether that changes them.
_MEASURED = (2, 3, 8)


class LlamaTriModeDenoiser(LlamaRows):
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`. Hidden states of clean rows are their logits.

    :param model: the base, closed together with this.
    :param adapter: a file of :func:`~dllm_plugins.gguf.adapter.write_adapter` for it.
    :param spec: its `numerics` is set to what is measured; modes that cannot keep their promise then are refused.
    :param cache: type of keys and values, "F16" or "F32".
    :raises CheckpointError: if the adapter is damaged or another base's.
    :raises GgufError: if llama.cpp does not take it.
    """

    def __init__(self, model: PlacedModel, adapter: Path, spec: ModelSpec, cache: str = "F16") -> None:
        context = PlacedContext(model, cache)
        super().__init__(model, context)
        self.extras = read_adapter(adapter, model.width)
        mask = self.extras.mask_embedding.float().numpy()
        self._calls = Calls(context, self._shelf, model.adapter(adapter), mask)
        self._embedding = read_tensor(model.header, model.header.tensors["token_embd.weight"])
        self._down, self._up = (part.to(self._embedding) for part in (self.extras.chain_down, self.extras.chain_up))
        drafts = self.extras.draft_tokens
        self._shortlist_head = None if drafts is None else self._embedding[drafts].contiguous()
        self._counts: dict[int, tuple[int, int]] = {}
        self.spec = replace(spec, mixes=False, numerics="row-invariant")
        if not self._invariant():
            kept = tuple(mode for mode in spec.modes if mode not in LOSSY)
            self.spec = replace(self.spec, numerics="approximate", modes=kept, refused=LOSSY)

    def _invariant(self) -> bool:
        """Whether clean rows get the same bits in calls of different lengths."""
        count = sum(_MEASURED)
        tokens = [7 * index % self.spec.vocabulary for index in range(count)]
        row = self.open_row()
        found = []
        for sizes in ((count,), _MEASURED, _MEASURED[::-1]):
            self._rows[row].frozen, rows = 0, []
            for size in sizes:
                begin = self._rows[row].frozen
                part = Segment(row, tokens[begin : begin + size], range(begin, begin + size), wanted=range(size))
                rows += self.forward([part])
                self.freeze(row, size)
            found.append(torch.cat(rows))
        self.close_row(row)
        return all(torch.equal(found[0], other) for other in found[1:])

    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        """One pass: logits [wanted, V] of clean segments, hidden states [wanted, width] of open ones; float32.

        :raises GgufError: for segments that llama.cpp cannot compute.
        """
        parts = parts_of(segments, self._rows)
        self._calls.run(parts)
        self._counts = {part.handle: (part.calls[0], part.calls[1]) for part in parts}
        found = {number: rows for part in parts for number, rows in part.results(self.model.vocabulary)}
        return [torch.from_numpy(np.ascontiguousarray(found[number])) for number in range(len(segments))]

    def rounds(self, row: int, kind: str) -> Mapping[str, int]:
        """How many calls the row took part in in the last pass, by kind.

        :param kind: what the pass was planned as; calls have kinds of their own where it names both.
        """
        first, second = _KINDS.get(kind, (kind, kind))
        found = Counter({first: self._counts[row][0]})
        found[second] += self._counts[row][1]
        return {name: count for name, count in found.items() if count}

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Refused: the cache of this model is exact.

        :raises OptionError: always.
        """
        raise OptionError(said("{} has an exact cache only; leave {approximate_cache} out", self.spec.name))

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
        padded = pad_rows(hidden.to(head), ROWS)
        return linear(refined(padded, left, self._embedding, self._down, self._up), head)[: len(hidden)]
