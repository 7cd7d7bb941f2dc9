"""A decoder's layers with their matrices in the form they are multiplied in."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dllm_kernels.blocks import Weight
from dllm_kernels.decoder.matrices import Form
from dllm_kernels.decoder.matrices import Matrix
from dllm_kernels.decoder.matrices import matrix
from dllm_kernels.decoder.weights import AnyLayer
from dllm_kernels.decoder.weights import AnyWeights
from dllm_kernels.decoder.weights import LowRankPair
from dllm_kernels.onednn import packing_fault


@dataclass(frozen=True, slots=True)
class MatrixPair:
    """A low-rank pair."""

    down: Matrix
    up: Matrix


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer; norms of query and key heads are float32, as what they act on."""

    input_norm: Tensor
    qkv: Matrix
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Matrix
    post_norm: Tensor
    gate_up: Matrix
    down: Matrix
    pairs: tuple[MatrixPair, ...]


@torch.inference_mode()
def layers_of(weights: AnyWeights, form: Form) -> list[Layer]:
    """Layer by layer; where the weights are given away, each is emptied before the next one is put into its form.

    :raises KernelError: for numbers the form cannot hold.
    """
    pairs = weights.low_rank or tuple(() for _ in weights.layers)
    return [_layer(layer, own, form, weights.given) for layer, own in zip(weights.layers, pairs, strict=True)]


@torch.inference_mode()
def head_of(weights: AnyWeights, form: Form) -> Matrix:
    """The head; packed only if that is no second copy of the embedding."""
    if weights.tied:
        return matrix("plain" if form == "packed" else form, weights.head)
    return _made(form, weights.head, None, weights.given)


def _layer(layer: AnyLayer, pairs: tuple[LowRankPair, ...], form: Form, given: bool) -> Layer:
    # Pairs are too narrow for int8 to pay.
    packs = form != "plain" and layer.input_norm.device.type == "cpu" and packing_fault(layer.input_norm.dtype) is None
    narrow: Form = "packed" if packs else "plain"
    return Layer(
        input_norm=layer.input_norm,
        qkv=_made(form, layer.qkv, layer.qkv_bias, given),
        q_norm=None if layer.q_norm is None else layer.q_norm.float(),
        k_norm=None if layer.k_norm is None else layer.k_norm.float(),
        out=_made(form, layer.out, layer.out_bias, given),
        post_norm=layer.post_norm,
        gate_up=_made(form, layer.gate_up, layer.gate_up_bias, given),
        down=_made(form, layer.down, layer.down_bias, given),
        pairs=tuple(
            MatrixPair(_made(narrow, pair.down, None, given), _made(narrow, pair.up, None, given)) for pair in pairs
        ),
    )


def _made(form: Form, weight: Weight, bias: Tensor | None, given: bool) -> Matrix:
    made = matrix(form, weight, bias)
    if given and form != "plain" and isinstance(weight, Tensor):
        weight.data = weight.new_empty(0)
    return made
