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
from dllm_kernels.dispatch import KernelError
from dllm_kernels.tiles import CHUNK

#: Attention sums over whole blocks of keys: what torch's fused kernel works on at once.
BLOCK = 4 * CHUNK


class Slots:
    """Which slots of a row's keys are kept, and which the last pass left behind them.

    :ivar length: frozen positions.
    :ivar held: kept positions behind them, until released.
    :ivar capacity: positions there is room for, kept ones included.
    :ivar keys: per layer, [kv_heads, capacity, head_dim]; `values` likewise.
    """

    #: Room is made in whole pages of so many positions,
    page: ClassVar[int] = 1
    #: and for such a part of them more, so that a growing prefix is seldom copied.
    spare: ClassVar[int] = 8

    def __init__(self) -> None:
        self.length = 0
        self.held = 0
        self.capacity = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._pending: list[int] = []

    @property
    def kept(self) -> int:
        """Positions that every token sees: frozen and held ones."""
        return self.length + self.held

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

    def pend(self, count: int) -> None:
        """The first `count` positions of this pass may be frozen, then held.

        :raises KernelError: if there is no room for as many.
        """
        if not 0 <= count <= self.capacity - self.kept:
            raise KernelError(f"{count} positions do not fit behind {self.kept} of {self.capacity}; reserve room first")
        self._pending = [*range(self.kept, self.kept + count)]

    @torch.inference_mode()
    def freeze(self, count: int) -> None:
        """The first `count` pending positions join the prefix; held ones go.

        :raises KernelError: if fewer are pending, or they were frozen already.
        """
        slots = self._first(count)
        if slots and slots[0] < self.length:
            raise KernelError("the last pass was frozen already; make another pass first")
        if slots and slots[0] != self.length:
            self._move(slots[:count], self.length)
            self._pending[:count] = range(self.length, self.length + count)
        self.length += count
        self.held = 0

    @torch.inference_mode()
    def hold(self, indices: Sequence[int]) -> None:
        """These pending positions are held, in place of the earlier ones; the others are lost.

        :raises KernelError: if they are not pending.
        """
        slots = self._first(max(indices, default=-1) + 1)
        if min(indices, default=0) < 0:
            raise KernelError(f"positions {list(indices)} are wanted; count them from 0 on")
        self._move([slots[index] for index in indices], self.length)
        self.held, self._pending = len(indices), []

    def release(self) -> None:
        """Forget what is held."""
        self.held = 0

    def _move(self, slots: Sequence[int], begin: int) -> None:
        """What stands at `slots` goes to begin, begin + 1, ..."""
        places = torch.tensor(list(slots), dtype=torch.int64)
        for tensor in [*self.keys, *self.values]:
            tensor[:, begin : begin + len(slots)] = tensor.index_select(1, places.to(tensor.device))

    def _refuse_more_than_frozen(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise KernelError(f"{length} positions of a prefix are wanted, {self.length} are frozen")

    def _first(self, count: int) -> list[int]:
        """The slots of what is pending, at least `count`."""
        if not 0 <= count <= len(self._pending):
            raise KernelError(f"{count} positions of the last pass are wanted, {len(self._pending)} are pending")
        return self._pending


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
