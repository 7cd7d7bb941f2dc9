"""The block decoder for CPUs: four products a layer for all rows together, everything else in place.

Row-invariant: products and attention by :mod:`~dllm_kernels.decoder.products` and
:mod:`dllm_kernels.tiles`, everything else row by row. Rows of unequal lengths lie one behind
another; only the end of the whole pass is padded.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.decoder.base import Part
from dllm_kernels.decoder.base import keys_of
from dllm_kernels.decoder.base import noisy_rows
from dllm_kernels.decoder.products import STEP
from dllm_kernels.decoder.products import Products
from dllm_kernels.decoder.rotary import Rotary
from dllm_kernels.decoder.store import KeyValues
from dllm_kernels.decoder.store import whole_chunks
from dllm_kernels.decoder.weights import DecoderWeights
from dllm_kernels.decoder.weights import LayerWeights
from dllm_kernels.tiles import QUERIES
from dllm_kernels.tiles import attend
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
        self.wide = self.qkv.view(rows, heads, shape.head_dim)
        if like.dtype != torch.float32:
            self.wide = torch.zeros(rows, heads, shape.head_dim)
        self.turned = torch.zeros(rows, shape.heads + shape.kv_heads, shape.head_dim)
        self.half = torch.zeros(rows, shape.heads + shape.kv_heads, shape.head_dim // 2)
        self.seen = like.new_zeros(rows, shape.heads * shape.head_dim)
        self.gate_up = like.new_zeros(rows, 2 * shape.intermediate)
        self.inner = like.new_zeros(rows, shape.intermediate)


@dataclass(frozen=True, slots=True)
class _Masked:
    """A part with whole tiles of queries and whole chunks of keys, as `attend` wants them."""

    store: KeyValues
    rows: slice
    seen: Tensor


@dataclass(frozen=True, slots=True)
class _Pass:
    """What all layers share; `noisy` are indices, None where no low-rank pair acts."""

    space: Workspace
    turns: tuple[Tensor, Tensor]
    parts: list[_Masked]
    noisy: Tensor | None


class CpuDecoder:
    """See :class:`~dllm_kernels.decoder.base.Decoder`."""

    row_invariant = True

    def __init__(self, weights: DecoderWeights) -> None:
        self.weights = weights
        self._products = Products()
        self._rotary = Rotary(weights.frequencies, weights.rope_scale)
        self._spaces: dict[int, Workspace] = {}

    def new_store(self) -> KeyValues:
        """An empty row."""
        return KeyValues(self.weights.shape, self.weights.embedding.device)

    @torch.inference_mode()
    def forward(self, tokens: Tensor, positions: Tensor, parts: Sequence[Part], noisy: Tensor | None = None) -> Tensor:
        """See :class:`~dllm_kernels.decoder.base.Decoder`."""
        open_rows = noisy_rows(noisy, self.weights)
        rows = len(tokens)
        space = self._space(-(-rows // STEP) * STEP)
        torch.index_select(self.weights.embedding, 0, tokens, out=space.x[:rows])
        # A row's first part comes last, so that its keys stay.
        shared = _Pass(
            space, self._rotary(positions, len(space.x)), [_masked(part) for part in reversed(parts)], open_rows
        )
        for index, layer in enumerate(self.weights.layers):
            self._attention(index, layer, shared)
            self._mlp(index, layer, shared)
        return self._norm(space.x, self.weights.norm)[:rows]

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, vocabulary] of hidden states [N, hidden]."""
        padded = pad_rows(hidden, STEP)
        out = padded.new_empty(len(padded), self.weights.shape.vocabulary)
        return self._products.into(out, padded, self.weights.head)[: len(hidden)]

    def _space(self, rows: int) -> Workspace:
        if rows > KEPT_ROWS:
            return Workspace(self.weights, rows)
        if rows not in self._spaces:
            self._spaces[rows] = Workspace(self.weights, rows)
        return self._spaces[rows]

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.weights.shape.eps)

    def _attention(self, index: int, layer: LayerWeights, shared: _Pass) -> None:
        space, shape = shared.space, self.weights.shape
        normed = self._norm(space.x, layer.input_norm)
        self._products.into(space.qkv, normed, layer.qkv, layer.qkv_bias)
        self._add_low_rank(space.qkv, normed, index, 0, shared.noisy)
        if space.wide.data_ptr() != space.qkv.data_ptr():
            space.wide.copy_(space.qkv.view_as(space.wide))
        q, k = space.wide[:, : shape.heads], space.wide[:, shape.heads : shape.heads + shape.kv_heads]
        if layer.q_norm is not None and layer.k_norm is not None:
            q.copy_(self._norm(q, layer.q_norm.float()))
            k.copy_(self._norm(k, layer.k_norm.float()))
        _turn(space, shared.turns)
        q, k = space.turned[:, : shape.heads], space.turned[:, shape.heads :]
        v = space.wide[:, shape.heads + shape.kv_heads :]
        for part in shared.parts:
            keys, values = part.store.write(index, k[part.rows], v[part.rows])
            space.seen[part.rows] = attend(q[part.rows], keys, values, part.seen)
        self._products.into(space.change, space.seen, layer.out, layer.out_bias)
        self._add_low_rank(space.change, space.seen, index, 1, shared.noisy)
        space.x += space.change

    def _mlp(self, index: int, layer: LayerWeights, shared: _Pass) -> None:
        space = shared.space
        normed = self._norm(space.x, layer.post_norm)
        self._products.into(space.gate_up, normed, layer.gate_up, layer.gate_up_bias)
        self._add_low_rank(space.gate_up, normed, index, 2, shared.noisy)
        gate, up = space.gate_up.chunk(2, dim=-1)
        torch.mul(F.silu(gate, inplace=True), up, out=space.inner)
        self._products.into(space.change, space.inner, layer.down, layer.down_bias)
        self._add_low_rank(space.change, space.inner, index, 3, shared.noisy)
        space.x += space.change

    def _add_low_rank(self, out: Tensor, x: Tensor, index: int, which: int, noisy: Tensor | None) -> None:
        """Only the noisy rows of `out` are read and written, so that clean ones keep their bits."""
        if noisy is None or self.weights.low_rank is None:
            return
        down, up = self.weights.low_rank[index][which]
        gathered = pad_rows(x.index_select(0, noisy), STEP)
        narrow = self._products.into(gathered.new_empty(len(gathered), len(down)), gathered, down)
        narrow *= self.weights.low_rank_scale
        added = self._products.into(gathered.new_empty(len(gathered), len(up)), narrow, up)
        out.index_add_(0, noisy, added[: len(noisy)])


def _masked(part: Part) -> _Masked:
    store, rows = keys_of(part), len(part.seen)
    end = store.kept + rows
    seen = torch.zeros(-(-rows // QUERIES) * QUERIES, whole_chunks(end), dtype=torch.bool)
    seen[:, : store.kept] = True
    seen[:rows, store.kept : end] = part.seen
    # A row of padding must see something, lest its weights be 0 / 0.
    seen[rows:, 0] = True
    return _Masked(store, part.rows, seen)


def _turn(space: Workspace, turns: tuple[Tensor, Tensor]) -> None:
    """Rotary embedding (arXiv 2104.09864) of the queries and keys in `wide`, into `turned`."""
    cosines, sines = turns
    heads, half = space.half.shape[1:]
    first, second = space.wide[:, :heads, :half], space.wide[:, :heads, half:]
    left, right = space.turned[..., :half], space.turned[..., half:]
    torch.mul(first, cosines, out=left)
    left -= torch.mul(second, sines, out=space.half)
    torch.mul(second, cosines, out=right)
    right += torch.mul(first, sines, out=space.half)
