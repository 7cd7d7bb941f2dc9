"""The numbers of a base's `config.json` (Llama, Qwen2 or Qwen3), checked before anything is made from them."""

from collections.abc import Mapping
from typing import Any

from dllm_plugins.denoisers.rope import Rope
from dllm_plugins.errors import CheckpointError
from dllm_plugins.files import limits
from dllm_plugins.messages import shown

ORIGIN = "config.json"
REMEDY = "use the folder of a Llama, Qwen2 or Qwen3 as it was published, such as SmolLM2-135M-Instruct"
#: Values of `model_type` whose layers are the ones computed here.
MODEL_TYPES = ("llama", "qwen2", "qwen3")
#: The head size of a Qwen3 whose config does not say it.
_QWEN3_HEAD = 128
#: What frequencies of rotary positions are powers of, and what keeps norms from dividing by zero.
_THETA, _EPS = (1.0, 1e12), (1e-30, 1.0)


def numbers_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of :class:`~dllm_plugins.denoisers.weights.LlamaShape`.

    :raises CheckpointError: for a model that the default model's forward does not compute, and for
        numbers that are missing, of another kind, out of range, or do not fit one another.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise CheckpointError(f"{ORIGIN} says {shown(rope)} of its rotary positions; {REMEDY}")
    _refuse_others(config)
    kind = config["model_type"]
    hidden, heads = _whole(config, "hidden_size"), _whole(config, "num_attention_heads")
    size = config.get("head_dim")
    if size is None and kind != "qwen3":
        _divides(hidden, "hidden_size", heads, "num_attention_heads")
    kv_heads = _whole(config, "num_key_value_heads")
    _divides(heads, "num_attention_heads", kv_heads, "num_key_value_heads")
    given = _whole(config, "head_dim") if size is not None else None
    head_dim = given or (_QWEN3_HEAD if kind == "qwen3" else hidden // heads)
    _divides(head_dim, "head_dim", 2, "the two numbers that a rotary position turns")
    biased = bool(config.get("attention_bias", False)) and kind != "qwen2"
    return {
        "layers": _whole(config, "num_hidden_layers", limits.LAYERS),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate": _whole(config, "intermediate_size"),
        "vocabulary": _whole(config, "vocab_size", limits.VOCABULARY),
        "rope_theta": _real(rope if "rope_theta" in rope else config, "rope_theta", *_THETA),
        "eps": _real(config, "rms_norm_eps", *_EPS),
        "context": _whole(config, "max_position_embeddings", limits.CONTEXT),
        "rope": Rope.from_config(rope, ORIGIN, REMEDY),
        "qkv_bias": biased or kind == "qwen2",
        "out_bias": biased,
        "mlp_bias": kind == "llama" and bool(config.get("mlp_bias", False)),
        "head_norms": kind == "qwen3",
        "tied": bool(config.get("tie_word_embeddings", False)),
    }


def _refuse_others(config: Mapping[str, Any]) -> None:
    windows = {layer for layer in config.get("layer_types") or () if layer != "full_attention"}
    asked: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "model_type": (config.get("model_type"), MODEL_TYPES),
        "hidden_act": (config.get("hidden_act", "silu"), ("silu",)),
        "use_sliding_window": (bool(config.get("use_sliding_window", False)), (False,)),
        "layer_types": (min(windows, default="full_attention"), ("full_attention",)),
    }
    for name, (found, known) in asked.items():
        if found not in known:
            raise CheckpointError(
                f"{ORIGIN} says {name}={shown(found)}, but a tri-mode model's base has {name}="
                f"{' or '.join(map(repr, known))}; {REMEDY}"
            )


def _whole(config: Mapping[str, Any], name: str, most: int = limits.WIDTH) -> int:
    return limits.whole(config.get(name), name, ORIGIN, 1, most)


def _real(config: Mapping[str, Any], name: str, least: float, most: float) -> float:
    value = config.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise CheckpointError(
            f"{ORIGIN} says {name}={shown(value)}; it must be a number from {least:g} to {most:g}: {REMEDY}"
        )
    return float(value)


def _divides(number: int, name: str, by: int, other: str) -> None:
    if number % by:
        raise CheckpointError(f"{ORIGIN} says {name}={number}, no multiple of {other} ({by}); {REMEDY}")


def ids_of(found: Any, vocabulary: int, name: str, origin: str = ORIGIN) -> frozenset[int]:
    """One token id of a config, or a list of them.

    :param origin: the file, for the error.
    :raises CheckpointError: if there is none, or one is no id below `vocabulary`.
    """
    ids = found if isinstance(found, list) else [found]
    for item in ids:
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < vocabulary:
            raise CheckpointError(
                f"{origin} says {name}={shown(found)}; it needs one id or a list of ids below {vocabulary}: {REMEDY}"
            )
    if not ids:
        raise CheckpointError(f"{origin} says {name}=[], and a model without any would never stop; {REMEDY}")
    return frozenset(ids)
