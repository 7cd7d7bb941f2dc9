"""The tri-mode default on the block decoder: the base for clean rows, low-rank pairs for open ones.

The plain path is :class:`~dllm_plugins.denoisers.torch.TorchDenoiser`; both are row-invariant, so
each is lossless with respect to its own mode `ar`.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.decoder import Decoder
from dllm_kernels.decoder.compiled import CompiledDecoder
from dllm_kernels.tiles import ROWS
from dllm_kernels.tiles import linear
from dllm_kernels.tiles import pad_rows
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.kernel import DecoderDenoiser
from dllm_plugins.denoisers.kernel import best_decoder
from dllm_plugins.denoisers.low_rank import LowRankWeights
from dllm_plugins.denoisers.torch import unit_rms
from dllm_plugins.denoisers.tri_mode_weights import decoder_weights
from dllm_plugins.denoisers.weights import LlamaWeights
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import said


class TriModeDenoiser(DecoderDenoiser):
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`.

    :param base: weights, all on one device.
    :param low_rank: the denoiser's own weights, on the same device.
    :param int8: quantise the base's linear layers and the head; the matrices of `base` are then
        emptied, and what is lossless is so with respect to the quantised model, as the spec's
        `name` says. The low-rank pairs, the chain head and the shortlist stay as they are.
    :raises CheckpointError: for weights no block decoder computes.
    """

    def __init__(self, base: LlamaWeights, low_rank: LowRankWeights, spec: ModelSpec, *, int8: bool = False) -> None:
        weights = decoder_weights(base, low_rank)
        shortlist = None if low_rank.draft_tokens is None else low_rank.draft_tokens.long().to(weights.head.device)
        shortlist_head = None if shortlist is None else weights.head[shortlist]
        base = replace(base, embedding=base.embedding.new_empty(0) if int8 else weights.head)
        give = (lambda: None) if int8 else None
        super().__init__(best_decoder(lambda: weights, spec, int8=int8, give=give), spec, int8)
        self.base = base
        self.low_rank = low_rank
        self._down = _product(self.decoder, low_rank.chain_down)
        self._up = _product(self.decoder, low_rank.chain_up)
        self._shortlist = shortlist
        if shortlist_head is not None:
            self._shortlist_head = _product(self.decoder, shortlist_head)

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Refused: the cache of this model is exact.

        :raises OptionError: always.
        """
        raise OptionError(said("{} has an exact cache only; leave {approximate_cache} out", self.spec.name))

    @torch.inference_mode()
    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        """Logits [N, vocabulary]; see :meth:`~dllm_plugins.denoisers.base.Denoiser.logits`."""
        return self.decoder.logits(self.refined(hidden, left))

    @torch.inference_mode()
    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits over the shortlist of frequent tokens, where the weights carry one."""
        if self._shortlist is None:
            return self.logits(hidden, left), None
        return self._shortlist_head(self.refined(hidden, left)), self._shortlist

    @torch.inference_mode()
    def refined(self, hidden: Tensor, left: Tensor | None) -> Tensor:
        """The chain head where the left token is known; hidden [N, width], left [N, 2]."""
        if left is None:
            return hidden
        known = _embedded(self.decoder, left.clamp(min=0).to(hidden.device)) * (left >= 0).to(hidden)[..., None]
        inputs = torch.cat([hidden, unit_rms(known[:, 0]), unit_rms(known[:, 1])], dim=-1)
        inner = F.silu(self._down(inputs)).to(hidden.dtype)
        change = self._up(inner).to(hidden.dtype)
        return hidden + change * (left[:, :1] >= 0).to(hidden)


def _product(decoder: Decoder, weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Rows [N, in] times weight [out, in], row-invariant where the decoder is."""
    if isinstance(decoder, CompiledDecoder):
        return decoder.product(weight)
    return lambda x: linear(pad_rows(x, ROWS), weight)[: len(x)]


def _embedded(decoder: Decoder, tokens: Tensor) -> Tensor:
    """Embeddings of tokens."""
    if isinstance(decoder, CompiledDecoder):
        return decoder.embed(tokens)
    return decoder.weights.embedding[tokens]
