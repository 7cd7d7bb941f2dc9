"""Keys and values of one row, in place: the prefix, held keys of an approximate cache, the last pass.

A pass writes right behind what is kept, over what the pass before left there; freezing
mostly moves a mark. A key's slot is the same whether its block is forwarded alone or
behind another, so attention over a row is reduced in one fixed order.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from dllm_kernels.decoder.weights import DecoderShape
from dllm_kernels.marks import Marks
from dllm_kernels.tiles import CHUNK

#: Attention sums over whole blocks of keys: what torch's fused kernel works on at once.
BLOCK = 4 * CHUNK


class Slots(Marks):
    """A row's keys and values in tensors of its own.

    :ivar capacity: positions there is room for, kept ones included.
    :ivar keys: per layer, [kv_heads, capacity, head_dim]; `values` likewise.
    """

    #: Room is made in whole pages of so many positions,
    page: ClassVar[int] = 1
    #: and for such a part of them more, so that a growing prefix is seldom copied.
    spare: ClassVar[int] = 8
    capacity: int = 0

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    @property
    def nbytes(self) -> int:
        """Memory of the store."""
        return sum(tensor.nbytes for tensor in [*self.keys, *self.values])

    def room(self, positions: int) -> int:
        """The most positions there is room for once it has held so many."""
        return self._whole(positions + positions // self.spare)

    def _larger(self, rows: int) -> int:
        """Its next capacity, with room for `rows` positions behind what is kept; the one it has if that will do."""
        needed = self.kept + rows
        if needed <= self.capacity:
            return self.capacity
        return self._whole(max(needed, self.capacity + self.capacity // self.spare))

    def _whole(self, positions: int) -> int:
        return -(-positions // self.page) * self.page

    @torch.inference_mode()
    def _move(self, places: Sequence[int]) -> None:
        begin, index = self.length, torch.tensor(list(places), dtype=torch.int64)
        for tensor in [*self.keys, *self.values]:
            tensor[:, begin : begin + len(places)] = tensor.index_select(1, index.to(tensor.device))


class KeyValues(Slots):
    """Per layer, keys and values of `dtype` [kv_heads, capacity, head_dim]; capacity is whole blocks.

    :param devices: of each layer.
    """

    page = BLOCK
    spare = 4

    def __init__(self, shape: DecoderShape, devices: Sequence[torch.device], dtype: torch.dtype) -> None:
        super().__init__()
        self.shape = shape
        self.devices = devices
        self.dtype = dtype

    @torch.inference_mode()
    def reserve(self, rows: int) -> None:
        """Make room for `rows` positions behind what is kept; what was pending is lost if the store grows."""
        larger = self._larger(rows)
        if larger == self.capacity:
            return
        self.capacity = larger
        size = (self.shape.kv_heads, self.capacity, self.shape.head_dim)
        for store in (self.keys, self.values):
            for layer, device in enumerate(self.devices):
                # Zeros, because a hidden value times a weight of zero must be zero.
                grown = torch.zeros(size, dtype=self.dtype, device=device)
                if layer < len(store):
                    grown[:, : self.kept] = store[layer][:, : self.kept]
                    store[layer] = grown
                else:
                    store.append(grown)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put [rows, kv_heads, head_dim] behind what is kept; returns whole blocks of keys and values."""
        end = self.kept + len(keys)
        self.keys[layer][:, self.kept : end] = keys.transpose(0, 1)
        self.values[layer][:, self.kept : end] = values.transpose(0, 1)
        padded = whole_blocks(end)
        return self.keys[layer][:, :padded], self.values[layer][:, :padded]

    @torch.inference_mode()
    def copy(self, length: int) -> "KeyValues":
        """A store of its own that holds the first `length` positions of this prefix.

        :raises KernelError: if fewer are frozen.
        """
        self._refuse_more_than_frozen(length)
        made = KeyValues(self.shape, self.devices, self.dtype)
        if not length:
            return made
        made.reserve(length)
        for new, old in zip([*made.keys, *made.values], [*self.keys, *self.values], strict=True):
            new[:, :length] = old[:, :length]
        made.length = length
        return made


def whole_blocks(length: int) -> int:
    """The next multiple of BLOCK."""
    return -(-length // BLOCK) * BLOCK
