"""Products of blocks with rows in int8: a row's 32 numbers share a scale, as the 32 weights of a block do.

A weight is a number times its block's scale (and in Q4_1 plus a least value), a row's number is a level
from -127 to 127 times its block's scale. So integers are summed within a block, exactly, and float32 numbers
over the blocks. It is how llama.cpp multiplies these files, too (ggml-org/ggml ggml-cpu/quants.c, Q8_0 and Q8_1 rows),
with another rounding of sums. What is decoded so is lossless with respect to this model only: neither are weights
rounded to bfloat16, nor are rows what they were.

Here it is said once, in float64; compiled/source/coded.hpp computes it.
"""

import torch
from torch import Tensor

from dllm_kernels.blocks import IN_BLOCK
from dllm_kernels.blocks import Blocks
from dllm_kernels.int8 import quantise_rows


def coded_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Levels int8 [N, blocks, 32] and scales float32 [N, blocks] of rows [N, in]."""
    count = x.shape[1] // IN_BLOCK
    levels, scale = quantise_rows(x.reshape(-1, IN_BLOCK))
    return levels.view(len(x), count, IN_BLOCK), scale.view(len(x), count)


def coded_product(x: Tensor, weight: Blocks) -> Tensor:
    """Rows [N, in] times a matrix [out, in], float32 [N, out]."""
    levels, scale = coded_rows(x)
    rows = (levels.double() * scale.double()[..., None]).flatten(1)
    found = (rows @ weight.exact().double().T).float()
    if weight.plain is None:
        return found
    return torch.cat([found, x.float() @ weight.plain.float().T], dim=1)
