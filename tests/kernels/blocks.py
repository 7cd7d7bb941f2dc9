"""Random matrices in blocks, and decoders of them."""

from dataclasses import replace

import torch

from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import Kind
from dllm_kernels.decoder import AnyWeights
from dllm_kernels.decoder import DecoderShape
from dllm_kernels.decoder import LowRankPair
from dllm_kernels.decoder import StoredLayer
from dllm_kernels.decoder import StoredWeights

SHAPE = DecoderShape(layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, intermediate=96, vocabulary=2051, eps=1e-5)
#: Its rows hold whole blocks of 256.
LARGE = replace(SHAPE, hidden=256, head_dim=64, intermediate=512)
RANK = 6


def random_blocks(kind: Kind, outs: int, ins: int, dtype: torch.dtype, seed: int = 0, size: float = 0.01) -> Blocks:
    """Any bytes for numbers; scales of both signs, and a few below float16's normal ones."""
    noise = torch.Generator().manual_seed(seed)
    count = outs * ins // kind.numbers
    blocks = torch.randint(0, 256, (count, kind.size), dtype=torch.uint8, generator=noise)
    for begin in range(kind.scales.start, kind.scales.stop, 2):
        heads = torch.randn(count, 1, generator=noise) * size
        heads[::7] *= 1e-4
        blocks[:, begin : begin + 2] = heads.half().view(torch.uint8)
    return Blocks(kind, blocks.view(outs, -1), dtype)


def weights_in_blocks(kind: Kind, dtype: torch.dtype) -> AnyWeights:
    """A random decoder with low-rank pairs and one token behind those in blocks, as the default model has."""
    shape, noise = LARGE if kind.numbers > SHAPE.hidden else SHAPE, torch.Generator().manual_seed(1)
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sizes = [
        (queries + 2 * keys, shape.hidden),
        (shape.hidden, queries),
        (2 * shape.intermediate, shape.hidden),
        (shape.hidden, shape.intermediate),
    ]

    def layer(index: int) -> StoredLayer[Blocks]:
        qkv, out, gate_up, down = (
            random_blocks(kind, *size, dtype, 10 * index + place) for place, size in enumerate(sizes)
        )
        norms = [torch.randn(shape.hidden, generator=noise).to(dtype) + 1 for _ in range(2)]
        return StoredLayer(norms[0], qkv, out, norms[1], gate_up, down)

    def pair(outs: int, ins: int) -> LowRankPair:
        return LowRankPair(*(torch.randn(size, generator=noise).to(dtype) / 8 for size in ((RANK, ins), (outs, RANK))))

    head = random_blocks(Kind.Q8_0, shape.vocabulary, shape.hidden, dtype, 7)
    return StoredWeights(
        shape=shape,
        embedding=replace(head, plain=torch.randn(1, shape.hidden, generator=noise).to(dtype)),
        layers=tuple(map(layer, range(shape.layers))),
        norm=torch.randn(shape.hidden, generator=noise).to(dtype) + 1,
        head=head,
        frequencies=torch.rand(shape.head_dim // 2, generator=noise),
        rope_scale=1.0,
        low_rank=tuple(tuple(pair(*size) for size in sizes) for _ in range(shape.layers)),
    )
