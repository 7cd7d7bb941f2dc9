"""The block decoder in torch alone: what is computed, said once; the others are held to it.

It runs wherever torch does, also with layers on several devices. Rows of unequal lengths lie one
behind another, so that a layer is four products for all of them; only the end of the whole pass is
padded. On CPUs it is row-invariant: products and attention are those of
:mod:`~dllm_kernels.decoder.products` and :mod:`~dllm_kernels.decoder.attention`, and everything
else is done row by row. Three forms of the weights (:mod:`~dllm_kernels.decoder.matrices`) make
three decoders.
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
from dllm_kernels.decoder.base import Decoder
from dllm_kernels.decoder.base import Part
from dllm_kernels.decoder.base import noisy_rows
from dllm_kernels.decoder.checks import check_pass
from dllm_kernels.decoder.checks import check_weights
from dllm_kernels.decoder.layers import Layer
from dllm_kernels.decoder.layers import head_of
from dllm_kernels.decoder.layers import layers_of
from dllm_kernels.decoder.matrices import Form
from dllm_kernels.decoder.products import STEP
from dllm_kernels.decoder.products import Products
from dllm_kernels.decoder.rotary import Rotary
from dllm_kernels.decoder.rotary import rotated
from dllm_kernels.decoder.store import KeyValues
from dllm_kernels.decoder.store import whole_blocks
from dllm_kernels.decoder.weights import AnyWeights
from dllm_kernels.decoder.weights import devices_of
from dllm_kernels.dispatch import Shapes
from dllm_kernels.tiles import pad_rows


@dataclass(frozen=True, slots=True)
class _Masked:
    """A part, and which keys of its store's whole blocks it sees."""

    store: KeyValues
    rows: slice
    mask: Mask


@dataclass(frozen=True, slots=True)
class _Pass:
    """What all layers of one device share; `noisy` are indices, None where no low-rank pair acts."""

    device: torch.device
    rotary: Tensor
    parts: list[_Masked]
    noisy: Tensor | None


