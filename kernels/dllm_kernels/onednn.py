"""oneDNN's linear layer on weights that it has put in its own order once.

It orders a plain weight anew in every product, which costs as much again. The operators are
internal to torch: whether they run, and are right, is tried before they are trusted.
"""

from functools import cache

import torch

from dllm_kernels.private_torch import MISSING
from dllm_kernels.private_torch import ordered_linear
from dllm_kernels.private_torch import ordered_weight

#: Rows oneDNN packs for; products of other numbers of rows run on the same packed weight.
ROWS = 16


@cache
def packing_fault(dtype: torch.dtype) -> str | None:
    """Why weights cannot be packed here; None if they can, and the product is right."""
    noise = torch.Generator().manual_seed(0)
    weight, x, bias = (torch.randn(size, generator=noise).to(dtype) for size in ((48, 40), (16, 40), (48,)))
    try:
        with torch.inference_mode():
            found = ordered_linear(x, ordered_weight(weight, ROWS), bias).float()
    except MISSING as error:
        return f"needs oneDNN's packed linear, which this torch does not run in {dtype} ({error})"
    exact = x.double() @ weight.double().T + bias.double()
    close = torch.allclose(found.double(), exact, atol=8 * torch.finfo(dtype).eps * float(exact.abs().max()), rtol=0)
    return None if close else f"needs oneDNN's packed linear, which gives wrong products in {dtype} here"
