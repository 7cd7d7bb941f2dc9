"""The default model's linear layers and nothing else, in bfloat16, packed for oneDNN: the floor of a pass.

Every product of the body over all rows, the low-rank pairs over the noisy rows, and the
head. The operators are internal to torch; what they are worth is in docs/kernels.md.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dllm_kernels.private_torch import MISSING
from dllm_kernels.private_torch import ordered_linear
from dllm_kernels.private_torch import ordered_weight
from dllm_plugins.default_model.base_model import require_base
from dllm_plugins.default_model.load import shipped_denoiser
from dllm_plugins.denoisers.low_rank import load_low_rank
from dllm_plugins.denoisers.weights import load_llama
from passes import seeded

Product = Callable[[], Tensor]


def product(weight: Tensor, rows: int) -> Product:
    """`rows` rows of noise times a packed copy of weight [out, in], as often as wanted.

    :raises RuntimeError: if this torch cannot pack.
    """
    try:
        packed = ordered_weight(weight.contiguous(), rows)
    except MISSING as error:
        raise RuntimeError(f"this torch has no packed linear layers to compare with ({error})") from error
    x = torch.randn(rows, weight.shape[1], generator=seeded(0)).to(weight.dtype)

    return lambda: ordered_linear(x, packed, None)


class PackedLinears:
    """All products of a pass over `rows` positions, `noisy` of them open.

    :ivar weights: how many numbers they read.
    """

    @torch.inference_mode()
    def __init__(self, rows: int, noisy: int) -> None:
        base = load_llama(require_base(), torch.bfloat16)
        low_rank = load_low_rank(shipped_denoiser(), base.shape, torch.bfloat16)
        self._products: list[Product] = []
        self.weights = base.embedding.numel()
        for layer, pairs in zip(base.layers, low_rank.pairs, strict=True):
            wide = [(weight, rows) for weight in (layer.qkv, layer.out, layer.gate_up, layer.down)]
            narrow = [(weight, noisy) for pair in pairs for weight in pair if noisy]
            for weight, count in wide + narrow:
                self._products.append(product(weight, count))
                self.weights += weight.numel()
        self._products.append(product(base.embedding, rows))

    @torch.inference_mode()
    def __call__(self) -> None:
        """Once through all of them."""
        for run in self._products:
            run()
