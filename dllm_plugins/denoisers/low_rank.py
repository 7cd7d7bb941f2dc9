"""The shipped low-rank denoiser: weights that act at open rows only.

Recipe and names: `dllm_plugins/training`. Low-rank pairs after arXiv 2106.09685; the
draft head lets an open row know the tokens on its left (in the spirit of arXiv
2402.05109): h' = h + W2 silu(W1 [h; e(left); e(left of left)]).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors import safe_open
from torch import Tensor

from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import Weight
from dllm_kernels.decoder import AnyWeights
from dllm_kernels.decoder import DecoderShape
from dllm_kernels.decoder import LowRankPair
from dllm_kernels.decoder import devices_of
from dllm_plugins.denoisers.base_mark import check_embedding
from dllm_plugins.denoisers.base_mark import check_shape
from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.reading import regular
from dllm_plugins.messages import message
from dllm_plugins.storage.tensors import compare
from dllm_plugins.storage.tensors import converted

FORMAT = "dllm-plugins low-rank denoiser 1"
SCALE = 2.0
LINEARS = ("qkv", "out", "gate_up", "down")
#: What tells the rank of all pairs, and the width of the draft head.
RANKED, CHAINED = "layers.0.qkv.down", "chain.down"
#: Token ids among the weights.
DRAFTS = "draft_tokens"
REMEDY = (
    "leave denoiser= out for the shipped weights, which fit SmolLM2-135M-Instruct, or give a file that "
    "`python -m dllm_plugins.training train --base FOLDER` made for this base"
)


@dataclass(frozen=True, slots=True)
class LowRankWeights:
    """What a denoiser file holds: pairs per layer, of qkv, out, gate_up and down, and the rest.

    :param mask_embedding: [hidden].
    :param chain_down: [inner, 3 * hidden]; `chain_up`: [hidden, inner].
    :param draft_tokens: int64 or int32 [N]; None to draft from the whole vocabulary.
    """

    pairs: tuple[tuple[LowRankPair, ...], ...]
    mask_embedding: Tensor
    chain_down: Tensor
    chain_up: Tensor
    draft_tokens: Tensor | None
    metadata: dict[str, str]


def low_rank_sizes(shape: DecoderShape) -> dict[str, tuple[int, int]]:
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
    regular(path, REMEDY)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            message(
                "the denoiser weights {} are missing or damaged ({}); reinstall dllm-plugins, or pass "
                "the file's place as {denoiser}=...",
                path,
                error,
            )
        ) from error
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {metadata.get('format')!r}, expected {FORMAT!r}")
    return tensors, metadata


def load_low_rank(path: Path, shape: DecoderShape, dtype: torch.dtype) -> LowRankWeights:
    """Read a denoiser file and check that it fits the base.

    :raises CheckpointError: if it is missing, damaged, of another format or another shape.
    """
    return low_rank_from(*read_low_rank(path), shape, dtype, str(path))


def low_rank_from(
    tensors: dict[str, Tensor], metadata: dict[str, str], shape: DecoderShape, dtype: torch.dtype, origin: str
) -> LowRankWeights:
    """Denoiser weights from tensors of the shipped file's names.

    :param origin: where they are from, for errors.
    :raises CheckpointError: if one is missing, surplus, does not fit the base, or holds what no
        weight and no token id can be.
    """
    check_shape(metadata, shape, origin)
    tensors, draft = check_low_rank(tensors, shape, origin)
    tensors = converted(tensors, dtype, origin, REMEDY)
    pairs = tuple(
        tuple(LowRankPair(tensors[f"layers.{i}.{name}.down"], tensors[f"layers.{i}.{name}.up"]) for name in LINEARS)
        for i in range(shape.layers)
    )
    return LowRankWeights(pairs, tensors["mask_embedding"], tensors[CHAINED], tensors["chain.up"], draft, metadata)


def check_low_rank(
    tensors: Mapping[str, Tensor], shape: DecoderShape, origin: str, remedy: str = REMEDY
) -> tuple[dict[str, Tensor], Tensor | None]:
    """The weights by the shipped file's names, and the ids that drafts are chosen among, if there are any.

    :raises CheckpointError: as :func:`low_rank_from`, but for numbers that are not finite.
    """
    found = dict(tensors)
    draft = _checked_ids(found.pop(DRAFTS, None), shape.vocabulary, origin, remedy)
    rank, inner = (_rows(found, name, origin, remedy) for name in (RANKED, CHAINED))
    compare(found, expected_tensors(shape, rank, inner), origin, remedy)
    return found, draft


def expected_tensors(shape: DecoderShape, rank: int, inner: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a denoiser's weights.

    :param rank: of the low-rank pairs, and `inner` the width of the draft head.
    """
    found: dict[str, tuple[int, ...]] = {
        "mask_embedding": (shape.hidden,),
        CHAINED: (inner, 3 * shape.hidden),
        "chain.up": (shape.hidden, inner),
    }
    for name, (ins, outs) in low_rank_sizes(shape).items():
        for index in range(shape.layers):
            found[f"layers.{index}.{name}.down"] = (rank, ins)
            found[f"layers.{index}.{name}.up"] = (outs, rank)
    return found


def _rows(tensors: Mapping[str, Tensor], name: str, origin: str, remedy: str) -> int:
    """How many rows a matrix has that only the file itself tells."""
    if name not in tensors or not tensors[name].dim() or not len(tensors[name]):
        raise CheckpointError(f"{origin} has no tensor {name!r} with rows; {remedy}")
    return len(tensors[name])


def _checked_ids(ids: Tensor | None, vocabulary: int, origin: str, remedy: str) -> Tensor | None:
    """The ids that drafts are chosen among: int32 or int64 [N], at least one."""
    if ids is None:
        return None
    if ids.dtype not in (torch.int32, torch.int64) or ids.dim() != 1 or not len(ids):
        raise CheckpointError(
            f"{origin}: {DRAFTS} is {list(ids.shape)} {ids.dtype}, and must be a list of ids; {remedy}"
        )
    outside = ids[(ids < 0) | (ids >= vocabulary)]
    if len(outside):
        raise CheckpointError(
            f"{origin}: {DRAFTS} holds {int(outside[0])}, and the base's ids are those below {vocabulary}; {remedy}"
        )
    return ids


def with_low_rank(base: AnyWeights, own: LowRankWeights) -> AnyWeights:
    """The base with the pairs, which act at open rows; the mask's id is the vocabulary's size.

    Each layer's pairs go where the layer is. Every other tensor is shared but the embedding, which has the mask's
    row more and whose first rows are the head of a tied base. The draft head stays with the caller: it acts behind
    the decoder.

    :raises CheckpointError: if the denoiser says that it belongs to another base.
    """
    check_embedding(own.metadata, base.embedding, "the denoiser")
    mask = own.mask_embedding[None].to(base.norm)
    pairs = tuple(
        tuple(LowRankPair(pair.down.to(device), pair.up.to(device)) for pair in layer)
        for layer, device in zip(own.pairs, devices_of(base), strict=True)
    )
    embedding: Weight
    if isinstance(base.embedding, Blocks):
        embedding, head = replace(base.embedding, plain=mask), base.head
    else:
        embedding = torch.cat([base.embedding, mask])
        head = embedding[: base.shape.vocabulary] if base.tied else base.head
    return replace(base, embedding=embedding, head=head, low_rank=pairs, low_rank_scale=SCALE)
