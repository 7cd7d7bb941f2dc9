"""Weights as the compiled decoder reads them: where they lie already, with norms and biases in float32.

In int8 they are copies, on a rotated residual stream; see :mod:`~dllm_kernels.decoder.rotation`.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import Weight
from dllm_kernels.compiled import library
from dllm_kernels.compiled import structures
from dllm_kernels.decoder.checks import check_weights
from dllm_kernels.decoder.rotation import ROWS
from dllm_kernels.decoder.rotation import Rotation
from dllm_kernels.decoder.rotation import rotated_embedding
from dllm_kernels.decoder.rotation import rotated_layer
from dllm_kernels.decoder.weights import AnyLayer
from dllm_kernels.decoder.weights import AnyWeights
from dllm_kernels.decoder.weights import LowRankPair
from dllm_kernels.dispatch import KernelError
from dllm_kernels.int8 import quantise_rows

#: Bytes of a cache line.
LINE = 64
#: Outputs that lie side by side in low-rank pairs behind blocks; see WIDE in coded.hpp.
PANEL = 16
#: How the activations of int8 products are shifted to be unsigned, as AVX-512 VNNI wants them.
OFFSET = 128
#: Layers at both ends whose `down` is not quantised. What goes into it there has a few numbers a
#: hundred times the others (massive activations, arXiv 2402.17762), which a rotation cannot reach.
FIRST, LAST = 3, 2


@dataclass(slots=True)
class Packed:
    """Structures for C++ and the tensors they point to.

    :param embedding: what the structures point to, for lookups.
    :param kept: keeps alive what has no other owner.
    """

    embedding: Weight

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

    def linear(
        self,
        weight: Weight,
        bias: Tensor | None,
        pair: LowRankPair | None,
        int8: bool,
        rotate: Callable[[Tensor], Tensor] = Tensor.float,
    ) -> structures.Linear:
        """A linear layer [out, in]; one in blocks stays in them.

        :param rotate: what to do with rows before they are quantised.
        :raises KernelError: for numbers that int8 cannot hold.
        """
        made = structures.Linear(bias=self.narrow(bias), outputs=weight.shape[0], inputs=weight.shape[1])
        if pair is not None:
            made.down = self.address(aligned(pair.down))
            if isinstance(weight, Blocks) and weight.coded:
                made.turned = self.address(_turned(pair.up))
            else:
                made.up = self.address(aligned(pair.up))
        if isinstance(weight, Blocks):
            made.blocks, made.kind = self.address(weight.data.contiguous()), weight.kind
            made.coded = int(weight.coded)
        elif int8:
            levels, scale = _quantised(weight, rotate)
            made.levels, made.scale = self.address(levels), self.address(scale)
            made.offset = self.address(levels.sum(-1, dtype=torch.int32) * OFFSET)
        else:
            made.weight = self.address(aligned(weight))
        return made


def _turned(up: Tensor) -> Tensor:
    """A matrix [out, r] in panels, units of 32 bits [out / PANEL, r / numbers of a unit, PANEL], zeros at its end."""
    units = F.pad(up.contiguous().view(torch.int32), (0, 0, 0, -len(up) % PANEL))
    return units.view(-1, PANEL, units.shape[1]).transpose(1, 2).contiguous()


def _quantised(weight: Tensor, rotate: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Levels int8 [out, in] and scales float32 [out], some rows after others: heads are large in float32."""
    levels, scale = torch.empty(weight.shape, dtype=torch.int8), torch.empty(len(weight))
    for begin in range(0, len(weight), ROWS):
        part = rotate(weight[begin : begin + ROWS])
        if not bool(part.isfinite().all()):
            shape = tuple(weight.shape)
            raise KernelError(f"weight {shape} holds numbers that are not finite, and int8 cannot; leave int8 out")
        levels[begin : begin + ROWS], scale[begin : begin + ROWS] = quantise_rows(part)
    return levels, scale


