"""The block decoder for CPUs: four products a layer for all rows together, everything else in place.

Row-invariant: products and attention by :mod:`~dllm_kernels.decoder.products` and
:mod:`~dllm_kernels.decoder.attention`, everything else row by row. Rows of unequal
lengths lie one behind another; only the end of the whole pass is padded. Three forms of
the weights (:mod:`~dllm_kernels.decoder.matrices`) make three decoders.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.decoder.attention import Attention
from dllm_kernels.decoder.attention import Mask
from dllm_kernels.decoder.base import Part
from dllm_kernels.decoder.base import noisy_rows
from dllm_kernels.decoder.checks import check_pass
from dllm_kernels.decoder.checks import check_weights
from dllm_kernels.decoder.layers import Layer
from dllm_kernels.decoder.layers import Pair
from dllm_kernels.decoder.layers import head_of
from dllm_kernels.decoder.layers import layers_of
from dllm_kernels.decoder.matrices import Form
from dllm_kernels.decoder.products import STEP
from dllm_kernels.decoder.products import Products
from dllm_kernels.decoder.rotary import Rotary
from dllm_kernels.decoder.store import KeyValues
from dllm_kernels.decoder.store import whole_blocks
from dllm_kernels.decoder.weights import DecoderWeights
from dllm_kernels.tiles import pad_rows

#: Workspaces of passes up to this many rows are kept for the next pass.
KEPT_ROWS = 256


class Workspace:
    """Where a pass over `rows` positions, a multiple of STEP, puts what it computes."""

    def __init__(self, weights: DecoderWeights, rows: int) -> None:
        shape, like = weights.shape, weights.embedding
        heads = shape.heads + 2 * shape.kv_heads
        self.x = like.new_zeros(rows, shape.hidden)
        self.change = like.new_zeros(rows, shape.hidden)
        self.qkv = like.new_zeros(rows, heads * shape.head_dim)
        self.wide = torch.zeros(rows, heads, shape.head_dim)
        self.turned = torch.zeros(rows, shape.heads + shape.kv_heads, shape.head_dim)
        self.queries = like.new_zeros(rows, shape.heads, shape.head_dim)
        self.seen = like.new_zeros(rows, shape.heads * shape.head_dim)
        self.gate_up = like.new_zeros(rows, 2 * shape.intermediate)
        self.inner = like.new_zeros(rows, shape.intermediate)


@dataclass(frozen=True, slots=True)
class _Masked:
    """A part, and which keys of its store's whole blocks it sees."""

    store: KeyValues
    rows: slice
    mask: Mask


@dataclass(frozen=True, slots=True)
class _Pass:
    """What all layers share; `noisy` are indices, None where no low-rank pair acts."""

    space: Workspace
    turns: tuple[Tensor, Tensor]
    parts: list[_Masked]
    noisy: Tensor | None


