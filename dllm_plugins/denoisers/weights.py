"""A tri-mode model's base as a block decoder's weights, read straight from a folder in the hub's format.

Query/key/value and gate/up projections are fused once. Reading safetensors directly keeps one copy of the weights in
memory and needs no model class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors import safe_open
from torch import Tensor

from dllm_kernels.blocks import Weight
from dllm_kernels.blocks import below
from dllm_kernels.blocks import plain
from dllm_kernels.decoder import DecoderShape
from dllm_kernels.decoder import DecoderWeights
from dllm_kernels.decoder import StoredLayer
from dllm_kernels.decoder import StoredWeights
from dllm_plugins.denoisers.llama_config import REMEDY
from dllm_plugins.denoisers.llama_config import ids_of
from dllm_plugins.denoisers.llama_config import numbers_of
from dllm_plugins.denoisers.rope import Rope
from dllm_plugins.errors import CheckpointError
from dllm_plugins.files.reading import read_object
from dllm_plugins.files.reading import regular
from dllm_plugins.files.replacing import read_config
from dllm_plugins.storage import plain_tensors
from dllm_plugins.storage import storage_of
from dllm_plugins.storage.tensors import add_file
from dllm_plugins.storage.tensors import compare
from dllm_plugins.storage.tensors import converted
from dllm_plugins.storage.tensors import one_dtype

M = TypeVar("M", bound=Weight)

#: Linear layers that are one product, by their names in a layer.
_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_OUT = ("self_attn.o_proj",)
_GATE_UP = ("mlp.gate_proj", "mlp.up_proj")
_DOWN = ("mlp.down_proj",)
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"


@dataclass(frozen=True, slots=True)
class LlamaShape(DecoderShape):
    """The numbers of `config.json`: those of the decoder, what its rotary positions go by, and which tensors it has.

    :param qkv_bias: whether queries, keys and values have biases (Qwen2).
    :param head_norms: whether query and key heads have norms (Qwen3).
    :param tied: whether the head is the embedding.
    """

    rope_theta: float
    context: int
    rope: Rope = Rope()  # noqa: RUF009
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    head_norms: bool = False
    tied: bool = True

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "LlamaShape":
        """Read the `config.json` of a Llama, Qwen2 or Qwen3.

        :raises CheckpointError: if the config asks for something this forward does not do, or its
            numbers are none that a Llama has.
        """
        return cls(**numbers_of(config))


def stop_ids(folder: Path, vocabulary: int) -> frozenset[int]:
    """End-of-text ids of generation_config.json, else of config.json; a model without any would never stop.

    :raises CheckpointError: if neither names one, or it is no id below `vocabulary`.
    """
    name = "generation_config.json"
    said = read_object(folder / name).get("eos_token_id") if (folder / name).exists() else None
    if said is not None:
        return ids_of(said, vocabulary, "eos_token_id", name)
    return ids_of(read_config(folder).get("eos_token_id"), vocabulary, "eos_token_id")


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of `*.safetensors` in `folder`, by name.

    :raises CheckpointError: if there are none, a file is damaged, or two hold the same tensor.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(
            f"no *.safetensors in {folder}; run `python -m dllm_plugins setup --force` to fetch the base model again"
        )
    tensors: dict[str, Tensor] = {}
    for path in files:
        add_file(tensors, read_file(path, "run `python -m dllm_plugins setup --force` to fetch it again"), path)
    return plain_tensors(tensors, storage_of(read_config(folder), folder))


def read_file(path: Path, remedy: str) -> dict[str, Tensor]:
    """All tensors of one safetensors file, by name; they are views of the file, not copies.

    :param remedy: what to do about a damaged file, for the error.
    :raises CheckpointError: if it is damaged, or no regular file.
    """
    regular(path, remedy)
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); {remedy}") from error


def _layer(tensors: dict[str, M], index: int, shape: LlamaShape) -> StoredLayer[M]:
    def take(*names: str) -> M:
        return below([tensors.pop(f"model.layers.{index}.{name}") for name in names])

    def matrix(*names: str) -> M:
        return take(*(f"{name}.weight" for name in names))

    def bias(there: bool, *names: str) -> Tensor | None:
        return plain(take(*(f"{name}.bias" for name in names))) if there else None

    def norm(there: bool, name: str) -> Tensor | None:
        return plain(matrix(name)) if there else None

    return StoredLayer(
        input_norm=plain(matrix("input_layernorm")),
        qkv=matrix(*_QKV),
        out=matrix(*_OUT),
        post_norm=plain(matrix("post_attention_layernorm")),
        gate_up=matrix(*_GATE_UP),
        down=matrix(*_DOWN),
        qkv_bias=bias(shape.qkv_bias, *_QKV),
        out_bias=bias(shape.out_bias, *_OUT),
        gate_up_bias=bias(shape.mlp_bias, *_GATE_UP),
        down_bias=bias(shape.mlp_bias, *_DOWN),
        q_norm=norm(shape.head_norms, "self_attn.q_norm"),
        k_norm=norm(shape.head_norms, "self_attn.k_norm"),
    )


def load_llama(folder: Path, dtype: torch.dtype) -> DecoderWeights:
    """Load a Llama, Qwen2 or Qwen3 checkpoint on the CPU in `dtype`.

    :raises CheckpointError: if the folder does not hold such a checkpoint.
    """
    shape = LlamaShape.from_config(read_config(folder))
    return llama_from(read_tensors(folder), shape, str(folder), dtype)


def expected_tensors(shape: LlamaShape) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a base's tensors; a head that is the embedding is not among them."""
    hidden, queries, keys = shape.hidden, shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    matrices = {
        **dict(zip(_QKV, ((queries, hidden), (keys, hidden), (keys, hidden)), strict=True)),
        **dict.fromkeys(_OUT, (hidden, queries)),
        **dict.fromkeys(_GATE_UP, (shape.intermediate, hidden)),
        **dict.fromkeys(_DOWN, (hidden, shape.intermediate)),
    }
    biased = {
        **dict.fromkeys(_QKV, shape.qkv_bias),
        **dict.fromkeys(_OUT, shape.out_bias),
        **dict.fromkeys((*_GATE_UP, *_DOWN), shape.mlp_bias),
    }
    norms = dict.fromkeys(("input_layernorm", "post_attention_layernorm"), hidden)
    if shape.head_norms:
        norms |= dict.fromkeys(("self_attn.q_norm", "self_attn.k_norm"), shape.head_dim)
    in_layer: dict[str, tuple[int, ...]] = {f"{name}.weight": size for name, size in matrices.items()}
    in_layer |= {f"{name}.bias": size[:1] for name, size in matrices.items() if biased[name]}
    in_layer |= {f"{name}.weight": (width,) for name, width in norms.items()}
    layers = range(shape.layers)
    found = {f"model.layers.{index}.{name}": size for index in layers for name, size in in_layer.items()}
    outside: dict[str, tuple[int, ...]] = {EMBEDDING: (shape.vocabulary, hidden), NORM: (hidden,)}
    if not shape.tied:
        outside[HEAD] = (shape.vocabulary, hidden)
    return outside | found


