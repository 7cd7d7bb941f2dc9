"""Weights as the compiled decoder reads them: where they lie already, with norms and biases in float32."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import torch
from torch import Tensor

from dllm_kernels.compiled import structures
from dllm_kernels.decoder.weights import DecoderWeights
from dllm_kernels.decoder.weights import LayerWeights
from dllm_kernels.decoder.weights import LowRankPair
from dllm_kernels.int8 import quantise_rows

#: How the activations of int8 products are shifted to be unsigned, as AVX-512 VNNI wants them.
OFFSET = 128


@dataclass(slots=True)
class Packed:
    """Structures for C++ and the tensors they point to.

    :param kept: keeps alive what has no other owner.
    """

    model: structures.Model = field(default_factory=structures.Model)
    head: structures.Linear = field(default_factory=structures.Linear)
    kept: list[Any] = field(default_factory=list)

    def address(self, tensor: Tensor | None) -> int | None:
        """Where a tensor begins; it stays alive."""
        if tensor is None:
            return None
        self.kept.append(tensor)
        return tensor.data_ptr()

    def narrow(self, tensor: Tensor | None) -> int | None:
        """Where a float32 copy of a norm or bias begins."""
        return None if tensor is None else self.address(tensor.float().contiguous())

    def linear(self, weight: Tensor, bias: Tensor | None, pair: LowRankPair | None, int8: bool) -> structures.Linear:
        """A linear layer [out, in]."""
        made = structures.Linear(bias=self.narrow(bias), outputs=weight.shape[0], inputs=weight.shape[1])
        if pair is not None:
            made.down, made.up = self.address(pair.down.contiguous()), self.address(pair.up.contiguous())
        if int8:
            levels, scale = quantise_rows(weight)
            made.levels, made.scale = self.address(levels), self.address(scale)
            made.offset = self.address(levels.sum(-1, dtype=torch.int32) * OFFSET)
        else:
            made.weight = self.address(weight.contiguous())
        return made


def pack(weights: DecoderWeights, int8: bool) -> Packed:
    """Structures for a whole decoder."""
    packed = Packed()
    layers = (structures.Layer * len(weights.layers))()
    for place, layer in enumerate(weights.layers):
        pairs = (None,) * 4 if weights.low_rank is None else weights.low_rank[place]
        layers[place] = _layer(packed, layer, pairs, int8)
    shape = weights.shape
    packed.model = structures.Model(
        layers=shape.layers,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate=shape.intermediate,
        rank=0 if weights.low_rank is None else weights.low_rank[0][0].down.shape[0],
        eps=shape.eps,
        low_rank_scale=weights.low_rank_scale,
        embedding=packed.address(weights.embedding.contiguous()),
        norm=packed.narrow(weights.norm),
        layer=layers,
    )
    packed.head = packed.linear(weights.head, None, None, int8)
    return packed


def _layer(packed: Packed, layer: LayerWeights, pairs: Sequence[LowRankPair | None], int8: bool) -> structures.Layer:
    return structures.Layer(
        input_norm=packed.narrow(layer.input_norm),
        post_norm=packed.narrow(layer.post_norm),
        q_norm=packed.narrow(layer.q_norm),
        k_norm=packed.narrow(layer.k_norm),
        qkv=packed.linear(layer.qkv, layer.qkv_bias, pairs[0], int8),
        out=packed.linear(layer.out, layer.out_bias, pairs[1], int8),
        gate_up=packed.linear(layer.gate_up, layer.gate_up_bias, pairs[2], int8),
        down=packed.linear(layer.down, layer.down_bias, pairs[3], int8),
    )
