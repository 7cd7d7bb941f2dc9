"""The contract of a block decoder: positions of many rows, each on its own cached prefix, in one pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dllm_kernels.decoder.store import KeyValues
from dllm_kernels.decoder.weights import DecoderWeights


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive positions of a pass that may see one another, behind one row's store.

    A row may have several parts in a pass; they do not see one another, and the keys of
    its *first* part are in the store afterwards.

    :param rows: its positions in the pass.
    :param seen: bool [n, store.kept + n], which keys each of its n positions sees; at least one.
    """

    store: KeyValues
    rows: slice
    seen: Tensor


class Decoder(Protocol):
    """A decoder-only transformer. Not thread-safe.

    :ivar row_invariant: whether a position's result is bit for bit the same in any company.
    """

    weights: DecoderWeights
    row_invariant: bool

    def forward(self, tokens: Tensor, positions: Tensor, parts: Sequence[Part]) -> Tensor:
        """Final hidden states [N, hidden] of int64 `tokens` [N] at rotary `positions` [N].

        Parts of one row stand together and cover all N positions in order; every store
        has room for its longest part.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, vocabulary] of hidden states [N, hidden]."""
