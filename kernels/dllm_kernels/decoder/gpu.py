"""The block decoder for GPUs: batched attention over pages, and passes that are recorded and replayed.

Nothing in a pass depends on the host: prefix lengths, pages and masks are tensors, so a
recorded pass serves any prefix.
"""

from collections.abc import Sequence
from typing import Any
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels import attention as attending
from dllm_kernels import tiles
from dllm_kernels.attention import Prefix
from dllm_kernels.attention import RowBlocks
from dllm_kernels.attention.pages import PAGE
from dllm_kernels.attention.pages import PagedRow
from dllm_kernels.attention.pages import PagePool
from dllm_kernels.decoder.base import Decoder
from dllm_kernels.decoder.base import Part
from dllm_kernels.decoder.base import noisy_rows
from dllm_kernels.decoder.checks import check_pass
from dllm_kernels.decoder.checks import check_weights
from dllm_kernels.decoder.graphs import Graphs
from dllm_kernels.decoder.graphs import Record
from dllm_kernels.decoder.graphs import cuda_recorder
from dllm_kernels.decoder.inputs import Inputs
from dllm_kernels.decoder.inputs import inputs_of
from dllm_kernels.decoder.rotary import rotated
from dllm_kernels.decoder.weights import AnyWeights
from dllm_kernels.decoder.weights import DecoderWeights
from dllm_kernels.decoder.weights import LayerWeights
from dllm_kernels.dispatch import KernelError
from dllm_kernels.dispatch import Shapes
from dllm_kernels.dispatch import choose
from dllm_kernels.tiles import ROWS

#: Passes of more positions than this are prefills, which are not worth a recording.
RECORDED_ROWS = 256


