"""The tri-mode default on a block decoder: the base for clean rows, low-rank pairs for open ones."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dllm_kernels.blocks import rows_of
from dllm_kernels.decoder import AnyWeights
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.denoisers.draft_head import DraftHead
from dllm_plugins.denoisers.kernel import DecoderDenoiser
from dllm_plugins.denoisers.kernel import best_decoder
from dllm_plugins.denoisers.kernel import plain_decoder
from dllm_plugins.denoisers.low_rank import LowRankWeights
from dllm_plugins.denoisers.low_rank import with_low_rank
from dllm_plugins.errors import OptionError
from dllm_plugins.files import limits
from dllm_plugins.messages import message


class TriModeDenoiser(DecoderDenoiser):
    """See :class:`~dllm_plugins.denoisers.base.Denoiser`.

    :param base: weights on one device, unless `plain`.
    :param low_rank: the denoiser's own weights.
    :param plain: take the decoder in torch alone, which also computes layers on several devices; else the
        best one for these weights on this machine.
    :param int8: quantise the base's linear layers and the head; the matrices of `base` are then
        emptied, and what is lossless is so with respect to the quantised model, as the spec's
        `name` says. The low-rank pairs, the draft head and the shortlist stay as they are.
    :raises CheckpointError: for weights no block decoder computes, and for lengths that none has.
    """

    def __init__(
        self,
        base: AnyWeights,
        low_rank: LowRankWeights,
        spec: ModelSpec,
        *,
        plain: bool = False,
        int8: bool = False,
    ) -> None:
        weights = with_low_rank(base, low_rank)
        home = weights.head.device
        self._shortlist = None if low_rank.draft_tokens is None else low_rank.draft_tokens.long().to(home)
        # Before the head is perhaps given away.
        shortlist_head = None if self._shortlist is None else rows_of(weights.head, self._shortlist)
        if plain:
            decoder = plain_decoder(weights, spec)
        else:
            decoder = best_decoder(lambda: weights, spec, int8=int8, give=(lambda: None) if int8 else None)
        super().__init__(decoder, trained_lengths(spec, low_rank.metadata), int8)
        down, up = low_rank.chain_down.to(home), low_rank.chain_up.to(home)
        self._draft_head = DraftHead(down, up, decoder.product, decoder.embed)
        self._shortlist_head = None if shortlist_head is None else decoder.product(shortlist_head)

    def form(self) -> str:
        """The model, its weights and the decoder; see :class:`~dllm_plugins.denoisers.base.FullDenoiser`."""
        shape, head = self.decoder.weights.shape, self.decoder.weights.embedding
        size = f"{shape.layers} layers of {shape.hidden}"
        where = f"{str(head.dtype).removeprefix('torch.')} on {head.device}"
        return f"{self.spec.name}, {size}, {self.spec.weights}, {type(self.decoder).__name__}, {where}"

    def hold(self, row: int, indices: Sequence[int]) -> None:
        """Refused: the cache of this model is exact.

        :raises OptionError: always.
        """
        raise OptionError(message("{} has an exact cache only; leave {approximate_cache} out", self.spec.name))

    @torch.inference_mode()
    def logits(self, hidden: Tensor, left: Tensor | None = None) -> Tensor:
        """Logits [N, vocabulary]; see :meth:`~dllm_plugins.denoisers.base.Denoiser.logits`."""
        return self.decoder.logits(self.refined(hidden, left))

    @torch.inference_mode()
    def draft_logits(self, hidden: Tensor, left: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits over the shortlist of frequent tokens, where the weights carry one."""
        if self._shortlist_head is None:
            return self.logits(hidden, left), None
        return self._shortlist_head(self.refined(hidden, left)), self._shortlist

    @torch.inference_mode()
    def refined(self, hidden: Tensor, left: Tensor | None) -> Tensor:
        """Hidden states behind the draft head where the left token is known; hidden [N, width], left [N, 2]."""
        return hidden if left is None else self._draft_head(hidden, left)


def trained_lengths(spec: ModelSpec, metadata: Mapping[str, str]) -> ModelSpec:
    """The spec with blocks as long as those that the denoiser was trained on, and no more drafts than a group had.

    :param metadata: of the denoiser's file; the shipped one does not say it, and was trained on the defaults.
    :raises CheckpointError: for what is no length.
    """
    found = {
        name: limits.whole(int(said) if said.isdecimal() and len(said) < 6 else said, name, "the denoiser", 1, longest)
        for name, longest in (("block", 1024), ("group", 16))
        if (said := metadata.get(name)) is not None
    }
    return replace(
        spec,
        block_length=found.get("block", spec.block_length),
        draft_length=min(spec.draft_length, found.get("group", spec.draft_length)),
    )
