"""The block decoder of :mod:`dllm_kernels` as a denoiser: Llama, Qwen2 and Qwen3 shapes, row-invariant.

Rows of a pass share their products, whatever their lengths; each attends to its own keys.
The model's own parameters become views of the decoder's fused tensors, so that there is
one copy of the weights.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dllm_kernels import decoder as decoding
from dllm_kernels.decoder import Part
from dllm_kernels.decoder import Store
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import kernel
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.native import linked
from dllm_plugins.denoisers.native import visible
from dllm_plugins.errors import CheckpointError


class KernelDenoiser:
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`.

    :param model: a Llama, Qwen2 or Qwen3 with its head; it can still be used.
    :param spec: its `numerics` is set to what the chosen kernel promises.
    :raises CheckpointError: for a model the kernel does not compute.
    """

    def __init__(self, model: PreTrainedModel, spec: ModelSpec) -> None:
        try:
            weights = decoding.take_weights(model)
            head = weights.head
            made: decoding.Decoder = kernel(decoding.KERNEL, head.device, head.dtype, weights.shape.sizes())(weights)
        except KernelError as error:
            raise CheckpointError(f"backend='kernels' does not fit {spec.name}: {error}") from error
        self.spec = replace(spec, numerics="row-invariant" if made.row_invariant else "approximate")
        self.model = model
        self.decoder = made
        self._rows: dict[int, Store] = {}
        self._opened = 0

    def open_row(self, prefix: PrefixState | None = None, length: int = 0) -> int:
        """A handle with an empty prefix, or with a copy of the first `length` positions of a kept one."""
        self._opened += 1
        if prefix is None:
            self._rows[self._opened] = self.decoder.new_store()
        else:
            self._rows[self._opened] = cast(Store, prefix).copy(length)
        return self._opened

    def close_row(self, row: int) -> Store:
        """End the row; its store is the caller's."""
        return self._rows.pop(row)

    @property
    def open_rows(self) -> int:
        """Rows being decoded."""
        return len(self._rows)

    def freeze(self, row: int, count: int) -> None:
        """The first `count` tokens of the row's first segment of the last pass join the prefix."""
        self._rows[row].freeze(count)

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Keep these keys of the row's first segment of the last pass; see the protocol."""
        self._rows[row].hold(indices)

    def release(self, row: int) -> None:
        """Forget the held keys."""
        self._rows[row].release()

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> list[Tensor]:
        """One pass; see :meth:`~dllm_plugins.denoisers.base.Denoiser.forward`."""
        parts: list[Part] = []
        firsts: dict[int, int] = {}
        begin = 0
        for call in linked(segments):
            row = call[0].row
            store = self._rows[row]
            firsts.setdefault(row, len(call[0].tokens))
            seen = visible(call, 0)
            parts.append(Part(store, slice(begin, begin + len(seen)), seen))
            begin += len(seen)
        for part in parts:
            part.store.reserve(len(part.seen))
        device = self.decoder.weights.embedding.device
        tokens = torch.tensor([token for segment in segments for token in segment.tokens], device=device)
        positions = torch.tensor([place for segment in segments for place in segment.positions], device=device)
        noisy = None
        if self.decoder.weights.low_rank is not None:
            noisy = torch.tensor([segment.noisy for segment in segments for _ in segment.tokens])
        hidden = self.decoder.forward(tokens, positions, parts, noisy)
        for row, count in firsts.items():
            self._rows[row].pend(count)
        return _wanted(hidden, segments)

    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        """Logits [N, vocabulary]; see :meth:`~dllm_plugins.denoisers.base.Denoiser.logits`."""
        return self.decoder.logits(hidden)

    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same: there is no shortlist."""
        return self.logits(hidden), None


def _wanted(hidden: Tensor, segments: Sequence[Segment]) -> list[Tensor]:
    """The wanted hidden states of each segment; hidden [N, width]."""
    found, begin = [], 0
    for segment in segments:
        found.append(hidden[[begin + index for index in segment.wanted]])
        begin += len(segment.tokens)
    return found
