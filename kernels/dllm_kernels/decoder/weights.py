"""Weights of a decoder-only transformer, fused for few large products.

Query, key and value projections are one matrix, gate and up projections another, so that
a layer is four products. A transformers model either keeps working (its own parameters
become views of the fused tensors), or gives its weights away; both ways there is one
copy of them while they are fused.
"""

from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
from typing import Any
from typing import Generic
from typing import NamedTuple
from typing import TypeAlias
from typing import TypeVar
from typing import cast

import torch
from torch import Tensor

from dllm_kernels.blocks import CODED
from dllm_kernels.blocks import Blocks
from dllm_kernels.blocks import Weight
from dllm_kernels.blocks import form_of
from dllm_kernels.blocks import plain
from dllm_kernels.dispatch import KernelError

#: Values of a config's `model_type` whose layers are the ones computed here.
MODEL_TYPES = ("llama", "qwen2", "qwen3")
#: Rotary embeddings whose angles depend on the position only, not on the longest one seen.
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
#: A layer's four products.
MATRICES = ("qkv", "out", "gate_up", "down")
#: What is counted in a decoder.
SIZES = ("layers", "hidden", "heads", "kv_heads", "head_dim", "intermediate", "vocabulary")

#: What the matrices are: tensors, or tensors and blocks.
M_co = TypeVar("M_co", bound=Weight, covariant=True)


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """The numbers that the forward needs. `eps` is that of every norm."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    eps: float

    def sizes(self) -> dict[str, int]:
        """What an implementation may depend on, for the dispatch."""
        return {name: getattr(self, name) for name in SIZES}


# No slots: Python 3.11 cannot call the alias of a generic class that is frozen and has them.
@dataclass(frozen=True)
class StoredLayer(Generic[M_co]):
    """One layer. Matrices are [out, in]; biases [out] and norms of query and key heads [head_dim] may be absent."""

    input_norm: Tensor
    qkv: M_co
    out: M_co
    post_norm: Tensor
    gate_up: M_co
    down: M_co
    qkv_bias: Tensor | None = None
    out_bias: Tensor | None = None
    gate_up_bias: Tensor | None = None
    down_bias: Tensor | None = None
    q_norm: Tensor | None = None
    k_norm: Tensor | None = None

    def to(self, device: torch.device) -> "StoredLayer[Weight]":
        """The same on a device."""
        moved: dict[str, Any] = {}
        for field in fields(self):
            weight: Weight | None = getattr(self, field.name)
            moved[field.name] = weight if weight is None else weight.to(device)
        return StoredLayer(**moved)

    def plain(self) -> "LayerWeights":
        """The same with every matrix a tensor."""
        layer = cast(Any, self)
        return cast(LayerWeights, replace(layer, **{name: plain(getattr(layer, name)) for name in MATRICES}))


class LowRankPair(NamedTuple):
    """What noisy rows add to a product: `up` [out, r] times the scaled product with `down` [r, in]."""

    down: Tensor
    up: Tensor


# No slots: Python 3.11 cannot call the alias of a generic class that is frozen and has them.
@dataclass(frozen=True)
class StoredWeights(Generic[M_co]):
    """A whole decoder: what every decoder makes its own form of the weights from.

    `head` is `embedding` where they are tied, or its first `vocabulary` rows.

    :param embedding: [vocabulary, hidden]; a row more where the mask id is the vocabulary's size.
    :param frequencies: float32 [head_dim / 2], radians per position of each rotary pair.
    :param rope_scale: what cosines and sines are multiplied with.
    :param low_rank: per layer, the pairs of qkv, out, gate_up and down.
    :param low_rank_scale: what the products with their `down` are multiplied with.
    :param given: whether a decoder may empty the matrices it has put into a form of its own.
    """

    shape: DecoderShape
    embedding: M_co
    layers: tuple[StoredLayer[M_co], ...]
    norm: Tensor
    head: M_co
    frequencies: Tensor
    rope_scale: float
    low_rank: tuple[tuple[LowRankPair, ...], ...] | None = None
    low_rank_scale: float = 1.0
    given: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """Of all of them."""
        return self.norm.dtype

    @property
    def form(self) -> str:
        """What is multiplied: "Q4_1, Q8_0" for matrices in blocks, a dtype for others."""
        matrices = [self.embedding, *(getattr(layer, name) for layer in self.layers for name in MATRICES)]
        forms = sorted({form_of(matrix) for matrix in matrices})
        return ", ".join([*forms, "int8 activations"] if self.coded else forms)

    @property
    def coded(self) -> bool:
        """Whether activations are rounded to int8 where they meet blocks; see :mod:`dllm_kernels.coded`."""
        matrices = (getattr(layer, name) for layer in self.layers for name in MATRICES)
        return any(isinstance(matrix, Blocks) and matrix.coded for matrix in matrices)

    def with_coded(self) -> "AnyWeights":
        """The same with activations rounded to int8 where they meet blocks of kinds that can be multiplied so."""
        weights, layers = cast(Any, self), [cast(Any, layer) for layer in self.layers]
        coded = (replace(layer, **{name: _coded(getattr(layer, name)) for name in MATRICES}) for layer in layers)
        ends = {"embedding": _coded(self.embedding), "head": _coded(self.head)}
        return cast(AnyWeights, replace(weights, layers=tuple(coded), **ends))

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding, or its first rows."""
        return _memory(self.head) == _memory(self.embedding)

    def plain_ends(self) -> tuple[Tensor, Tensor]:
        """Embedding and head as tensors; a head that is tied to the embedding stays so."""
        embedding = plain(self.embedding)
        return embedding, embedding[: self.shape.vocabulary] if self.tied else plain(self.head)

    def plain(self) -> "DecoderWeights":
        """The same with every matrix a tensor; a head that is tied to the embedding stays so."""
        embedding, head = self.plain_ends()
        layers = tuple(layer.plain() for layer in self.layers)
        return cast(DecoderWeights, replace(cast(Any, self), embedding=embedding, head=head, layers=layers))


