"""The contract of a block decoder: positions of many rows, each on its own cached prefix, in one pass."""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar
from typing import Protocol

import torch
from torch import Tensor

from dllm_kernels import tiles
from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import Weight
from dllm_kernels.blocks import plain
from dllm_kernels.coded import coded_product
from dllm_kernels.decoder.weights import AnyWeights
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import Shapes


class Store(Protocol):
    """Keys and values of one row, laid out as its decoder likes them."""

    @property
    def length(self) -> int:
        """Frozen positions."""

    @property
    def kept(self) -> int:
        """Positions that every token sees: frozen and held ones."""

    @property
    def capacity(self) -> int:
        """Positions there is room for, kept ones included."""

    @property
    def nbytes(self) -> int:
        """Memory of the store."""

    def room(self, positions: int) -> int:
        """The most positions there is room for once it has held so many."""

    def reserve(self, rows: int) -> None:
        """Make room for `rows` positions behind what is kept; what was pending is lost if the store grows."""

    def pend(self, count: int) -> None:
        """The first `count` positions of this pass may be frozen, then held.

        :raises KernelError: if there is no room for as many.
        """

    def freeze(self, count: int) -> None:
        """The first `count` pending positions join the prefix; held ones go."""

    def hold(self, indices: Sequence[int]) -> None:
        """These pending positions are held, in place of the earlier ones; the others are lost."""

    def release(self) -> None:
        """Forget what is held."""

    def copy(self, length: int) -> "Store":
        """A store of its own that holds the first `length` positions of this prefix.

        :raises KernelError: if fewer are frozen.
        """


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive positions of a pass that may see one another, behind one row's store.

    All of them see every kept position of the store. A row may have several parts in a
    pass; they do not see one another, and the keys of its *first* part are in the store
    afterwards.

    :param store: of the decoder that makes the pass.
    :param rows: its n positions in the pass.
    :param seen: bool [n, n], which of them each of them sees; at least one, if nothing is kept.
    """

    store: Store
    rows: slice
    seen: Tensor


@dataclass(frozen=True, slots=True)
class Unmasked:
    """What a head that builds no logits says of N positions.

    :param token: int64 [N], the token drawn at each.
    :param probability: float32 [N], the model's probability of that token at temperature 1.
    :param entropy: float32 [N], in nats.
    :param margin: float32 [N], the largest probability's lead over the second.
    """

    token: Tensor
    probability: Tensor
    entropy: Tensor
    margin: Tensor
    logits: None = None


class Decoder(Protocol):
    """A decoder-only transformer; inherit from it to have what is not said otherwise. Not thread-safe.

    :cvar copies: whether the weights are copied into a form of their own.
    :ivar row_invariant: whether a position's result is bit for bit the same in any company.
    """

    copies: ClassVar[bool]
    weights: AnyWeights
    row_invariant: bool

    def __init__(self, weights: AnyWeights) -> None: ...

    @classmethod
    def promises(cls, device: torch.device, dtype: torch.dtype, sizes: Shapes) -> bool:
        """Whether it is known to be row-invariant before it is made, given :meth:`DecoderShape.sizes`."""

    def new_store(self) -> Store:
        """An empty row."""

    def forward(self, tokens: Tensor, positions: Tensor, parts: Sequence[Part], noisy: Tensor | None = None) -> Tensor:
        """Final hidden states [N, hidden] of int64 `tokens` [N] at rotary `positions` [N].

        Parts of one row stand together and cover all N positions in order; every store
        has room for its longest part.

        :param noisy: bool [N], where the low-rank pairs act; nowhere if left out.
        :raises KernelError: for `noisy` positions of weights without low-rank pairs, for another
            decoder's store, and for anything :func:`~dllm_kernels.decoder.checks.check_pass` refuses.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, vocabulary] of hidden states [N, hidden]."""

    def unmask(
        self,
        hidden: Tensor,
        temperatures: Sequence[float],
        noises: Sequence[Tensor | None],
        uniforms: Sequence[float | None] | None = None,
    ) -> Unmasked | None:
        """Tokens of hidden states [N, hidden] and how sure the model is of them; None for a head that builds logits.

        :param noises: float64 [vocabulary] standard Gumbel numbers of each position, None where none are used.
        :param uniforms: a number in (0, 1) of each position, None where none is used.
        """
        return None

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings of tokens of any shape, in the weights' dtype: one dimension more."""
        return self.weights.embedding[tokens.to(self.weights.embedding.device)]

    def product(self, weight: Weight) -> Callable[[Tensor], Tensor]:
        """A linear layer of its own: rows [N, in] to [N, out], row-invariant where the decoder is.

        :param weight: [out, in] in the decoder's dtype, on the device of its head; a tensor or in blocks.
        :raises KernelError: for a weight of another dtype or shape.
        """
        if isinstance(weight, Blocks) and weight.coded:
            return partial(coded_product, weight=weight)
        matrix = plain(weight)
        return lambda x: tiles.product(x, matrix)

    def timings(self) -> dict[str, float]:
        """Seconds of all passes since the last call by part of the body; empty where nothing is measured."""
        return {}


def noisy_rows(noisy: Tensor | None, weights: AnyWeights) -> Tensor | None:
    """Indices int64 [n] of the positions where low-rank pairs act; None where nothing is to be added.

    :raises KernelError: if the weights have no low-rank pairs.
    """
    if noisy is None:
        return None
    if weights.low_rank is None:
        raise KernelError("noisy positions need low-rank pairs, and these weights have none; leave noisy out")
    rows = noisy.nonzero()[:, 0].to(weights.embedding.device)
    return rows if len(rows) else None