def check_llama(tensors: Mapping[str, M], shape: LlamaShape, origin: str, remedy: str = REMEDY) -> dict[str, M]:
    """The tensors by transformers' names, each once: a head that is stored beside the embedding is left out.

    :param origin: where they are from, and `remedy` what to do about them, for errors.
    :raises CheckpointError: if one is missing, surplus, misshapen or no weight, or the head is another matrix.
    """
    found = dict(tensors)
    head = found.pop(HEAD, None) if shape.tied else None
    layers = len({name.split(".")[2] for name in found if name.startswith("model.layers.")})
    if layers != shape.layers:
        raise CheckpointError(
            f"{origin}: config.json says num_hidden_layers={shape.layers}, its tensors are of {layers} layers; {remedy}"
        )
    compare(found, expected_tensors(shape), origin, remedy)
    embedding = found[EMBEDDING]
    if head is not None and not _same(plain(head), plain(embedding)):
        raise CheckpointError(
            f"{origin}: {HEAD} differs from {EMBEDDING}, and config.json says that they are one "
            f"(tie_word_embeddings); {remedy}"
        )
    return found


def _same(head: Tensor, embedding: Tensor) -> bool:
    """Whether two matrices are one, or hold the same numbers."""
    return head.is_set_to(embedding) or torch.equal(head, embedding)


def llama_from(
    tensors: Mapping[str, M], shape: LlamaShape, origin: str, dtype: torch.dtype | None = None
) -> StoredWeights[M]:
    """Fuse tensors of transformers' names.

    :param origin: where they are from, for errors.
    :param dtype: to convert them to; None for their own, which must be one.
    :raises CheckpointError: for anything that :func:`check_llama` refuses, for several dtypes, and
        for numbers that are not finite in `dtype`.
    """
    found = check_llama(tensors, shape, origin)
    if dtype is None:
        one_dtype(found, origin, "load the model in one dtype")
    found = converted(found, dtype or found[EMBEDDING].dtype, origin, REMEDY)
    layers = tuple(_layer(found, index, shape) for index in range(shape.layers))
    return StoredWeights(
        shape=shape,
        embedding=found[EMBEDDING],
        layers=layers,
        norm=plain(found[NORM]),
        head=found[EMBEDDING if shape.tied else HEAD],
        frequencies=shape.rope.frequencies(shape.rope_theta, shape.head_dim),
        rope_scale=1.0,
    )
