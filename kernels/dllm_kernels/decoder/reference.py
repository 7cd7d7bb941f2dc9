"""The block decoder as plainly as it can be said: one part after another, one product after another."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.decoder.base import Part
from dllm_kernels.decoder.weights import DecoderWeights
from dllm_kernels.decoder.weights import LayerWeights


class ReferenceDecoder:
    """See :class:`~dllm_kernels.decoder.base.Decoder`. Any device and dtype; norms and attention in float32."""

    row_invariant = False

    def __init__(self, weights: DecoderWeights) -> None:
        self.weights = weights

    @torch.inference_mode()
    def forward(self, tokens: Tensor, positions: Tensor, parts: Sequence[Part]) -> Tensor:
        """See :class:`~dllm_kernels.decoder.base.Decoder`."""
        embedding = self.weights.embedding
        angles = torch.outer(positions.float().to(embedding.device), self.weights.frequencies)
        turns = torch.stack([angles.cos(), angles.sin()]) * self.weights.rope_scale
        found = torch.empty(len(tokens), embedding.shape[1], dtype=embedding.dtype, device=embedding.device)
        # A row's first part comes last, so that its keys stay.
        for part in reversed(parts):
            x = embedding[tokens[part.rows].to(embedding.device)]
            for index, layer in enumerate(self.weights.layers):
                x = x + self._attention(index, self._norm(x, layer.input_norm), turns[:, part.rows], part)
                x = x + self._mlp(layer, self._norm(x, layer.post_norm))
            found[part.rows] = self._norm(x, self.weights.norm)
        return found

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, vocabulary] of hidden states [N, hidden]."""
        return F.linear(hidden, self.weights.head)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.weights.shape.eps)
        return (scaled * weight.float()).to(x.dtype)

    def _attention(self, index: int, x: Tensor, turns: Tensor, part: Part) -> Tensor:
        layer, shape = self.weights.layers[index], self.weights.shape
        fused = F.linear(x, layer.qkv, layer.qkv_bias).float().view(len(x), -1, shape.head_dim)
        q, k, v = fused.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = self._norm(q, layer.q_norm), self._norm(k, layer.k_norm)
        end = part.seen.shape[1]
        keys, values = part.store.write(index, _turn(k, turns), v)
        share = shape.heads // shape.kv_heads
        keys, values = (stored[:, :end].repeat_interleave(share, dim=0) for stored in (keys, values))
        scores = _turn(q, turns).transpose(0, 1) @ keys.transpose(1, 2) * shape.head_dim**-0.5
        weights = scores.masked_fill(~part.seen.to(scores.device), -torch.inf).softmax(dim=-1)
        mixed = (weights @ values).transpose(0, 1).flatten(1)
        return F.linear(mixed.to(x.dtype), layer.out, layer.out_bias)

    @staticmethod
    def _mlp(layer: LayerWeights, x: Tensor) -> Tensor:
        gate, up = F.linear(x, layer.gate_up, layer.gate_up_bias).chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, layer.down, layer.down_bias)


def _turn(x: Tensor, turns: Tensor) -> Tensor:
    """Rotary embedding (arXiv 2104.09864) of [n, heads, head_dim]; turns [2, n, head_dim / 2]."""
    cosines, sines = turns.unsqueeze(2)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
