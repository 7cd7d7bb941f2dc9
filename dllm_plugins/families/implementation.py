"""What config.json says of how attention and experts are to be computed, beside what they compute.

Recipes leave it in their configs. All names below compute the same function: those that
transformers' own classes run with our masks are honoured there, the others are left out, because
only the speed of another engine depends on them. A name that is not known may stand for another function.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

from dllm_plugins.errors import CheckpointError
from dllm_plugins.libraries.private_transformers import can_set_experts

if TYPE_CHECKING:
    from transformers import PreTrainedModel

#: Attention that takes masks of four dimensions.
ATTENTION = ("eager", "sdpa")
#: Experts of transformers' classes.
EXPERTS = ("eager", "grouped_mm", "batched_mm")
#: Parts of names that compute the same, elsewhere.
SAME = ("flash_attention", "flash-attn", "flex_attention", "paged|", "vllm-flash-attn", "deepgemm", "sonicmoe")
KEYS = {"attn_implementation": ATTENTION, "experts_implementation": EXPERTS}
#: All its spellings, and which of the two each is.
SPELT = {spelt: key for key in KEYS for spelt in (key, f"_{key}", f"_{key}_internal")}


def implementation_of(config: Mapping[str, Any]) -> dict[str, str]:
    """What of it is honoured.

    :raises CheckpointError: for a name that is not known.
    """
    found: dict[str, str] = {}
    for place in (config.get("text_config"), config):
        for spelt, key in SPELT.items():
            value = place.get(spelt) if isinstance(place, Mapping) else None
            if value in KEYS[key]:
                found[key] = value
            elif value is not None and not (isinstance(value, str) and any(part in value for part in SAME)):
                raise CheckpointError(
                    f"config.json says {spelt}={value!r}, which is not known to compute plain attention or experts; "
                    f"take it out, or use one of {', '.join(map(repr, KEYS[key]))}"
                )
    return found


def honour(model: "PreTrainedModel", wanted: Mapping[str, str]) -> None:
    """Let a loaded class compute as was said, where it can."""
    if "attn_implementation" in wanted:
        model.set_attn_implementation(wanted["attn_implementation"])
    if "experts_implementation" in wanted and can_set_experts(model):
        model.set_experts_implementation(wanted["experts_implementation"])
