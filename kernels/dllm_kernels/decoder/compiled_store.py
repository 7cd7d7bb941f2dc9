"""Keys and values as the compiled decoder reads them: sixteen keys or two values side by side.

The layouts are written down in compiled/source/attention.hpp.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from dllm_kernels.decoder.store import KeyValues
from dllm_kernels.decoder.weights import DecoderShape

#: Keys of a chunk, and what head sizes are padded to.
CHUNK = 16


class CompiledStore(KeyValues):
    """Per layer, keys [kv_heads, capacity / 16, size / per, 16, per], values [kv_heads, capacity / per, size, per].

    `per` is 2 in bfloat16 and 1 in float32; size is head_dim in whole sixteens, the rest zeros.
    """

    page = CHUNK
    spare = 8

    def __init__(self, shape: DecoderShape, dtype: torch.dtype) -> None:
        super().__init__(shape, [torch.device("cpu")] * shape.layers, dtype)
        self._per = 2 if dtype == torch.bfloat16 else 1
        self._pointers: tuple[ctypes.Array[ctypes.c_void_p], ctypes.Array[ctypes.c_void_p]] | None = None

    @property
    def pointers(self) -> tuple[int, int]:
        """Addresses of the arrays of the layers' keys and values; good until the store grows."""
        if self._pointers is None:
            array = ctypes.c_void_p * self.shape.layers
            self._pointers = (
                array(*(tensor.data_ptr() for tensor in self.keys)),
                array(*(tensor.data_ptr() for tensor in self.values)),
            )
        keys, values = self._pointers
        return ctypes.addressof(keys), ctypes.addressof(values)

    @torch.inference_mode()
    def reserve(self, rows: int) -> None:
        """Make room for `rows` positions behind what is kept; what was pending is lost if the store grows."""
        larger = self._larger(rows)
        if larger == self.capacity:
            return
        self.capacity = larger
        per, size = self._per, _whole(self.shape.head_dim)
        heads, chunks = self.shape.kv_heads, self.capacity // CHUNK
        self._grow(self.keys, (heads, chunks, size // per, CHUNK, per))
        self._grow(self.values, (heads, self.capacity // per, size, per))
        self._pointers = None

    def _grow(self, store: list[Tensor], size: tuple[int, ...]) -> None:
        for layer in range(self.shape.layers):
            # Zeros, because a hidden value times a weight of zero must be zero.
            grown = torch.zeros(size, dtype=self.dtype)
            if layer < len(store):
                grown[:, : store[layer].shape[1]] = store[layer]
                store[layer] = grown
            else:
                store.append(grown)

    @torch.inference_mode()
    def copy(self, length: int) -> "CompiledStore":
        """A store of its own that holds the first `length` positions of this prefix.

        :raises KernelError: if fewer are frozen.
        """
        self._refuse_more_than_frozen(length)
        made = CompiledStore(self.shape, self.dtype)
        if not length:
            return made
        made.reserve(length)
        chunks = -(-length // CHUNK)
        for new, old in zip(made.keys, self.keys, strict=True):
            new[:, :chunks] = old[:, :chunks]
        for new, old in zip(made.values, self.values, strict=True):
            new[:, : chunks * CHUNK // self._per] = old[:, : chunks * CHUNK // self._per]
        made.length = length
        return made

    @torch.inference_mode()
    def _move(self, places: Sequence[int]) -> None:
        if not places:
            return
        old, new = torch.tensor(list(places)), torch.arange(self.length, self.length + len(places))
        for tensors, width, axis in ((self.keys, CHUNK, 3), (self.values, self._per, 3)):
            for tensor in tensors:
                by_slot = tensor.movedim(axis, 2)
                by_slot[:, new // width, new % width] = by_slot[:, old // width, old % width].clone()


def _whole(length: int) -> int:
    return -(-length // CHUNK) * CHUNK
