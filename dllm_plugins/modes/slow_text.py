"""The text of slow static decoding, which several modes give: what it depends on beside the request."""

from collections.abc import Hashable

from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import ModelSpec

#: Options that look at the whole canvas as it is; modes that forward drafted states see another one then.
_LOOKING = ("constraint", "repetition_penalty", "no_repeat_ngram_size", "bad_words", "min_new_tokens")


def slow_text(config: SamplingConfig, spec: ModelSpec, block_length: int | None, steps: int | None) -> Hashable:
    """Equal for modes that give the same slow text; None where nobody promises that.

    :param steps: passes of a block; None for as many as it has positions.
    """
    if any(getattr(config, name) is not None for name in _LOOKING):
        return None
    length = block_length or spec.block_length
    return "slow", length, steps or length
