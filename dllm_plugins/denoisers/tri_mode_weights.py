"""The tri-mode default model's weights as those of a block decoder."""

import torch

from dllm_kernels.decoder import DecoderShape
from dllm_kernels.decoder import DecoderWeights
from dllm_kernels.decoder import LayerWeights
from dllm_kernels.decoder import LowRankPair
from dllm_plugins.denoisers.low_rank import SCALE
from dllm_plugins.denoisers.low_rank import LowRankWeights
from dllm_plugins.denoisers.weights import LayerWeights as LlamaLayer
from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.denoisers.weights import LlamaWeights


def decoder_weights(base: LlamaWeights, low_rank: LowRankWeights) -> DecoderWeights:
    """The base with the pairs that act at noisy rows; the mask's id is the vocabulary's size.

    Every tensor is shared but the embedding, which has the mask's row more. Its first rows
    are the head: keep `replace(base, embedding=weights.head)` in place of `base`, and there
    is one copy of it too. The chain head stays with the caller: it acts behind the decoder.
    """
    mask = low_rank.mask_embedding[None].to(base.embedding)
    embedding = torch.cat([base.embedding, mask])
    shape = base.shape
    half = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    return DecoderWeights(
        shape=decoder_shape(shape),
        embedding=embedding,
        layers=tuple(_layer(layer) for layer in base.layers),
        norm=base.norm,
        head=embedding[: shape.vocabulary],
        frequencies=(1.0 / shape.rope_theta**half).to(embedding.device),
        rope_scale=1.0,
        low_rank=tuple(tuple(LowRankPair(*pair) for pair in layer) for layer in low_rank.pairs),
        low_rank_scale=SCALE,
    )


def decoder_shape(shape: LlamaShape) -> DecoderShape:
    """The same numbers as the block decoder names them."""
    return DecoderShape(
        layers=shape.layers,
        hidden=shape.hidden,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        intermediate=shape.intermediate,
        vocabulary=shape.vocabulary,
        eps=shape.rms_eps,
    )


def _layer(layer: LlamaLayer) -> LayerWeights:
    return LayerWeights(
        input_norm=layer.input_norm,
        qkv=layer.qkv,
        qkv_bias=None,
        q_norm=None,
        k_norm=None,
        out=layer.out,
        out_bias=None,
        post_norm=layer.post_norm,
        gate_up=layer.gate_up,
        gate_up_bias=None,
        down=layer.down,
        down_bias=None,
    )
