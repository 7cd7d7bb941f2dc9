"""What a file's own numbers must be so that llama.cpp does not abort the process at them.

A header can be whole and still say what no model has: no layers, more experts used than there are.
llama.cpp asserts at such values, in `llama_model_base::load_hparams`, when it builds the graph, and in
ggml's operations (read at 0c1e57098). Whatever it refuses by itself, such as a tensor that is missing or of
another shape, is left to it.
"""

from collections.abc import Iterator
from typing import Any

from gguf import GGMLQuantizationType

from dllm_plugins.errors import CheckpointError
from dllm_plugins.gguf.header import Header

#: llama-hparams.h: LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS, LLAMA_ROPE_SCALING_TYPES, llama_expert_gating_func_type.
MAX_LAYERS, MAX_EXPERTS = 512, 1024
SCALINGS = ("none", "linear", "yarn", "longrope")
GATINGS = range(1, 5)
#: Graphs that turn a part of each head; all others turn the whole.
PARTIAL = ("bailingmoe2", "glm4moe")
#: Types that no product of matrices takes.
_WHOLE_NUMBERS = {GGMLQuantizationType[name] for name in ("I8", "I16", "I32", "I64", "F64")}
_SIZES = ("embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv")
#: Keys that every layer may have an own value of.
_BY_LAYER = (*_SIZES[1:], "expert_feed_forward_length", "expert_used_count")
_Problem = tuple[str, Any]


def check_values(header: Header) -> None:
    """Refuse a file at whose values llama.cpp would abort.

    :raises CheckpointError: naming the file, the key and its value.
    """
    for found in (_layers, _heads, _rotation, _numbers, _experts, _tensors, _vocabulary):
        for key, value in found(header):
            raise CheckpointError(
                f"{header.path} is damaged: {key} is {value!r}, which llama.cpp cannot compute; "
                f"download or convert it again"
            )


def _key(header: Header, name: str) -> str:
    return f"{header.architecture}.{name}"


def _numbers_of(header: Header, name: str) -> list[Any]:
    """A key's values, of which there may be one a layer; none if it is absent."""
    found = header.value(name)
    if isinstance(found, list) and name in _BY_LAYER:
        return found
    return [] if found is None else [found]


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _layers(header: Header) -> Iterator[_Problem]:
    layers = header.value("block_count", 0)
    if not _whole(layers, 1, MAX_LAYERS):
        yield _key(header, "block_count"), layers
        return
    further = header.value("nextn_predict_layers", 0)
    if not _whole(further, 0, layers - 1):
        yield _key(header, "nextn_predict_layers"), further
    for name in _BY_LAYER:
        found = header.value(name)
        if isinstance(found, list) and len(found) < layers:
            yield _key(header, name), found


def _heads(header: Header) -> Iterator[_Problem]:
    if header.value("embedding_length") is None:
        yield _key(header, "embedding_length"), None
        return
    # Where all layers have experts, no tensor has the other layers' width.
    least = 0 if header.value("expert_count", 0) and not header.value("leading_dense_block_count", 0) else 1
    for name in (*_SIZES, "attention.key_length", "attention.value_length"):
        for value in _numbers_of(header, name):
            if not _whole(value, least if name == "feed_forward_length" else 1, 2**31 - 1):
                yield _key(header, name), value
    heads = _numbers_of(header, "attention.head_count")
    # llama.cpp divides by the width of a head before it looks at what the file says of it.
    if any(many > header.value("embedding_length") for many in heads):
        yield _key(header, "attention.head_count"), header.value("attention.head_count")
    shared = _numbers_of(header, "attention.head_count_kv") or heads
    if len({len(heads), len(shared)}) == 1 and any(many % few for many, few in zip(heads, shared, strict=True)):
        yield _key(header, "attention.head_count_kv"), header.value("attention.head_count_kv")
    if heads and _size(header, "key") != _size(header, "value"):
        yield _key(header, "attention.value_length"), header.value("attention.value_length")


def _size(header: Header, part: str) -> int:
    """Width of a head."""
    found = header.value(f"attention.{part}_length")
    heads = _numbers_of(header, "attention.head_count")[0]
    return int(found if found is not None else header.value("embedding_length", 0) // heads)


def _rotation(header: Header) -> Iterator[_Problem]:
    scaling = header.value("rope.scaling.type", "linear")
    if scaling not in SCALINGS:
        yield _key(header, "rope.scaling.type"), scaling
    rotated = header.value("rope.dimension_count")
    if rotated is None or not header.value("attention.head_count"):
        return
    size = _size(header, "key")
    fits = _whole(rotated, 2, size) and rotated % 2 == 0 if header.architecture in PARTIAL else rotated == size
    if not fits:
        yield _key(header, "rope.dimension_count"), rotated


def _numbers(header: Header) -> Iterator[_Problem]:
    epsilon = header.value("attention.layer_norm_rms_epsilon", 0.0)
    if not isinstance(epsilon, float) or not epsilon >= 0:
        yield _key(header, "attention.layer_norm_rms_epsilon"), epsilon


def _experts(header: Header) -> Iterator[_Problem]:
    count = header.value("expert_count", 0)
    if not _whole(count, 0, MAX_EXPERTS):
        yield _key(header, "expert_count"), count
        return
    for value in _numbers_of(header, "expert_used_count") or [0]:
        if not _whole(value, min(count, 1), count):
            yield _key(header, "expert_used_count"), value
    groups = header.value("expert_group_count", 0)
    if not _whole(groups, 0, max(count - 1, 0)) or (groups > 1 and count % groups):
        yield _key(header, "expert_group_count"), groups
        return
    used = header.value("expert_group_used_count", 0)
    if groups > 1 and not _whole(used, 1, groups - 1):
        yield _key(header, "expert_group_used_count"), used
    if count and header.value("expert_gating_func", 1) not in GATINGS:
        yield _key(header, "expert_gating_func"), header.value("expert_gating_func")
    # Only this graph has shared experts whatever their number is.
    names = ["expert_feed_forward_length", *(["expert_shared_count"] if header.architecture == "bailingmoe2" else [])]
    for name in names if count else ():
        for value in _numbers_of(header, name):
            if not _whole(value, 1, 2**31 - 1):
                yield _key(header, name), value


def _tensors(header: Header) -> Iterator[_Problem]:
    for tensor in header.tensors.values():
        if tensor.type in _WHOLE_NUMBERS or (len(tensor.shape) == 1 and tensor.type is not GGMLQuantizationType.F32):
            yield f"the type of tensor {tensor.name!r}", tensor.type.name


def _vocabulary(header: Header) -> Iterator[_Problem]:
    """Two ids of one token; bytes that are no UTF-8 were replaced when they were read, so those are not compared."""
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    if header.metadata.get("tokenizer.ggml.model", "none") == "none" or not isinstance(tokens, list):
        return
    seen: set[str] = set()
    for number, token in enumerate(tokens):
        name = token or f"[EMPTY_{number}]"
        if name in seen and "\ufffd" not in name:
            yield f"token {number} of tokenizer.ggml.tokens, which is there before,", name
        seen.add(name)