def _memory(matrix: Weight) -> int:
    """Where it begins in memory: matrices of one file share what is mapped of it."""
    return (matrix.data if isinstance(matrix, Blocks) else matrix).data_ptr()


def _coded(matrix: Weight) -> Weight:
    return replace(matrix, coded=True) if isinstance(matrix, Blocks) and matrix.kind in CODED else matrix


LayerWeights: TypeAlias = StoredLayer[Tensor]
#: Of tensors alone, and of tensors and blocks.
DecoderWeights: TypeAlias = StoredWeights[Tensor]
AnyLayer: TypeAlias = StoredLayer[Weight]
AnyWeights: TypeAlias = StoredWeights[Weight]


def devices_of(weights: AnyWeights) -> list[torch.device]:
    """Where each layer is."""
    return [layer.input_norm.device for layer in weights.layers]


def shape_of(config: Any) -> DecoderShape:
    """Read a transformers config.

    :raises KernelError: for anything that is not computed here, with its value.
    """
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    windows = {kind for kind in getattr(config, "layer_types", None) or () if kind != "full_attention"}
    wanted = {
        "model_type": (config.model_type, MODEL_TYPES),
        "hidden_act": (config.hidden_act, ("silu",)),
        "rope_type": (rope, ROPE_TYPES),
        "layer_types": (min(windows, default="full_attention"), ("full_attention",)),
    }
    for name, (found, known) in wanted.items():
        if found not in known:
            raise KernelError(
                f"the block decoder computes {name}={' or '.join(map(repr, known))}, but this model has {found!r}; "
                f"use backend='torch'"
            )
    heads = config.num_attention_heads
    return DecoderShape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=heads,
        kv_heads=config.num_key_value_heads or heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
        intermediate=config.intermediate_size,
        vocabulary=config.vocab_size,
        eps=config.rms_norm_eps,
    )


@torch.no_grad()
def take_weights(model: Any) -> DecoderWeights:
    """Fuse the weights of a loaded Llama, Qwen2 or Qwen3 of transformers, layer by layer.

    :param model: with a head; its parameters become views of what is returned, see also :func:`release`.
    :raises KernelError: for shapes not computed here, and for weights that are not all in one place.
    """
    shape = shape_of(model.config)
    places = {(str(weight.device), weight.dtype) for weight in model.parameters()}
    if len(places) != 1 or next(iter(places))[0] == "meta":
        found = ", ".join(sorted(f"{dtype} on {device}" for device, dtype in places))
        raise KernelError(
            f"the block decoder needs all weights on one device in one dtype, not {found}; leave device_map out"
        )
    body, rotary = model.model, model.model.rotary_emb
    return DecoderWeights(
        shape=shape,
        embedding=body.embed_tokens.weight.data,
        layers=tuple(_layer(layer) for layer in body.layers),
        norm=body.norm.weight.data,
        head=model.lm_head.weight.data,
        frequencies=rotary.inv_freq.float(),
        rope_scale=float(rotary.attention_scaling),
    )


def release(model: Any) -> None:
    """Let a model whose weights were taken let go of them; its forward raises afterwards.

    Every parameter moves to the meta device, so that modules keep their shapes.
    """
    moved: dict[int, Any] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            # Tied parameters stay one.
            if id(parameter) not in moved:
                moved[id(parameter)] = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)
            setattr(module, name, moved[id(parameter)])
    for module in (model, model.model):
        module.register_forward_pre_hook(_refuse)


def _refuse(module: Any, _inputs: Any) -> None:
    raise KernelError(
        f"the weights of this {type(module).__name__} were given to the block decoder; "
        f"pass keep_model=True to use both, at the price of a second copy, or load the model again"
    )


def _layer(layer: Any) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    qkv, qkv_bias = _fused(attention.q_proj, attention.k_proj, attention.v_proj)
    gate_up, gate_up_bias = _fused(mlp.gate_proj, mlp.up_proj)
    return LayerWeights(
        input_norm=layer.input_layernorm.weight.data,
        qkv=qkv,
        qkv_bias=qkv_bias,
        q_norm=_data(getattr(attention, "q_norm", None)),
        k_norm=_data(getattr(attention, "k_norm", None)),
        out=attention.o_proj.weight.data,
        out_bias=None if attention.o_proj.bias is None else attention.o_proj.bias.data,
        post_norm=layer.post_attention_layernorm.weight.data,
        gate_up=gate_up,
        gate_up_bias=gate_up_bias,
        down=mlp.down_proj.weight.data,
        down_bias=None if mlp.down_proj.bias is None else mlp.down_proj.bias.data,
    )


def _data(module: Any) -> Tensor | None:
    return None if module is None else module.weight.data


def _fused(*parts: Any) -> tuple[Tensor, Tensor | None]:
    """Weights and biases of linear modules one below the other; the modules then hold views of them."""
    weight = torch.cat([part.weight.data for part in parts])
    bias = None if parts[0].bias is None else torch.cat([part.bias.data for part in parts])
    begin = 0
    for part in parts:
        end = begin + part.out_features
        part.weight.data = weight[begin:end]
        if bias is not None:
            part.bias.data = bias[begin:end]
        begin = end
    return weight, bias