class CpuDecoder:
    """See :class:`~dllm_kernels.decoder.base.Decoder`. Weights as they are: nothing is copied."""

    form: ClassVar[Form] = "plain"
    #: Whether the weights are copied into a form of their own.
    copies: ClassVar[bool] = False
    row_invariant = True

    def __init__(self, weights: DecoderWeights) -> None:
        check_weights(weights)
        self.weights = weights
        self._products = Products()
        self._attend = Attention()
        self._rotary = Rotary(weights.frequencies, weights.rope_scale)
        self._spaces: dict[int, Workspace] = {}
        self._layers = layers_of(weights, self.form)
        self._head = head_of(weights, self.form)

    def new_store(self) -> KeyValues:
        """An empty row."""
        embedding = self.weights.embedding
        return KeyValues(self.weights.shape, embedding.device, embedding.dtype)

    @torch.inference_mode()
    def forward(self, tokens: Tensor, positions: Tensor, parts: Sequence[Part], noisy: Tensor | None = None) -> Tensor:
        """See :class:`~dllm_kernels.decoder.base.Decoder`."""
        check_pass(self.weights, KeyValues, tokens, positions, parts, noisy)
        open_rows = noisy_rows(noisy, self.weights)
        rows = len(tokens)
        space = self._space(-(-rows // STEP) * STEP)
        torch.index_select(self.weights.embedding, 0, tokens, out=space.x[:rows])
        # A row's first part comes last, so that its keys stay.
        masked = [self._masked(part) for part in reversed(parts)]
        shared = _Pass(space, self._rotary(positions, len(space.x)), masked, open_rows)
        for index, layer in enumerate(self._layers):
            self._attention(index, layer, shared)
            self._mlp(layer, shared)
        return self._norm(space.x, self.weights.norm)[:rows]

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, vocabulary] of hidden states [N, hidden]."""
        return self._products(pad_rows(hidden, STEP), self._head)[: len(hidden)]

    def _space(self, rows: int) -> Workspace:
        if rows > KEPT_ROWS:
            return Workspace(self.weights, rows)
        if rows not in self._spaces:
            self._spaces[rows] = Workspace(self.weights, rows)
        return self._spaces[rows]

    def _masked(self, part: Part) -> _Masked:
        store, rows = cast(KeyValues, part.store), len(part.seen)
        end = store.kept + rows
        seen = torch.zeros(rows, whole_blocks(end), dtype=torch.bool)
        seen[:, : store.kept] = True
        seen[:, store.kept : end] = part.seen
        shape = self.weights.shape
        return _Masked(store, part.rows, Mask(seen, shape.heads // shape.kv_heads, self.weights.embedding.dtype))

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.weights.shape.eps)

    def _attention(self, index: int, layer: Layer, shared: _Pass) -> None:
        space, shape = shared.space, self.weights.shape
        normed = self._norm(space.x, layer.input_norm)
        fused = self._products(normed, layer.qkv, space.qkv)
        self._add_low_rank(fused, normed, layer, 0, shared.noisy)
        space.wide.copy_(fused.view_as(space.wide))
        q, k = space.wide[:, : shape.heads], space.wide[:, shape.heads : shape.heads + shape.kv_heads]
        if layer.q_norm is not None and layer.k_norm is not None:
            q.copy_(self._norm(q, layer.q_norm))
            k.copy_(self._norm(k, layer.k_norm))
        _turn(space, shared.turns)
        space.queries.copy_(space.turned[:, : shape.heads])
        k, v = space.turned[:, shape.heads :], space.wide[:, shape.heads + shape.kv_heads :]
        for part in shared.parts:
            keys, values = part.store.write(index, k[part.rows], v[part.rows])
            space.seen[part.rows] = self._attend(space.queries[part.rows], keys, values, part.mask)
        self._add(space, space.seen, layer, 1, shared.noisy)

    def _mlp(self, layer: Layer, shared: _Pass) -> None:
        space = shared.space
        normed = self._norm(space.x, layer.post_norm)
        wide = self._products(normed, layer.gate_up, space.gate_up)
        self._add_low_rank(wide, normed, layer, 2, shared.noisy)
        gate, up = wide.chunk(2, dim=-1)
        torch.mul(F.silu(gate, inplace=True), up, out=space.inner)
        self._add(space, space.inner, layer, 3, shared.noisy)

    def _add(self, space: Workspace, x: Tensor, layer: Layer, which: int, noisy: Tensor | None) -> None:
        """What x becomes is added to the residual stream."""
        change = self._products(x, layer.out if which == 1 else layer.down, space.change)
        self._add_low_rank(change, x, layer, which, noisy)
        space.x += change

    def _add_low_rank(self, out: Tensor, x: Tensor, layer: Layer, which: int, noisy: Tensor | None) -> None:
        """Only the noisy rows of `out` are read and written, so that clean ones keep their bits."""
        if noisy is None:
            return
        pair: Pair = layer.pairs[which]
        narrow = self._products(pad_rows(x.index_select(0, noisy), STEP), pair.down)
        narrow *= self.weights.low_rank_scale
        out.index_add_(0, noisy, self._products(narrow, pair.up)[: len(noisy)])


class PackedDecoder(CpuDecoder):
    """Weights in oneDNN's own order; tied heads stay plain, as the embedding is needed anyway."""

    form = "packed"
    copies = True


class Int8Decoder(CpuDecoder):
    """Linear layers and the head in int8, low-rank pairs and everything else as they are."""

    form = "int8"
    copies = True


def _turn(space: Workspace, turns: tuple[Tensor, Tensor]) -> None:
    """Rotary embedding (arXiv 2104.09864) of the queries and keys in `wide`, into `turned`."""
    cosines, sines = turns
    heads, half = space.turned.shape[1], cosines.shape[-1]
    first, second = space.wide[:, :heads, :half], space.wide[:, :heads, half:]
    torch.mul(first, cosines, out=space.turned[..., :half]).addcmul_(second, sines, value=-1)
    torch.mul(second, cosines, out=space.turned[..., half:]).addcmul_(first, sines)
