"""What a decoder is given, compared with what it computes, before memory is read by its address.

Weights are looked at once, when a decoder is made; of a pass only sizes and a few numbers, so
that the look costs microseconds.
"""

import math
from collections.abc import Iterator
from collections.abc import Sequence

import torch
from torch import Tensor

from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import Weight
from dllm_kernels.decoder.base import Part
from dllm_kernels.decoder.base import Store
from dllm_kernels.decoder.store import KeyValues
from dllm_kernels.decoder.weights import AnyLayer
from dllm_kernels.decoder.weights import AnyWeights
from dllm_kernels.decoder.weights import DecoderShape
from dllm_kernels.decoder.weights import LowRankPair
from dllm_kernels.decoder.weights import devices_of
from dllm_kernels.dispatch import KernelError

#: Positions of a rotary table; more than any model was made for.
MOST_POSITIONS = 1 << 24
#: What the numbers of a matrix's rows and columns must fit in.
_LARGEST = (1 << 31) - 1
#: Products of a layer, each of which may have a low-rank pair.
PAIRS = 4

_Expected = Iterator[tuple[str, Weight | None, tuple[int, ...]]]


def check_weights(weights: AnyWeights, spread: bool = False) -> None:
    """Refuse weights that do not have the sizes their shape says, or are not all of one dtype on one device.

    :param spread: whether each layer may be on a device of its own.
    :raises KernelError: naming the first that differs.
    """
    shape, like = weights.shape, weights.embedding
    _check_shape(shape)
    floats = like.dtype.is_floating_point and like.device.type != "meta"
    if len(like.shape) != 2 or like.shape[0] < shape.vocabulary or not floats:
        raise KernelError(
            f"embedding is {_described(like)}; it must hold at least {shape.vocabulary} rows of {shape.hidden} numbers"
        )
    if len(weights.layers) != shape.layers:
        raise KernelError(f"there are {len(weights.layers)} layers, but the shape says layers={shape.layers}")
    if weights.low_rank is not None and [len(pairs) for pairs in weights.low_rank] != [PAIRS] * shape.layers:
        raise KernelError(f"there must be {PAIRS} low-rank pairs for each of {shape.layers} layers")
    for device, expected in _expected(weights, spread):
        for name, tensor, size in expected:
            if tensor is None:
                continue
            fits = tuple(tensor.shape) == size and max(size) <= _LARGEST
            dense = isinstance(tensor, Blocks) or (tensor.layout == torch.strided and not tensor.is_meta)
            if not fits or not dense or tensor.dtype != like.dtype or tensor.device != device:
                raise KernelError(
                    f"{name} is {_described(tensor)}; it must be {list(size)} {like.dtype} on {device}, as the other "
                    f"weights are"
                )
    half = (shape.head_dim // 2,)
    if tuple(weights.frequencies.shape) != half or weights.frequencies.dtype != torch.float32:
        raise KernelError(f"frequencies are {_described(weights.frequencies)}; they must be {list(half)} torch.float32")


def _check_shape(shape: DecoderShape) -> None:
    for name, size in shape.sizes().items():
        if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= _LARGEST:
            raise KernelError(f"{name}={size!r} must be a whole number above 0")
    if shape.heads % shape.kv_heads:
        raise KernelError(f"{shape.heads} query heads are no multiple of kv_heads={shape.kv_heads}")
    if shape.head_dim % 2:
        raise KernelError(f"head_dim={shape.head_dim} must be even: rotary embeddings turn pairs")


def _expected(weights: AnyWeights, spread: bool) -> Iterator[tuple[torch.device, _Expected]]:
    """Every tensor with its name and the size it must have, by the device it must be on."""
    shape, home, matrices = weights.shape, weights.embedding.device, _matrices(weights.shape)
    ends = [
        ("embedding", weights.embedding, (len(weights.embedding), shape.hidden)),
        ("head", weights.head, (shape.vocabulary, shape.hidden)),
        ("norm", weights.norm, (shape.hidden,)),
    ]
    yield home, iter(ends)
    for index, (layer, own) in enumerate(zip(weights.layers, devices_of(weights), strict=True)):
        device = own if spread else home
        yield device, _of_layer(layer, shape, matrices, index)
        if weights.low_rank is not None:
            yield device, _pairs(weights.low_rank[index], len(weights.low_rank[0][0].down), matrices, index)


def _matrices(shape: DecoderShape) -> dict[str, tuple[int, int]]:
    """(out, in) of a layer's four products."""
    queries = shape.heads * shape.head_dim
    return {
        "qkv": (queries + 2 * shape.kv_heads * shape.head_dim, shape.hidden),
        "out": (shape.hidden, queries),
        "gate_up": (2 * shape.intermediate, shape.hidden),
        "down": (shape.hidden, shape.intermediate),
    }


def _of_layer(layer: AnyLayer, shape: DecoderShape, matrices: dict[str, tuple[int, int]], index: int) -> _Expected:
    sizes = {f"{name}_bias": size[:1] for name, size in matrices.items()} | matrices
    sizes |= dict.fromkeys(("input_norm", "post_norm"), (shape.hidden,))
    sizes |= dict.fromkeys(("q_norm", "k_norm"), (shape.head_dim,))
    for name, size in sizes.items():
        yield f"{name} of layer {index}", getattr(layer, name), size


def _pairs(pairs: Sequence[LowRankPair], rank: int, matrices: dict[str, tuple[int, int]], index: int) -> _Expected:
    for (name, (outs, ins)), pair in zip(matrices.items(), pairs, strict=True):
        yield f"the pair of {name} of layer {index}, down,", pair.down, (rank, ins)
        yield f"the pair of {name} of layer {index}, up,", pair.up, (outs, rank)


def _described(tensor: Weight) -> str:
    return f"{list(tensor.shape)} {tensor.dtype} on {tensor.device}"


def check_pass(
    weights: AnyWeights,
    kind: type[Store],
    tokens: Tensor,
    positions: Tensor,
    parts: Sequence[Part],
    noisy: Tensor | None,
) -> int:
    """Refuse a pass that would read or write beside what it is given; see :meth:`Decoder.forward`.

    :param kind: of the decoder's stores, exactly: a subclass lays keys out otherwise.
    :param tokens: best on the CPU: elsewhere looking at them waits for the device.
    :returns: how many entries a rotary table must have.
    :raises KernelError: for tensors of other shapes or dtypes, ids without an embedding, positions
        below 0 or absurdly large, parts that do not cover the pass, and stores that are another
        decoder's or have no room.
    """
    count = len(tokens)
    for name, given, dtype in (
        ("tokens", tokens, torch.int64),
        ("positions", positions, torch.int64),
        ("noisy", noisy, torch.bool),
    ):
        if given is not None and (given.dtype != dtype or given.shape != (count,)):
            raise KernelError(f"{name} are {_described(given)}; they must be [{count}] {dtype}")
    for part in parts:
        _check_store(part.store, kind, weights)
    _check_parts(parts, count)
    if not count:
        return 0
    first, last = tokens.aminmax()
    if int(first) < 0 or int(last) >= len(weights.embedding):
        raise KernelError(f"tokens {int(first)} to {int(last)} must be ids from 0 to {len(weights.embedding) - 1}")
    first, last = positions.aminmax()
    if int(first) < 0 or int(last) >= MOST_POSITIONS:
        raise KernelError(f"positions {int(first)} to {int(last)} must be from 0 to {MOST_POSITIONS - 1}")
    return int(last) + 1


def _check_store(store: Store, kind: type[Store], weights: AnyWeights) -> None:
    own = type(store) is kind
    if own and isinstance(store, KeyValues):
        own = store.dtype == weights.embedding.dtype and store.shape == weights.shape
    if not own:
        raise KernelError(f"a store of {type(store).__name__} is another decoder's; use this one's new_store()")


def _check_parts(parts: Sequence[Part], count: int) -> None:
    end = 0
    for part in parts:
        begin, end = end, end + len(part.seen)
        if (part.rows.start, part.rows.stop, part.rows.step or 1) != (begin, end, 1):
            raise KernelError(f"a part stands at {part.rows}, but its {len(part.seen)} positions begin at {begin}")
        if part.seen.shape != (end - begin, end - begin) or part.seen.dtype != torch.bool:
            size = end - begin
            raise KernelError(f"seen is {_described(part.seen)}; it must be [{size}, {size}] torch.bool")
        if part.store.kept + end - begin > part.store.capacity:
            raise KernelError(
                f"a store keeps {part.store.kept} of {part.store.capacity} positions, too many for {end - begin} more; "
                f"reserve room first"
            )
    if end != count:
        raise KernelError(f"the parts cover {end} positions, and the pass has {count}")


def check_rows(x: Tensor, width: int, like: Tensor) -> None:
    """Refuse what is not [N, width] in the dtype and on the device of `like`.

    :raises KernelError: with what it is.
    """
    if x.dim() != 2 or x.shape[1] != width or x.dtype != like.dtype or x.device != like.device:
        raise KernelError(f"rows are {_described(x)}; they must be [N, {width}] {like.dtype} on {like.device}")


def check_draws(
    rows: int,
    vocabulary: int,
    temperatures: Sequence[float],
    noises: Sequence[Tensor | None],
    uniforms: Sequence[float | None],
) -> None:
    """Refuse draws that are not one for each row, noise that is not one number for each id, and shares that are none.

    :raises KernelError: with what differs.
    """
    if len(temperatures) != rows or len(noises) != rows:
        raise KernelError(f"{len(temperatures)} temperatures and {len(noises)} noises are given for {rows} positions")
    if len(uniforms) != rows:
        raise KernelError(f"{len(uniforms)} uniform numbers are given for {rows} positions")
    for number, temperature in zip(uniforms, temperatures, strict=True):
        if number is not None and not (0 < number < 1 and 0 < temperature < math.inf):
            raise KernelError(
                f"a position is drawn at temperature={temperature} by the number {number}; the temperature must be "
                f"above 0 and the number between 0 and 1"
            )
    for noise, temperature in zip(noises, temperatures, strict=True):
        if noise is not None and (noise.shape != (vocabulary,) or not 0 < temperature < math.inf):
            raise KernelError(
                f"a position is drawn at temperature={temperature} with noise {_described(noise)}; the temperature "
                f"must be above 0 and the noise [{vocabulary}]"
            )
