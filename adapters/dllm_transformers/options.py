"""From generate()'s arguments to the engine's options; what cannot be honoured is refused."""

from typing import Any

import torch
from transformers import GenerationConfig
from transformers import LogitsProcessorList
from transformers import StoppingCriteriaList
from transformers import TemperatureLogitsWarper
from transformers import TopKLogitsWarper
from transformers import TopPLogitsWarper
from transformers.generation.stopping_criteria import EosTokenCriteria
from transformers.generation.stopping_criteria import MaxLengthCriteria

from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError

#: What the engine does itself, from the generation config.
_HONOURED = (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    MaxLengthCriteria,
    EosTokenCriteria,
)

#: What transformers calls a prefix cache: `cache` since 5.24, `past_key_values` before.
_CACHE_NAMES = ("cache", "past_key_values")

#: Arguments generate() hands to every strategy that have no bearing here.
_WITHOUT_EFFECT = frozenset({"attention_mask", "position_ids", "logits_to_keep", "use_cache", *_CACHE_NAMES})


def refuse(
    config: GenerationConfig,
    processors: LogitsProcessorList | None,
    criteria: StoppingCriteriaList | None,
    model_kwargs: dict[str, Any],
) -> None:
    """Raise for anything this strategy would otherwise ignore.

    :raises OptionError: naming the argument and what to do instead.
    """
    if (config.num_beams or 1) > 1:
        raise OptionError(f"num_beams={config.num_beams}: block diffusion has no beam search; leave num_beams out")
    for name in ("return_dict_in_generate", "output_scores", "output_logits", "prompt_lookup_num_tokens"):
        if getattr(config, name, None):
            raise OptionError(f"{name}={getattr(config, name)} is not supported by block diffusion; leave it out")
    for item in [*(processors or []), *(criteria or [])]:
        if not isinstance(item, _HONOURED):
            raise OptionError(
                f"{type(item).__name__} works on one next token at a time and is not supported by block "
                f"diffusion; leave out the argument that asks for it, or call generate() without custom_generate"
            )
    for name in _CACHE_NAMES:
        cache = model_kwargs.get(name)
        if cache is not None and cache.get_seq_length() > 0:
            raise OptionError(
                f"{name} holds a prefix, but block diffusion keeps its own cache; pass the whole "
                f"conversation as input_ids and leave {name} out"
            )
    for name, value in model_kwargs.items():
        if name not in _WITHOUT_EFFECT and value is not None and value is not False:
            raise OptionError(f"{name} is not supported by block diffusion; leave it out")


def stop_ids(config: GenerationConfig) -> frozenset[int]:
    """End-of-text ids; none if the config has none."""
    found = config.eos_token_id
    if found is None:
        return frozenset()
    return frozenset(torch.as_tensor(found).flatten().tolist())


def sampling(config: GenerationConfig, new_tokens: int, seed: int, **options: Any) -> SamplingConfig:
    """The engine's options; an explicit argument goes before the generation config.

    :param new_tokens: room for the answer.
    :param options: arguments of the strategy; None for not given.
    :raises OptionError: for a value out of range.
    """
    given: dict[str, Any] = {"max_new_tokens": new_tokens}
    if config.do_sample:
        given["temperature"] = 1.0 if config.temperature is None else config.temperature
        given["seed"] = seed % (LARGEST_SEED + 1)
        if config.top_k:
            given["top_k"] = config.top_k
        if config.top_p is not None and config.top_p < 1:
            given["top_p"] = config.top_p
    for name, value in options.items():
        found = getattr(config, name, None) if value is None else value
        if found is not None:
            given[name] = found
    return SamplingConfig(**given)
