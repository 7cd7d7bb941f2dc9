"""From generate()'s arguments to the engine's options; what cannot be honoured is refused."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers import LogitsProcessorList
from transformers import StoppingCriteria
from transformers import StoppingCriteriaList
from transformers import TemperatureLogitsWarper
from transformers import TopKLogitsWarper
from transformers import TopPLogitsWarper
from transformers.generation.stopping_criteria import EosTokenCriteria
from transformers.generation.stopping_criteria import MaxLengthCriteria

from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_transformers.host import REFUSED
from dllm_transformers.prefix import PrefixCache

#: What the engine does itself, from the generation config.
_WARPERS = (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)
_OWN_CRITERIA = (MaxLengthCriteria, EosTokenCriteria)

#: What transformers calls a prefix cache: `cache` since 5.24, `past_key_values` before.
_CACHE_NAMES = ("cache", "past_key_values")

#: Arguments generate() hands to every strategy by itself; their values are checked below.
_KNOWN = frozenset({"attention_mask", "position_ids", "logits_to_keep", "use_cache", *_CACHE_NAMES})

#: Values of the generation config that choose another decoding method or another cache.
_CONFIG = {
    "num_beams": (1, "block diffusion has no beam search; leave num_beams out"),
    "num_beam_groups": (1, "block diffusion has no beam search; leave it out"),
    "penalty_alpha": (None, "contrastive search is another strategy; leave it out"),
    "dola_layers": (None, "DoLa is another strategy; leave it out"),
    "prompt_lookup_num_tokens": (None, "drafts come from the denoiser; leave it out"),
    "assistant_early_exit": (None, "drafts come from the denoiser; leave it out"),
    "speculation_type": (None, "drafts come from the denoiser; leave it out"),
    "cache_implementation": (None, "the engine keeps its own exact cache; leave it out"),
    "cache_config": (None, "the engine keeps its own exact cache; leave it out"),
    "prefill_chunk_size": (None, "the engine prefills in tiles of its own; leave it out"),
    "output_attentions": (False, "the engine does not keep attention weights; leave it out"),
    "output_hidden_states": (False, "the engine does not hand out hidden states; leave it out"),
}


def refuse(
    config: GenerationConfig, processors: LogitsProcessorList | None, input_ids: Tensor, model_kwargs: dict[str, Any]
) -> None:
    """Raise for anything this strategy would otherwise ignore.

    :raises OptionError: naming the argument and what to do instead.
    """
    for name, (neutral, remedy) in _CONFIG.items():
        found = getattr(config, name, None)
        if found is not None and found != neutral:
            raise OptionError(f"{name}={found}: {remedy}")
    for item in processors or []:
        if not isinstance(item, _WARPERS):
            raise OptionError(
                f"{type(item).__name__} works on one next token at a time and is not supported by block "
                f"diffusion; leave out the argument that asks for it, or call generate() without custom_generate"
            )
    _refuse_kwargs(input_ids, model_kwargs)


def _refuse_kwargs(input_ids: Tensor, model_kwargs: dict[str, Any]) -> None:
    for name, value in model_kwargs.items():
        if name not in _KNOWN and value is not None and value is not False:
            raise OptionError(f"{name} is not supported by block diffusion; leave it out")
    if model_kwargs.get("use_cache") is False:
        raise OptionError("use_cache=False: the engine caches what the model's attention allows; leave use_cache out")
    if model_kwargs.get("logits_to_keep", 1) != 1:
        raise OptionError(
            f"logits_to_keep={model_kwargs['logits_to_keep']}: use output_logits=True with "
            f"return_dict_in_generate=True for the logits of an answer"
        )
    positions = model_kwargs.get("position_ids")
    if positions is not None:
        mask = model_kwargs.get("attention_mask")
        mask = torch.ones_like(input_ids) if mask is None else mask
        counted = (mask.long().cumsum(-1) - 1).clamp(min=0)
        own = positions.expand(len(input_ids), -1)[:, : input_ids.shape[1]]
        if not torch.equal(own * mask, counted * mask):
            raise OptionError("position_ids must count the tokens of each row from 0; leave position_ids out")


def refuse_arguments(given: dict[str, Any]) -> None:
    """Raise for arguments of generate() that have no place here.

    :raises OptionError: naming the argument and what to do instead.
    """
    for name, value in given.items():
        if value is not None and value is not False:
            raise OptionError(f"{name} is not supported by block diffusion: {REFUSED[name]}")


def own_criteria(criteria: StoppingCriteriaList | None) -> list[StoppingCriteria]:
    """The criteria that the engine does not apply itself."""
    return [item for item in criteria or [] if not isinstance(item, _OWN_CRITERIA)]


def users_cache(model_kwargs: dict[str, Any]) -> PrefixCache | None:
    """The prefix cache handed in; None for the empty one generate() makes for every strategy.

    :raises OptionError: for a filled cache of another kind.
    """
    for name in _CACHE_NAMES:
        cache = model_kwargs.get(name)
        if isinstance(cache, PrefixCache):
            return cache
        if cache is not None and cache.get_seq_length() > 0:
            raise OptionError(
                f"{name} holds a prefix as {type(cache).__name__}, whose rounding the engine cannot vouch for; start "
                f"with {name}=dllm_transformers.PrefixCache() and pass the whole conversation as input_ids"
            )
    return None


def stop_ids(config: GenerationConfig) -> frozenset[int]:
    """End-of-text ids; none if the config has none."""
    found = config.eos_token_id
    if found is None:
        return frozenset()
    return frozenset(torch.as_tensor(found).flatten().tolist())


def pad_id(config: GenerationConfig) -> int:
    """What fills the space behind an answer."""
    return int(config.pad_token_id) if config.pad_token_id is not None else min(stop_ids(config), default=0)


def sampling(config: GenerationConfig, new_tokens: int, seed: int, **options: Any) -> SamplingConfig:
    """The engine's options; an explicit argument goes before the generation config.

    :param new_tokens: room for the answer.
    :param options: arguments of the strategy; None for not given.
    :raises OptionError: for a value out of range.
    """
    # Greedy decoding may need noise too: commit rules at random, canvases that begin with random tokens.
    given: dict[str, Any] = {"max_new_tokens": new_tokens, "seed": seed % (LARGEST_SEED + 1)}
    if config.do_sample:
        given["temperature"] = 1.0 if config.temperature is None else config.temperature
        if config.top_k:
            given["top_k"] = config.top_k
        if config.top_p is not None and config.top_p < 1:
            given["top_p"] = config.top_p
    for name, value in options.items():
        found = getattr(config, name, None) if value is None else value
        if found is not None:
            given[name] = found
    return SamplingConfig(**given)