class PlainDecoder(Decoder):
    """See :class:`~dllm_kernels.decoder.base.Decoder`. Weights as they are: nothing is copied.

    :param weights: each layer on the device it runs on.
    """

    form: ClassVar[Form] = "plain"
    copies: ClassVar[bool] = False
    #: Dtypes in which its products are row-invariant on CPUs.
    invariant: ClassVar[tuple[torch.dtype, ...]] = (torch.float32, torch.bfloat16, torch.float16)

    def __init__(self, weights: AnyWeights) -> None:
        check_weights(weights, spread=True)
        # Blocks whose rows are coded have a product of their own.
        self.weights = weights if weights.coded else cast(AnyWeights, weights.plain())
        weights = self.weights
        self._devices = devices_of(weights)
        dtype, sizes = weights.embedding.dtype, weights.shape.sizes()
        places = {*self._devices, weights.embedding.device}
        self.row_invariant = all(self.promises(device, dtype, sizes) for device in places)
        self._products = Products()
        self._attend = Attention()
        self._rotary = Rotary(weights.frequencies, weights.rope_scale)
        self._layers = layers_of(weights, self.form)
        self._head = head_of(weights, self.form)

    @classmethod
    def promises(cls, device: torch.device, dtype: torch.dtype, sizes: Shapes) -> bool:
        """On CPUs; scores of heads 6 or 10 wide were seen to depend on the query's place in its tile."""
        return device.type == "cpu" and dtype in cls.invariant and sizes["head_dim"] % 8 == 0

    def new_store(self) -> KeyValues:
        """An empty row."""
        return KeyValues(self.weights.shape, self._devices, self.weights.embedding.dtype)

    @torch.inference_mode()
    def forward(self, tokens: Tensor, positions: Tensor, parts: Sequence[Part], noisy: Tensor | None = None) -> Tensor:
        """See :class:`~dllm_kernels.decoder.base.Decoder`."""
        check_pass(self.weights, KeyValues, tokens, positions, parts, noisy)
        open_rows = noisy_rows(noisy, self.weights)
        x = pad_rows(self.embed(tokens), STEP)
        rotary, shared = self._rotary(positions, len(x)), None
        for index, layer in enumerate(self._layers):
            if shared is None or shared.device != self._devices[index]:
                shared = self._shared(self._devices[index], rotary, parts, open_rows)
                x = x.to(shared.device)
            x = x + self._attention(index, layer, x, shared)
            x = x + self._mlp(layer, x, shared)
        return self._norm(x.to(self.weights.norm.device), self.weights.norm)[: len(tokens)]

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [N, vocabulary] of hidden states [N, hidden]."""
        return self._products(pad_rows(hidden, STEP), self._head)[: len(hidden)]

    def _shared(self, device: torch.device, rotary: Tensor, parts: Sequence[Part], noisy: Tensor | None) -> _Pass:
        # A row's first part comes last, so that its keys stay.
        masked = [self._masked(part, device) for part in reversed(parts)]
        return _Pass(device, rotary.to(device), masked, None if noisy is None else noisy.to(device))

    def _masked(self, part: Part, device: torch.device) -> _Masked:
        store, rows = cast(KeyValues, part.store), len(part.seen)
        end = store.kept + rows
        seen = torch.zeros(rows, whole_blocks(end), dtype=torch.bool, device=device)
        seen[:, : store.kept] = True
        seen[:, store.kept : end] = part.seen
        shape = self.weights.shape
        return _Masked(store, part.rows, Mask(seen, shape.heads // shape.kv_heads, self.weights.embedding.dtype))

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.weights.shape.eps)

    def _attention(self, index: int, layer: Layer, x: Tensor, shared: _Pass) -> Tensor:
        shape = self.weights.shape
        normed = self._norm(x, layer.input_norm)
        fused = self._with_pair(self._products(normed, layer.qkv), normed, layer, 0, shared.noisy)
        q, k, v = (
            fused.float().view(len(x), -1, shape.head_dim).split([shape.heads, shape.kv_heads, shape.kv_heads], dim=1)
        )
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = self._norm(q, layer.q_norm), self._norm(k, layer.k_norm)
        q, k = rotated(q, shared.rotary).to(x.dtype), rotated(k, shared.rotary)
        seen = x.new_zeros(len(x), shape.heads * shape.head_dim)
        for part in shared.parts:
            keys, values = part.store.write(index, k[part.rows], v[part.rows])
            seen[part.rows] = self._attend(q[part.rows], keys, values, part.mask)
        return self._with_pair(self._products(seen, layer.out), seen, layer, 1, shared.noisy)

    def _mlp(self, layer: Layer, x: Tensor, shared: _Pass) -> Tensor:
        normed = self._norm(x, layer.post_norm)
        wide = self._with_pair(self._products(normed, layer.gate_up), normed, layer, 2, shared.noisy)
        gate, up = wide.chunk(2, dim=-1)
        inner = F.silu(gate) * up
        return self._with_pair(self._products(inner, layer.down), inner, layer, 3, shared.noisy)

    def _with_pair(self, product: Tensor, x: Tensor, layer: Layer, which: int, noisy: Tensor | None) -> Tensor:
        """`product` of x with what the low-rank pair adds at noisy rows; clean ones keep their bits."""
        if noisy is None:
            return product
        pair = layer.pairs[which]
        narrow = self._products(pad_rows(x.index_select(0, noisy), STEP), pair.down)
        added = self._products(narrow * self.weights.low_rank_scale, pair.up)
        return product.index_add_(0, noisy, added[: len(noisy)])


class PackedDecoder(PlainDecoder):
    """Weights in oneDNN's own order; tied heads stay plain, as the embedding is needed anyway."""

    form = "packed"
    copies = True


class Int8Decoder(PlainDecoder):
    """Linear layers and the head in int8, low-rank pairs and everything else as they are."""

    form = "int8"
    copies = True
    invariant = (torch.float32, torch.bfloat16)