class GpuDecoder(Decoder):
    """See :class:`~dllm_kernels.decoder.base.Decoder`. Runs on any device; made for GPUs.

    :param attend: an implementation of block attention by name; None for the best that can run.
    :param record: how passes are recorded; None for CUDA graphs on a GPU, elsewhere not at all.
    """

    copies: ClassVar[bool] = False

    def __init__(self, weights: AnyWeights, attend: str | None = None, record: Record | None = None) -> None:
        check_weights(weights)
        if weights.coded:
            raise KernelError(f"weights of {weights.form} are computed by the compiled kernels, on the cpu")
        self.weights: DecoderWeights = weights.plain()
        weights = self.weights
        shape, like = weights.shape, weights.embedding
        self._pool = PagePool(shape.layers, shape.kv_heads, shape.head_dim, like.dtype, like.device)
        self._frequencies = weights.frequencies.to(like.device)
        chosen, self._attend = _attention(weights, attend)
        if record is None and like.device.type == "cuda" and chosen != "reference":
            # The reference reads lengths on the host, which a recording cannot.
            record = cuda_recorder(like.device)
        self._graphs = None if record is None else Graphs(self._compute, record)
        self.row_invariant = chosen != "reference" and self._invariant()

    @classmethod
    def promises(cls, _device: torch.device, _dtype: torch.dtype, _sizes: Shapes) -> bool:
        """Nothing: it is tried when it is made, as libraries promise nothing on GPUs."""
        return False

    def new_store(self) -> PagedRow:
        """An empty row."""
        return PagedRow(self._pool)

    @torch.inference_mode()
    def forward(self, tokens: Tensor, positions: Tensor, parts: Sequence[Part], noisy: Tensor | None = None) -> Tensor:
        """See :class:`~dllm_kernels.decoder.base.Decoder`."""
        check_pass(self.weights, PagedRow, tokens, positions, parts, noisy)
        inputs = inputs_of(self._pool, tokens, positions, parts, noisy_rows(noisy, self.weights))
        if self._graphs is None or len(inputs.tokens) > RECORDED_ROWS:
            return self._compute(*inputs)[: len(tokens)]
        return self._graphs.run(inputs, self._pool.version)[: len(tokens)]

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, vocabulary] of hidden states [N, hidden]."""
        return tiles.product(hidden, self.weights.head)

    def _compute(self, *tensors: Tensor) -> Tensor:
        """Final hidden states [N, hidden] of :class:`Inputs`; waits for nothing on the device."""
        inputs = Inputs(*tensors)
        angles = inputs.positions.float()[:, None, None] * self._frequencies
        rotary = torch.stack([angles.cos(), angles.sin()]) * self.weights.rope_scale
        x = self.weights.embedding[inputs.tokens]
        for index, layer in enumerate(self.weights.layers):
            x = x + self._attention(index, layer, self._norm(x, layer.input_norm), rotary, inputs)
            x = x + self._mlp(index, layer, self._norm(x, layer.post_norm), inputs)
        return self._norm(x, self.weights.norm)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.weights.shape.eps)

    def _attention(self, index: int, layer: LayerWeights, x: Tensor, rotary: Tensor, inputs: Inputs) -> Tensor:
        shape = self.weights.shape
        fused = self._gated(tiles.linear(x, layer.qkv, layer.qkv_bias), x, index, 0, inputs.noisy)
        heads = fused.view(len(x), -1, shape.head_dim)
        q, k, v = heads.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
        wide_q, wide_k = q.float(), k.float()
        if layer.q_norm is not None and layer.k_norm is not None:
            wide_q, wide_k = self._norm(wide_q, layer.q_norm.float()), self._norm(wide_k, layer.k_norm.float())
        q, k = (rotated(wide, rotary).to(x.dtype) for wide in (wide_q, wide_k))
        keys, values = self._pool.layer(index)
        blocks, prefix = RowBlocks(inputs.starts, inputs.own), Prefix(keys, values, inputs.table, inputs.lengths)
        mixed = self._attend(q, k, v, prefix, blocks)
        keys.flatten(0, 1).index_copy_(0, inputs.slots, k)
        values.flatten(0, 1).index_copy_(0, inputs.slots, v)
        return self._gated(tiles.linear(mixed, layer.out, layer.out_bias), mixed, index, 1, inputs.noisy)

    def _mlp(self, index: int, layer: LayerWeights, x: Tensor, inputs: Inputs) -> Tensor:
        wide = self._gated(tiles.linear(x, layer.gate_up, layer.gate_up_bias), x, index, 2, inputs.noisy)
        gate, up = wide.chunk(2, dim=-1)
        inner = F.silu(gate) * up
        return self._gated(tiles.linear(inner, layer.down, layer.down_bias), inner, index, 3, inputs.noisy)

    def _gated(self, product: Tensor, x: Tensor, index: int, which: int, noisy: Tensor) -> Tensor:
        """`product` of x, and what the low-rank pair adds at noisy positions; the others keep their bits."""
        if self.weights.low_rank is None or not len(noisy):
            return product
        down, up = self.weights.low_rank[index][which]
        added = tiles.linear(tiles.linear(x, down) * self.weights.low_rank_scale, up)
        return torch.where(noisy, product + added, product)

    @torch.inference_mode()
    def _invariant(self) -> bool:
        """Whether positions have the same bits alone and in company; tried, as libraries promise nothing."""
        device = self.weights.embedding.device
        tokens = torch.arange(ROWS + 8, device=device) % self.weights.shape.vocabulary
        found = []
        for step in (len(tokens), ROWS + 1, 5):
            row, hidden = self.new_store(), []
            for mine in torch.arange(len(tokens), device=device).split(step):
                row.reserve(len(mine))
                seen = torch.ones(len(mine), len(mine), dtype=torch.bool).tril()
                inputs = inputs_of(self._pool, tokens[mine], mine, [Part(row, slice(0, len(mine)), seen)], None)
                hidden.append(self._compute(*inputs)[: len(mine)])
                row.pend(len(mine))
                row.freeze(len(mine))
            found.append(torch.cat(hidden))
        return all(torch.equal(each, found[0]) for each in found)


def _attention(weights: DecoderWeights, name: str | None) -> tuple[str, Any]:
    """Name and function of an implementation of block attention.

    :raises KernelError: if it is unknown or cannot run.
    """
    shape, like = weights.shape, weights.embedding
    shapes = {"heads": shape.heads, "kv_heads": shape.kv_heads, "head_dim": shape.head_dim, "page": PAGE}
    if name is None:
        name = choose(attending.KERNEL, like.device, like.dtype, shapes).name
    return name, attending.load(name, like.device, like.dtype, shapes)
