"""The block decoder as plainly as it can be said: one part after another, one product after another."""

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.decoder.base import Part
from dllm_kernels.decoder.base import noisy_rows
from dllm_kernels.decoder.checks import check_pass
from dllm_kernels.decoder.checks import check_weights
from dllm_kernels.decoder.store import KeyValues
from dllm_kernels.decoder.weights import DecoderWeights
from dllm_kernels.int8 import ReferenceLinear
from dllm_kernels.int8 import quantise_weight


class ReferenceDecoder:
    """See :class:`~dllm_kernels.decoder.base.Decoder`. Any device and dtype; norms and attention in float32."""

    row_invariant = False

    def __init__(self, weights: DecoderWeights) -> None:
        check_weights(weights)
        self.weights = weights

    def new_store(self) -> KeyValues:
        """An empty row."""
        embedding = self.weights.embedding
        return KeyValues(self.weights.shape, embedding.device, embedding.dtype)

    @torch.inference_mode()
    def forward(self, tokens: Tensor, positions: Tensor, parts: Sequence[Part], noisy: Tensor | None = None) -> Tensor:
        """See :class:`~dllm_kernels.decoder.base.Decoder`."""
        check_pass(self.weights, KeyValues, tokens, positions, parts, noisy)
        open_rows = noisy_rows(noisy, self.weights)
        embedding = self.weights.embedding
        angles = torch.outer(positions.float().to(embedding.device), self.weights.frequencies)
        turns = torch.stack([angles.cos(), angles.sin()]) * self.weights.rope_scale
        found = torch.empty(len(tokens), embedding.shape[1], dtype=embedding.dtype, device=embedding.device)
        gate = torch.zeros(len(tokens), 1, dtype=torch.bool, device=embedding.device)
        if open_rows is not None:
            gate[open_rows] = True
        # A row's first part comes last, so that its keys stay.
        for part in reversed(parts):
            x = embedding[tokens[part.rows].to(embedding.device)]
            own = gate[part.rows]
            for index, layer in enumerate(self.weights.layers):
                x = x + self._attention(index, self._norm(x, layer.input_norm), turns[:, part.rows], part, own)
                x = x + self._mlp(index, self._norm(x, layer.post_norm), own)
            found[part.rows] = self._norm(x, self.weights.norm)
        return found

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, vocabulary] of hidden states [N, hidden]."""
        return self._linear(hidden, self.weights.head, None)

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.weights.shape.eps)
        return (scaled * weight.float()).to(x.dtype)

    def _gated(self, product: Tensor, x: Tensor, index: int, which: int, gate: Tensor) -> Tensor:
        """`product` of x, and what the low-rank pair adds where `gate` bool [n, 1] is true."""
        if self.weights.low_rank is None or not bool(gate.any()):
            return product
        down, up = self.weights.low_rank[index][which]
        added = F.linear(F.linear(x, down) * self.weights.low_rank_scale, up)
        return torch.where(gate, product + added, product)

    def _attention(self, index: int, x: Tensor, turns: Tensor, part: Part, gate: Tensor) -> Tensor:
        layer, shape = self.weights.layers[index], self.weights.shape
        fused = self._gated(self._linear(x, layer.qkv, layer.qkv_bias), x, index, 0, gate)
        fused = fused.float().view(len(x), -1, shape.head_dim)
        q, k, v = fused.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = self._norm(q, layer.q_norm), self._norm(k, layer.k_norm)
        store = cast(KeyValues, part.store)
        seen = F.pad(part.seen.to(x.device), (store.kept, 0), value=True)
        keys, values = store.write(index, _turn(k, turns), v)
        share = shape.heads // shape.kv_heads
        keys, values = (stored[:, : seen.shape[1]].float().repeat_interleave(share, dim=0) for stored in (keys, values))
        scores = _turn(q, turns).transpose(0, 1) @ keys.transpose(1, 2) * shape.head_dim**-0.5
        weights = scores.masked_fill(~seen, -torch.inf).softmax(dim=-1)
        mixed = (weights @ values).transpose(0, 1).flatten(1).to(x.dtype)
        return self._gated(self._linear(mixed, layer.out, layer.out_bias), mixed, index, 1, gate)

    def _mlp(self, index: int, x: Tensor, gate: Tensor) -> Tensor:
        layer = self.weights.layers[index]
        wide = self._gated(self._linear(x, layer.gate_up, layer.gate_up_bias), x, index, 2, gate)
        left, right = wide.chunk(2, dim=-1)
        inner = F.silu(left) * right
        return self._gated(self._linear(inner, layer.down, layer.down_bias), inner, index, 3, gate)


class Int8Reference(ReferenceDecoder):
    """The same with int8 linear layers and head, each by :class:`dllm_kernels.int8.ReferenceLinear`."""

    def __init__(self, weights: DecoderWeights) -> None:
        super().__init__(weights)
        self._quantised: dict[int, ReferenceLinear] = {}

    def _linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # The weights live as long as this does, so that an id means one of them.
        if id(weight) not in self._quantised:
            self._quantised[id(weight)] = ReferenceLinear(quantise_weight(weight, bias))
        return self._quantised[id(weight)](x)


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """Rotary embedding (arXiv 2104.09864) of [n, heads, head_dim]; turns [2, n, head_dim / 2]."""
    cosines, sines = turns.unsqueeze(2)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
