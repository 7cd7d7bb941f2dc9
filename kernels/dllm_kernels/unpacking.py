"""What blocks say, number by number, in plain torch: the layouts of ggml-org/ggml ggml-common.h.

Numbers of four to six bits stand in the halves of bytes, with further bits elsewhere; a number times its scale, and
the least value added, is the weight. Every product is exact in float32, and the sum is rounded once.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Unpack = Callable[[Tensor], Tensor]


def halves(raw: Tensor) -> Tensor:
    """Float32 [n, 1] of the bytes [n, 2] of float16 numbers."""
    return raw.contiguous().view(torch.float16).float()


def _fours(bytes_: Tensor) -> Tensor:
    """The numbers of small blocks: the lower halves of bytes [n, 16] are the first ones; uint8 [n, 32]."""
    return torch.cat([bytes_ & 15, bytes_ >> 4], dim=1)


def _fives(fifth: Tensor, bytes_: Tensor) -> Tensor:
    """The same with a fifth bit each in bytes [n, 4], the lowest bit first."""
    bits = (fifth[:, :, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    return _fours(bytes_) | (bits.flatten(1) << 4)


def _q4_0(blocks: Tensor) -> Tensor:
    return (_fours(blocks[:, 2:]).float() - 8) * halves(blocks[:, :2])


def _q4_1(blocks: Tensor) -> Tensor:
    return _fours(blocks[:, 4:]).float() * halves(blocks[:, :2]) + halves(blocks[:, 2:4])


def _q5_0(blocks: Tensor) -> Tensor:
    return (_fives(blocks[:, 2:6], blocks[:, 6:]).float() - 16) * halves(blocks[:, :2])


def _q5_1(blocks: Tensor) -> Tensor:
    numbers = _fives(blocks[:, 4:8], blocks[:, 8:])
    return numbers.float() * halves(blocks[:, :2]) + halves(blocks[:, 2:4])


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].contiguous().view(torch.int8).float() * halves(blocks[:, :2])


def _large(blocks: Tensor, begin: int) -> Tensor:
    """Large blocks of four bits a number, of five where their bytes begin at 48."""
    low, middle, high = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    factors = torch.cat([low & 63, (high & 15) | (low >> 6 << 4)], dim=1).float() * halves(blocks[:, :2])
    least = torch.cat([middle & 63, (high >> 4) | (middle >> 6 << 4)], dim=1).float() * halves(blocks[:, 2:4])
    bytes_ = blocks[:, begin:].reshape(-1, 4, 32)
    numbers = torch.stack([bytes_ & 15, bytes_ >> 4], dim=2).view(-1, 8, 32)
    if begin == 48:
        fifth = blocks[:, None, 16:48] >> torch.arange(8, dtype=torch.uint8)[:, None]
        numbers = numbers | ((fifth & 1) << 4)
    return (numbers.float() * factors[:, :, None] - least[:, :, None]).flatten(1)


def _q6_k(blocks: Tensor) -> Tensor:
    fours, twos = blocks[:, :128].reshape(-1, 2, 2, 32), blocks[:, 128:192].reshape(-1, 2, 1, 32)
    # By half of the block, by half of a byte, by which 32 bytes: as the numbers stand.
    low = torch.stack([fours & 15, fours >> 4], dim=2).view(-1, 2, 4, 32)
    high = (twos >> torch.tensor([0, 2, 4, 6], dtype=torch.uint8)[:, None]) & 3
    numbers = (low | (high << 4)).view(-1, 16, 16).float() - 32
    factors = blocks[:, 192:208].contiguous().view(torch.int8).float() * halves(blocks[:, 208:])
    return (numbers * factors[:, :, None]).flatten(1)


#: By ggml's name of the kind: from blocks, uint8 [n, bytes], to their numbers, float32 [n, numbers].
UNPACK: dict[str, Unpack] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": lambda blocks: _large(blocks, 16),
    "Q5_K": lambda blocks: _large(blocks, 48),
    "Q6_K": _q6_k,
}
