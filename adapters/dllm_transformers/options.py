"""From generate()'s arguments to the engine's options; what cannot be honoured is refused."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers import StoppingCriteria
from transformers import StoppingCriteriaList
from transformers.generation.stopping_criteria import EosTokenCriteria
from transformers.generation.stopping_criteria import MaxLengthCriteria

from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.libraries.private_transformers import default_generation_options
from dllm_plugins.messages import shown
from dllm_transformers.host import REFUSED
from dllm_transformers.prefix import PrefixCache
from dllm_transformers.values import check_values

#: What the engine does itself, from the generation config.
_OWN_CRITERIA = (MaxLengthCriteria, EosTokenCriteria)

#: What transformers calls a prefix cache: `cache` since 5.24, `past_key_values` before.
_CACHE_NAMES = ("cache", "past_key_values")

#: Arguments generate() hands to every strategy by itself; their values are checked below.
_KNOWN = frozenset(
    {"attention_mask", "position_ids", "logits_to_keep", *_CACHE_NAMES}
    # Of the generation config, which says whether a user asked for them.
    | {"use_cache", "output_attentions", "output_hidden_states"}
)

#: Fields of the generation config that are honoured, or that nothing here depends on.
HONOURED = frozenset(
    {"max_length", "max_new_tokens", "max_time", "stop_strings", "do_sample", "temperature", "top_k", "top_p"}
    | {"num_return_sequences", "output_scores", "output_logits", "return_dict_in_generate", "pad_token_id"}
    | {"bos_token_id", "eos_token_id", "disable_compile"}
)
#: Fields of it that transformers makes logits processors of.
PROCESSED = frozenset(
    {"repetition_penalty", "no_repeat_ngram_size", "bad_words_ids", "min_new_tokens", "min_length", "sequence_bias"}
    | {"suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id"}
    | {"remove_invalid_values", "exponential_decay_length_penalty"}
)
_BEAMS = "block diffusion has no beam search; leave it out"
_DRAFTS = "drafts come from the denoiser, draft_length so many in every pass; leave it out"
_COPIES = "drafts='prompt_lookup' copies drafts from the text, with draft_length so many in every pass; use those"
_OTHER = "it belongs to another strategy; leave it out"
_CACHE = "the engine caches what the model's attention allows; leave it out"
_PROCESSOR = "it is not supported by block diffusion; leave it out, or call generate() without custom_generate"
_REMEDIES = {
    **dict.fromkeys(("num_beams", "num_beam_groups", "diversity_penalty", "length_penalty", "early_stopping"), _BEAMS),
    **dict.fromkeys(("constraints", "force_words_ids"), _BEAMS),
    **dict.fromkeys(("prompt_lookup_num_tokens", "max_matching_ngram_size"), _COPIES),
    **dict.fromkeys(("assistant_early_exit", "speculation_type", "use_mtp"), _DRAFTS),
    **dict.fromkeys(("num_assistant_tokens", "num_assistant_tokens_schedule"), _DRAFTS),
    **dict.fromkeys(("assistant_confidence_threshold", "assistant_lookbehind"), _DRAFTS),
    **dict.fromkeys(("target_lookbehind", "assistant_ensemble_weight"), _DRAFTS),
    **dict.fromkeys(("penalty_alpha", "dola_layers", "low_memory", "continuous_batching_config"), _OTHER),
    **dict.fromkeys(("use_cache", "cache_implementation", "cache_config", "max_cache_len"), _CACHE),
    "is_assistant": "assisted decoding of transformers asks a model that drafts from left to right; add "
    "custom_generate=dllm_transformers.block_diffusion, and a diffusion model drafts in one pass",
    "prefill_chunk_size": "the engine prefills in tiles of its own; leave it out",
    "output_attentions": "the engine does not keep attention weights; leave it out",
    "output_hidden_states": "the engine does not hand out hidden states; leave it out",
    "guidance_scale": "classifier-free guidance is the option guidance, of the families that have it; use that",
    "compile_config": "the engine compiles nothing here; leave it out",
    "decoder_start_token_id": "the model has no decoder apart; leave it out",
}
#: Values that ask for nothing: transformers' defaults.
_NEUTRAL: dict[str, Any] = default_generation_options()


def asks_for_nothing(name: str, value: Any) -> bool:
    """Whether a value of the generation config is what transformers takes by itself."""
    neutral = _NEUTRAL.get(name)
    if isinstance(value, bool):
        return value is bool(neutral)
    return value is None or (isinstance(value, str | int | float) and bool(value == neutral))


def refuse_options(asked: dict[str, Any]) -> None:
    """Raise for options of generate() that this strategy would otherwise ignore, whatever the mode.

    :param asked: the fields of the generation config that the user set.
    :raises OptionError: naming the argument and what to do instead.
    """
    check_values(asked)
    for name, value in asked.items():
        if name not in HONOURED and name not in PROCESSED and not asks_for_nothing(name, value):
            raise OptionError(f"{name}={shown(value)}: {_REMEDIES.get(name, _PROCESSOR)}")


def refuse_kwargs(input_ids: Tensor, model_kwargs: dict[str, Any]) -> None:
    """Raise for arguments of the model's own forward that are not what they are without being given.

    :raises OptionError: naming the argument and what to do instead.
    """
    for name, value in model_kwargs.items():
        if name not in _KNOWN and value is not None and value is not False:
            raise OptionError(f"{name} is not supported by block diffusion; leave it out")
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


def check_output(config: GenerationConfig, **wanted: Any) -> None:
    """Refuse what only a dict-like output holds where none is asked for.

    :param wanted: arguments of the strategy, None for not given; they may stand on the config, too.
    :raises OptionError: naming both.
    """
    for name, value in wanted.items():
        found = (getattr(config, name, None) or None) if value is None else value
        if found is not None and not config.return_dict_in_generate:
            raise OptionError(
                f"{name}={shown(found)} needs return_dict_in_generate=True, whose output holds them; set both or "
                f"neither"
            )


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


def seed_of(seed: Any) -> int:
    """The first row's seed; drawn from torch's generator if not given.

    :raises OptionError: for anything but a whole number that is not negative.
    """
    if seed is None:
        return int(torch.randint(LARGEST_SEED, ()))
    return int(SamplingConfig(seed=seed).seed or 0)


def sampling(config: GenerationConfig, new_tokens: int, drawing: dict[str, Any], **options: Any) -> SamplingConfig:
    """The engine's options; an explicit argument goes before the generation config.

    :param new_tokens: room for the answer.
    :param drawing: how tokens are drawn; see :mod:`dllm_transformers.drawing`.
    :param options: arguments of the strategy; None for not given.
    :raises OptionError: for a value out of range.
    """
    given: dict[str, Any] = {"max_new_tokens": new_tokens, **drawing}
    for name, value in options.items():
        found = getattr(config, name, None) if value is None else value
        if found is not None:
            given[name] = found
    return SamplingConfig(**given)
