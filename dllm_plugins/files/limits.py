"""How large the numbers of a config may be, before anything is made from them.

A number of a config decides how many layers are built or how many positions a table has, long before a weight
contradicts it. No checkpoint that exists comes near these limits.
"""

import json
import math
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from dllm_plugins.errors import CheckpointError
from dllm_plugins.messages import shown

LAYERS = 1024
EXPERTS = 1 << 16
#: Hidden, intermediate and head sizes, numbers of heads, ranks.
WIDTH = 1 << 22
VOCABULARY = 1 << 24
#: Positions of a context.
CONTEXT = 1 << 24
#: Positions denoised together.
BLOCK = 1 << 16
LABELS = 1 << 16
#: Anything else: ids, frequencies, numbers of steps.
OTHER = 1 << 53


def whole(value: Any, name: str, origin: str, least: int, most: int) -> int:
    """A whole number of a config, within its limits.

    :param name: the config's key.
    :param origin: the file, for the error.
    :raises CheckpointError: for any other kind of value, and one outside the limits.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise CheckpointError(
            f"{origin} says {name}={shown(value)}; it must be a whole number from {least} to {most}: mend it, or "
            f"download the checkpoint again"
        )
    return value


_LIMITS = (
    (LAYERS, "num_hidden_layers n_layers num_layers n_layer first_k_dense_replace max_window_layers"),
    (LAYERS, "num_nextn_predict_layers decoder_sparse_step global_attn_every_n_layers"),
    (EXPERTS, "num_experts n_routed_experts num_shared_experts n_shared_experts num_experts_per_tok top_k_experts"),
    (EXPERTS, "n_group topk_group num_expert_group num_local_experts"),
    (WIDTH, "hidden_size d_model intermediate_size mlp_hidden_size moe_intermediate_size head_dim global_head_dim"),
    (WIDTH, "expert_intermediate_size dense_intermediate_size num_attention_heads num_key_value_heads n_heads"),
    (WIDTH, "n_kv_heads num_global_key_value_heads mlp_ratio hidden_size_per_layer_input"),
    (VOCABULARY, "vocab_size embedding_size vocab_size_per_layer_input"),
    (CONTEXT, "max_position_embeddings max_sequence_length original_max_position_embeddings"),
    (CONTEXT, "sliding_window local_attention"),
    (BLOCK, "block_size bd_size wedlm_window_size canvas_length block_length"),
    (LABELS, "num_labels"),
)
#: Ends of keys whose values are numbers, never true or false: Python would take those for 1 and 0.
_NUMBERS = ("_token_id", "_token_ids", "_factor", "_softcapping", "_multiplier", "_scalar")
#: Where -1, or false, says that there is no such limit.
_SIGNED = ("sliding_window", "local_attention")
_MOST = {name: limit for limit, names in _LIMITS for name in names.split()}


def check_numbers(config: Mapping[str, Any], origin: str) -> None:
    """Refuse a config with a number that no model has, wherever in it that number stands.

    Known sizes must be whole numbers, or null; all other numbers are finite and of ordinary length.

    :param config: what a JSON object holds.
    :raises CheckpointError: naming the key and its value.
    """
    for name, value in _numbers(config):
        key = _key(name)
        if key in _SIGNED and value is False:
            continue
        if key in _MOST and value is not None:
            whole(value, name, origin, -1 if key in _SIGNED else 0, _MOST[key])
        elif isinstance(value, bool) and key.endswith(_NUMBERS):
            raise CheckpointError(
                f"{origin} says {name}={json.dumps(value)}, where a number stands: mend it, or download the checkpoint "
                f"again"
            )
        elif (isinstance(value, int | float) and _absurd(value)) or not _usable(key, value):
            raise CheckpointError(
                f"{origin} says {name}={shown(value)}, which no model has: mend it, or download the checkpoint again"
            )


def _key(name: str) -> str:
    """The key of a value by its path; entries of a list have the list's."""
    return next((part for part in reversed(name.split(".")) if not part.isdigit()), name)


def _usable(key: str, value: Any) -> bool:
    """Whether a frequency, an epsilon and the part of a head that turns are such: others make every logit NaN."""
    if value is None or not key.endswith(("rope_theta", "norm_eps", "rotary_factor")):
        return True
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value < 1 if key.endswith("norm_eps") else value > 0 and (key.endswith("rope_theta") or value <= 1)


def check_routing(config: Any, origin: str) -> None:
    """Refuse numbers of experts that no router can choose.

    No tensor's shape tells how many are chosen: the first pass would find out.

    :param config: of transformers' class.
    :raises CheckpointError: naming the number.
    """
    sizes = {name: getattr(config, name, None) for name in ("num_experts", "n_routed_experts", "num_local_experts")}
    name, experts = next(((name, size) for name, size in sizes.items() if size), ("", 0))
    if not experts:
        return
    for key in ("num_experts_per_tok", "top_k_experts"):
        if getattr(config, key, None) is not None:
            whole(getattr(config, key), key, f"{origin} ({name}={experts})", 1, experts)
    groups = getattr(config, "n_group", None) or 1
    whole(groups, "n_group", f"{origin} ({name}={experts})", 1, experts)
    if experts % groups:
        raise CheckpointError(f"{origin} says n_group={groups}, which does not divide {name}={experts}: mend it")
    if getattr(config, "topk_group", None) is not None:
        whole(config.topk_group, "topk_group", f"{origin} (n_group={groups})", 1, groups)


def _absurd(value: float) -> bool:
    return abs(value) > OTHER if isinstance(value, int) else not math.isfinite(value)


def _numbers(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value with its path of keys; of a known size also what stands in the place of a number."""
    open_: list[tuple[str, Any]] = [(str(name), value) for name, value in config.items()]
    while open_:
        name, value = open_.pop()
        if name.rpartition(".")[2] in _MOST or not isinstance(value, dict | list):
            yield name, value
        else:
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            open_ += [(f"{name}.{part}", item) for part, item in inside]
