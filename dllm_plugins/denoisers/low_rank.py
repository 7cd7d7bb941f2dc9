"""The shipped low-rank denoiser: weights that act at open rows only.

Recipe and names: `dllm_plugins/training`. Low-rank pairs after arXiv 2106.09685; the
chain head lets an open row know the tokens on its left (in the spirit of arXiv
2402.05109): h' = h + W2 silu(W1 [h; e(left); e(left of left)]).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors import safe_open
from torch import Tensor

from dllm_plugins.denoisers.weights import LlamaShape
from dllm_plugins.errors import CheckpointError

FORMAT = "dllm-plugins low-rank denoiser 1"
SCALE = 2.0
LINEARS = ("qkv", "out", "gate_up", "down")


@dataclass(frozen=True, slots=True)
class LowRankWeights:
    """Pairs per layer and linear: ((down [r, in], up [out, r]) x 4) x layers, and the rest."""

    pairs: tuple[tuple[tuple[Tensor, Tensor], ...], ...]
    mask_embedding: Tensor
    chain_down: Tensor
    chain_up: Tensor
    draft_tokens: Tensor | None
    metadata: dict[str, str]


def low_rank_sizes(shape: LlamaShape) -> dict[str, tuple[int, int]]:
    """(in, out) of the four linear layers that carry a low-rank pair."""
    attention = shape.heads * shape.head_dim
    qkv = attention + 2 * shape.kv_heads * shape.head_dim
    return {
        "qkv": (shape.hidden, qkv),
        "out": (attention, shape.hidden),
        "gate_up": (shape.hidden, 2 * shape.intermediate),
        "down": (shape.intermediate, shape.hidden),
    }


def read_low_rank(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a denoiser file.

    :raises CheckpointError: if it is missing, damaged or of another format.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"the denoiser weights {path} are missing or damaged ({error}); reinstall dllm-plugins, "
            f"or pass the file's place as denoiser=..."
        ) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {metadata.get('format')!r}, expected {FORMAT!r}")
    return tensors, metadata


def load_low_rank(path: Path, shape: LlamaShape, dtype: torch.dtype) -> LowRankWeights:
    """Read a denoiser file and check that it fits the base.

    :raises CheckpointError: if it is missing, damaged, of another format or another shape.
    """
    return low_rank_from(*read_low_rank(path), shape, dtype, str(path))


def low_rank_from(
    tensors: dict[str, Tensor], metadata: dict[str, str], shape: LlamaShape, dtype: torch.dtype, origin: str
) -> LowRankWeights:
    """Denoiser weights from tensors of the shipped file's names.

    :param origin: where they are from, for errors.
    :raises CheckpointError: if one is missing or does not fit the base.
    """
    tensors = dict(tensors)
    draft = tensors.pop("draft_tokens", None)
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    try:
        pairs = tuple(
            tuple((tensors[f"layers.{i}.{name}.down"], tensors[f"layers.{i}.{name}.up"]) for name in LINEARS)
            for i in range(shape.layers)
        )
        weights = LowRankWeights(
            pairs, tensors["mask_embedding"], tensors["chain.down"], tensors["chain.up"], draft, metadata
        )
    except KeyError as error:
        raise CheckpointError(f"{origin} has no tensor {error.args[0]!r}; it does not fit this base model") from error
    _check(origin, weights, shape)
    return weights


def _check(origin: str, weights: LowRankWeights, shape: LlamaShape) -> None:
    sizes = low_rank_sizes(shape)
    for layer in weights.pairs:
        for name, (down, _) in zip(LINEARS, layer, strict=True):
            size = sizes[name][0]
            if down.shape[1] != size:
                raise CheckpointError(f"{origin}: {name} expects {down.shape[1]} inputs, the base model has {size}")
    if tuple(weights.mask_embedding.shape) != (shape.hidden,):
        raise CheckpointError(
            f"{origin}: mask embedding is {tuple(weights.mask_embedding.shape)}, "
            f"the base model's width is {shape.hidden}"
        )


def spread(weights: LowRankWeights, layers: Sequence[torch.device], home: torch.device) -> LowRankWeights:
    """Each layer's pairs on that layer's device, the rest at `home`, where the embedding is."""
    pairs = tuple(
        tuple((down.to(device), up.to(device)) for down, up in layer)
        for layer, device in zip(weights.pairs, layers, strict=True)
    )
    return replace(
        weights,
        pairs=pairs,
        mask_embedding=weights.mask_embedding.to(home),
        chain_down=weights.chain_down.to(home),
        chain_up=weights.chain_up.to(home),
    )