def pack(weights: AnyWeights, rotation: Rotation | None = None) -> Packed:
    """Structures for a whole decoder.

    :param rotation: given for int8: the residual stream and what the head reads are rotated by it.
        Weights that were given are emptied one by one, and the embedding is rotated in place.
    :raises KernelError: for weights of other sizes than their shape's, or that C++ does not
        compute, and for numbers that int8 cannot hold.
    """
    weights = _computable(weights)
    packed = Packed(weights.embedding)
    layers = (structures.Layer * len(weights.layers))()
    for place, layer in enumerate(weights.layers):
        pairs = (None,) * 4 if weights.low_rank is None else weights.low_rank[place]
        at_end = place < FIRST or place >= len(weights.layers) - LAST
        layers[place] = _packed_layer(packed, layer, pairs, rotation, at_end)
        if rotation is not None and weights.given:
            _empty(layer.qkv, layer.out, layer.gate_up, layer.down)
            library.trim()
    if rotation is None:
        packed.head = packed.linear(weights.head, None, None, int8=False)
    else:
        embedding, head = weights.plain_ends()
        packed.head = packed.linear(head, None, None, int8=True, rotate=rotation.rotate)
        _rotate_embedding(packed, weights, embedding, rotation)
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
        embedding=_embedding(packed, packed.embedding),
        norm=packed.narrow(weights.norm if rotation is None else torch.ones_like(weights.norm)),
        layer=layers,
    )
    return packed


def _embedding(packed: Packed, weight: Weight) -> structures.Embedding:
    if isinstance(weight, Blocks):
        further, data = packed.address(weight.plain), packed.address(weight.data.contiguous())
        return structures.Embedding(plain=further, blocks=data, kind=weight.kind, coded=len(weight.data))
    return structures.Embedding(plain=packed.address(weight.contiguous()))


def _computable(weights: AnyWeights) -> AnyWeights:
    """The weights, with low-rank pairs of an even rank, as bfloat16 is multiplied in pairs."""
    check_weights(weights)
    like, shape = weights.embedding, weights.shape
    if like.device.type != "cpu" or like.dtype not in (torch.float32, torch.bfloat16):
        raise KernelError(
            f"the compiled kernels compute float32 or bfloat16 on the cpu, not {like.dtype} on {like.device}"
        )
    if like.dtype == torch.float32:
        return weights
    odd = [name for name in ("hidden", "intermediate") if getattr(shape, name) % 2]
    if odd:
        raise KernelError(f"{odd[0]}={getattr(shape, odd[0])} must be even, as bfloat16 is multiplied in pairs")
    if weights.low_rank is None or len(weights.low_rank[0][0].down) % 2 == 0:
        return weights
    even = tuple(
        tuple(LowRankPair(F.pad(pair.down, (0, 0, 0, 1)), F.pad(pair.up, (0, 1))) for pair in layer)
        for layer in weights.low_rank
    )
    return replace(weights, low_rank=even)


def _rotate_embedding(packed: Packed, weights: AnyWeights, embedding: Tensor, rotation: Rotation) -> None:
    own = weights.given or embedding is not weights.embedding
    packed.embedding = rotated_embedding(embedding, rotation, in_place=own)
    if weights.given and not weights.tied:
        _empty(weights.head)
    library.trim()


def _empty(*matrices: Weight) -> None:
    """Let go of matrices; those in blocks are a file's."""
    for matrix in matrices:
        if isinstance(matrix, Tensor):
            matrix.data = matrix.new_empty(0)


def _packed_layer(
    packed: Packed,
    layer: AnyLayer,
    pairs: Sequence[LowRankPair | None],
    rotation: Rotation | None,
    at_end: bool,
) -> structures.Layer:
    if rotation is None:
        return _layer(packed, layer, pairs, int8=False, int8_down=False)
    rotated, pairs = rotated_layer(layer.plain(), pairs, rotation)
    if at_end:
        rotated = replace(rotated, down=rotated.down.to(layer.down.dtype))
    return _layer(packed, rotated, pairs, int8=True, int8_down=not at_end)


def _layer(
    packed: Packed, layer: AnyLayer, pairs: Sequence[LowRankPair | None], int8: bool, int8_down: bool
) -> structures.Layer:
    return structures.Layer(
        input_norm=packed.narrow(layer.input_norm),
        post_norm=packed.narrow(layer.post_norm),
        q_norm=packed.narrow(layer.q_norm),
        k_norm=packed.narrow(layer.k_norm),
        qkv=packed.linear(layer.qkv, layer.qkv_bias, pairs[0], int8),
        out=packed.linear(layer.out, layer.out_bias, pairs[1], int8),
        gate_up=packed.linear(layer.gate_up, layer.gate_up_bias, pairs[2], int8),
        down=packed.linear(layer.down, layer.down_bias, pairs[3], int8_down),
    )


def aligned(weight: Tensor) -> Tensor:
    """Rows one behind another from the beginning of a cache line on: the tensor itself where it is so.

    Views of a file begin anywhere; every load that crosses a line costs two.
    """
    weight = weight.contiguous()
    return weight if weight.data_ptr() % LINE == 0 else weight.clone()
