"""The gated low-rank denoiser as trainable parameters, and its differentiable forward.

Low-rank pairs (arXiv 2106.09685) on every linear layer of the base act at open rows
only. A small *draft head* then lets an open row know the token on its left, once that
is known: h' = h + W2 silu(W1 [h; e(left); e(left of left)]), in the spirit of the
sequential heads of DSpark and arXiv 2402.05109 (Hydra).
"""

import math
from dataclasses import fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn

from dllm_kernels.decoder import DecoderShape
from dllm_kernels.decoder import DecoderWeights
from dllm_kernels.decoder import StoredLayer
from dllm_plugins.denoisers.draft_head import unit_rms
from dllm_plugins.denoisers.low_rank import LINEARS
from dllm_plugins.denoisers.low_rank import low_rank_sizes

KeysAndValues = list[tuple[Tensor, Tensor]]


class LowRankDenoiser(nn.Module):
    """Float32 master weights. Parameter names are those of the shipped safetensors file."""

    def __init__(self, shape: DecoderShape, rank: int, chain: int, mask_start: Tensor) -> None:
        super().__init__()
        self.weights = nn.ParameterDict()
        for layer in range(shape.layers):
            for name, (inner, outer) in low_rank_sizes(shape).items():
                start = torch.randn(rank, inner) / math.sqrt(inner)
                self.weights[f"layers__{layer}__{name}__down"] = nn.Parameter(start)
                self.weights[f"layers__{layer}__{name}__up"] = nn.Parameter(torch.zeros(outer, rank))
        self.weights["mask_embedding"] = nn.Parameter(mask_start.clone())
        fan_in = 3 * shape.hidden
        self.weights["chain__down"] = nn.Parameter(torch.randn(chain, fan_in) / math.sqrt(fan_in))
        self.weights["chain__up"] = nn.Parameter(torch.zeros(shape.hidden, chain))

    def pair(self, layer: int, name: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The low-rank pair of one linear layer, cast for computing."""
        key = f"layers__{layer}__{name}"
        return self.weights[f"{key}__down"].to(dtype), self.weights[f"{key}__up"].to(dtype)

    def refine(self, hidden: Tensor, left: Tensor, left2: Tensor) -> Tensor:
        """The draft head: hidden, left and left2 are [N, hidden]; embeddings enter normed."""
        dtype = hidden.dtype
        inputs = torch.cat([hidden, unit_rms(left), unit_rms(left2)], dim=-1)
        inner = F.silu(F.linear(inputs, self.weights["chain__down"].to(dtype)))
        return hidden + F.linear(inner, self.weights["chain__up"].to(dtype))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


Low = tuple[Tensor, ...]
#: A layer's tensors in the order of their names here; torch.compile takes no object of ours.
FIELDS = tuple(field.name for field in fields(StoredLayer))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, low: Low | None, which: int, gate: Tensor | None) -> Tensor:
    out = F.linear(x, weight, bias)
    if low is None or gate is None:
        return out
    return out + F.linear(F.linear(x, low[2 * which]) * gate, low[2 * which + 1])


def _layer(
    x: Tensor,
    rotary: tuple[Tensor, Tensor],
    past: tuple[Tensor, Tensor] | None,
    mask: Tensor | None,
    layer: tuple[Any, ...],
    low: Low | None,
    gate: Tensor | None,
    shape: DecoderShape,
) -> tuple[Tensor, Tensor, Tensor]:
    """One decoder layer; returns x, keys and values of the new rows."""
    input_norm, qkv, out, post_norm, gate_up, down, *biases, q_norm, k_norm = layer
    batch, rows, _ = x.shape
    normed = F.rms_norm(x, (x.shape[-1],), input_norm, shape.eps)
    fused = _linear(normed, qkv, biases[0], low, 0, gate)
    widths = [shape.heads * shape.head_dim] + 2 * [shape.kv_heads * shape.head_dim]
    q, k, v = (part.view(batch, rows, -1, shape.head_dim).transpose(1, 2) for part in fused.split(widths, dim=-1))
    if q_norm is not None and k_norm is not None:
        q = F.rms_norm(q, (shape.head_dim,), q_norm, shape.eps)
        k = F.rms_norm(k, (shape.head_dim,), k_norm, shape.eps)
    q, k = _rotate(q, *rotary), _rotate(k, *rotary)
    keys, values = (k, v) if past is None else (torch.cat([past[0], k], dim=2), torch.cat([past[1], v], dim=2))
    seen = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, is_causal=mask is None, enable_gqa=True)
    x = x + _linear(seen.transpose(1, 2).reshape(batch, rows, -1), out, biases[1], low, 1, gate)
    normed = F.rms_norm(x, (x.shape[-1],), post_norm, shape.eps)
    left, right = _linear(normed, gate_up, biases[2], low, 2, gate).chunk(2, dim=-1)
    return x + _linear(F.silu(left) * right, down, biases[3], low, 3, gate), k, v


def _rotary_table(base: DecoderWeights, length: int) -> Tensor:
    """Cosines and sines of the rotary embedding, [2, length, head_dim] (arXiv 2104.09864)."""
    angles = torch.outer(torch.arange(length, dtype=torch.float32), base.frequencies.cpu())
    doubled = torch.cat([angles, angles], dim=-1)
    return (torch.stack([doubled.cos(), doubled.sin()]) * base.rope_scale).to(base.embedding)


class Trunk:
    """The frozen base, forwarded over padded batches.

    :param length: most positions.
    :param compiled: fuse the elementwise work with torch.compile; needs a C++ compiler.
    """

    def __init__(self, base: DecoderWeights, length: int, compiled: bool = False) -> None:
        self.base = base
        self.rotary = _rotary_table(base, length)
        self._layers = [tuple(getattr(layer, name) for name in FIELDS) for layer in base.layers]
        self._layer = torch.compile(_layer, dynamic=True) if compiled else _layer

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        past: KeysAndValues | None = None,
        denoiser: LowRankDenoiser | None = None,
        gate: Tensor | None = None,
    ) -> tuple[Tensor, KeysAndValues]:
        """X [A, R, hidden], positions int64 [A, R], mask bool [A, 1, R, P + R] or None for causal.

        :param gate: [A, R, 1], the low-rank scale at open rows and 0 elsewhere.
        :returns: normed hidden states [A, R, hidden]; keys and values, each [A, KV, R, D].
        """
        rotary = (self.rotary[0][positions].unsqueeze(1), self.rotary[1][positions].unsqueeze(1))
        kept: KeysAndValues = []
        for index, weights in enumerate(self._layers):
            low = None
            if denoiser is not None:
                low = tuple(part for name in LINEARS for part in denoiser.pair(index, name, x.dtype))
            behind = None if past is None else past[index]
            x, k, v = self._layer(x, rotary, behind, mask, weights, low, gate, self.base.shape)
            kept.append((k, v))
        return F.rms_norm(x, (x.shape[-1],), self.base.norm, self.base.shape.eps), kept
