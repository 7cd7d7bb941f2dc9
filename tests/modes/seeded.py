"""A tiny model with every sampler that has an autoregressive element, and how to run it."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Segment

MODES: dict[str, dict[str, Any]] = {
    "fast_dllm_v2": {"threshold": 0.6, "preset_options": {"small_block_size": 2}},
    "wedlm": {"preset_options": {"entropy_threshold": 1.5}},
    "wedlm_block": {"threshold": 0.6, "preset_options": {"confidence_temperature": 0.7}},
    "nemotron": {"threshold": 0.6},
    "nemotron_ar": {},
    "nemotron_speculative": {"threshold": 0.6},
}
PROMPTS = ([5, 6, 7], [9, 8, 7, 6], [3], [4, 5, 6, 7, 8, 9, 10, 11])


def run(
    model: Model, prompts: Sequence[Sequence[int]], stop_ids: Sequence[int] = (), **options: Any
) -> tuple[Finish, ...]:
    """Answers of a batch."""
    config = SamplingConfig(**{"max_new_tokens": 13, **options})
    return tuple(model.engine().generate([Request(prompt, config, frozenset(stop_ids)) for prompt in prompts]))


def logits_of(model: Model, tokens: Sequence[int], causal: bool) -> Tensor:
    """Logits [N, V] of one whole forward; the mask is the last id."""
    denoiser, positions = model.denoiser, range(len(tokens))
    row = denoiser.open_row()
    segment = Segment(row, tokens, positions, causal=causal, wanted=positions)
    found = denoiser.logits(denoiser.forward([segment])[0])
    denoiser.close_row(row)
    return found
