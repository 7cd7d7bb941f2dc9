"""How a family's checkpoints are laid out on disk, as data and two pure functions.

A layout says which class of transformers computes the same function, how `config.json`
translates into that class's config, and which stored name is which parameter. Facts and
how each was verified: the family's own file.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal

from dllm_plugins.errors import CheckpointError
from dllm_plugins.models import registered_family

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

Config = Mapping[str, Any]
Tensors = dict[str, "Tensor"]
AttentionKind = Literal[
    "bidirectional", "block-causal", "causal", "causal, reordered", "causal context, bidirectional block", "own"
]


def _same_tensors(tensors: Tensors, _config: Config) -> Tensors:
    return tensors


def _says_nothing(_generation: Config) -> dict[str, Any]:
    return {}


@dataclass(frozen=True, slots=True)
class Layout:
    """One family's checkpoints.

    :param name: what users call the family.
    :param architectures: values of config.json's `architectures` that belong to it.
    :param model_types: values of config.json's `model_type` that its checkpoints were seen with.
    :param native: the transformers class for a config; imported when called.
    :param classes: their names, for people.
    :param config: config.json as keyword arguments of the class's config; raises
        CheckpointError for switches that the class does not have.
    :param tensors: stored tensors under the class's names; experts stay one by one.
    :param attention: who sees whom while a canvas is denoised.
    :param shifted: whether the row at p - 1 predicts position p.
    :param modes: what it decodes with: the sampler or strategy behind each mode, the default first.
    :param samplers: others that fit it, by name.
    :param hints: parts of a checkpoint's name that tell which sampler it was made for; where
        `modes` has no `diffusion`, one of them or the user must say it.
    :param block_length: of the published checkpoints, where their config does not say it.
    :param mask_id: of the published checkpoints, where their config does not say it.
    :param stop_ids: of the published checkpoints, beside those their configs name.
    :param stops: strings that end an answer, where no single id does.
    :param chat_template: for tokenizers that have none, and in place of the one that its checkpoints came with where
        that is known to be wrong.
    :param template_mark: a text by which that one is known; without it none is replaced.
    :param sampling: generation_config.json as options of the family's sampler.
    :param noise: what open positions hold: the mask token, or any token.
    :param named_only: its checkpoints look like ordinary models; users must name the family.
    :param verified: how we know that the class computes the same.
    :param cases: golden cases in which its samplers reproduce tokens, canvases and passes.
    """

    name: str
    architectures: frozenset[str]
    native: "Callable[[Config], type[PreTrainedModel]]"
    classes: str
    config: Callable[[Config], dict[str, Any]]
    attention: AttentionKind
    shifted: bool
    checkpoints: tuple[str, ...]
    licence: str
    verified: str
    model_types: frozenset[str] = frozenset()
    tensors: Callable[[Tensors, Config], Tensors] = _same_tensors
    modes: Mapping[str, str] = field(default_factory=dict)
    samplers: tuple[str, ...] = ()
    hints: Mapping[str, str] = field(default_factory=dict)
    block_length: int = 32
    mask_id: int | None = None
    stop_ids: frozenset[int] = frozenset()
    stops: tuple[str, ...] = ()
    chat_template: str | None = None
    template_mark: str = ""
    named_only: bool = False
    cases: tuple[str, ...] = ()
    noise: Literal["masked", "uniform"] = "masked"
    sampling: Callable[[Config], dict[str, Any]] = _says_nothing

    def __reduce__(self) -> tuple[Callable[[str], "Layout"], tuple[str]]:
        """Copies and pickles are the family itself, whose functions have no names of their own."""
        return registered_family, (self.name,)


#: Keys that Llama, Qwen2, Qwen3 and their MoE relatives share with the originals.
COMMON = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_parameters",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
#: What the Qwen3-MoE layout adds.
EXPERTS = (
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "norm_topk_prob",
    "decoder_sparse_step",
    "mlp_only_layers",
)


def name_of(place: str) -> str:
    """A checkpoint's own name, lower case: the end of a path or hub id; in the hub's cache, its repository's."""
    parts = Path(place).parts
    cached = [part for part in parts if part.startswith("models--")]
    return (cached[-1].split("--")[-1] if cached else parts[-1] if parts else place).lower()


def hub_name(place: str) -> str:
    """The name of a hub repository, lower case; "" for folders and files that somebody named himself."""
    cached = any(part.startswith("models--") for part in Path(place).parts)
    local = place.startswith(("/", ".", "~")) or place.count("/") > 1 or Path(place).exists()
    return name_of(place) if cached or not local else ""


def pick(config: Config, names: Iterable[str]) -> dict[str, Any]:
    """The entries of these names that are there and not null."""
    return {name: config[name] for name in names if config.get(name) is not None}


def require(config: Config, family: str, **wanted: tuple[Any, ...]) -> None:
    """Refuse a config in which a switch that changes the maths has another value.

    :param wanted: per key the values that are right; a missing key counts as None.
    :raises CheckpointError: naming the key, its value and the ones that are known to be right.
    """
    for name, values in wanted.items():
        if config.get(name) not in values:
            known = " or ".join(repr(value) for value in values)
            raise CheckpointError(
                f"config.json says {name}={config.get(name)!r}; this package computes {family} with {name}={known} only"
            )


def common_config(config: Config, family: str, *more: str) -> dict[str, Any]:
    """Config of a family that keeps the names of Llama or Qwen.

    :raises CheckpointError: for sliding windows and scaled rotary embeddings, which no
        checkpoint of these families was seen with.
    """
    require(config, family, use_sliding_window=(False, None))
    if scaled_rotary(config.get("rope_scaling")):
        require(config, family, rope_scaling=(None, {"rope_type": "default"}))
    missing = [name for name in ("vocab_size", "hidden_size", "num_hidden_layers") if name not in config]
    if missing:
        raise CheckpointError(f"config.json has no {missing[0]!r}; {family} needs it")
    return pick(config, (*COMMON, *more))


def scaled_rotary(scaling: Any) -> bool:
    """Whether a config's `rope_scaling` asks for anything; "default", and a linear factor of one, do not."""
    if not isinstance(scaling, Mapping):
        return bool(scaling)
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    plain = kind == "default" or (kind == "linear" and scaling.get("factor") == 1)
    # A base of its own would be another model.
    return not plain or not scaling.keys() <= {"rope_type", "type", "factor", "original_max_position_embeddings"}


def renamed(tensors: Tensors, *prefixes: tuple[str, str]) -> Tensors:
    """Tensors with the first matching prefix of each name replaced."""
    found: Tensors = {}
    for name, tensor in tensors.items():
        old, new = next(((old, new) for old, new in prefixes if name.startswith(old)), ("", ""))
        found[new + name[len(old) :]] = tensor
    return found
