"""Cached-prefix block sampling as a `custom_generate` callable."""

import inspect
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import GenerationConfig
from transformers import LogitsProcessorList
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase
from transformers import StoppingCriteriaList
from transformers.generation.stopping_criteria import StopStringCriteria
from transformers.generation.streamers import BaseStreamer

from dllm_plugins import plugins
from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.engine.admission import filling
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.errors import calling
from dllm_plugins.messages import shown
from dllm_plugins.routing.router import stands
from dllm_plugins.sharing import SharedModel
from dllm_plugins.text.tokenizer import LightTokenizer
from dllm_transformers.asked import option_names
from dllm_transformers.assisting import Assistant
from dllm_transformers.assisting import assistant_of
from dllm_transformers.assisting import assisted
from dllm_transformers.constraining import OfBatch
from dllm_transformers.constraining import of_rows
from dllm_transformers.decode import decode
from dllm_transformers.delivery import delivery
from dllm_transformers.delivery import ending
from dllm_transformers.drawing import drawing
from dllm_transformers.fitted import GenerateArguments
from dllm_transformers.gaps import behind_gaps
from dllm_transformers.gaps import filled
from dllm_transformers.gaps import mode_of
from dllm_transformers.gaps import request_of
from dllm_transformers.gaps import room_behind
from dllm_transformers.host import given_to_generate
from dllm_transformers.options import check_output
from dllm_transformers.options import own_criteria
from dllm_transformers.options import pad_id
from dllm_transformers.options import refuse_arguments
from dllm_transformers.options import refuse_kwargs
from dllm_transformers.options import refuse_options
from dllm_transformers.options import sampling
from dllm_transformers.options import seed_of
from dllm_transformers.options import stop_ids
from dllm_transformers.options import users_cache
from dllm_transformers.output import DiffusionOutput
from dllm_transformers.output import output_of
from dllm_transformers.output import sequences_of
from dllm_transformers.prefix import prefix_cache
from dllm_transformers.processing import of_row
from dllm_transformers.values import TRANSFORMERS
from dllm_transformers.values import check_helpers
from dllm_transformers.values import check_tensors
from dllm_transformers.weights import shared_model_of


def block_diffusion(
    model: PreTrainedModel,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList | None = None,
    stopping_criteria: StoppingCriteriaList | None = None,
    generation_config: GenerationConfig | None = None,
    *,
    mode: str | None = None,
    drafts: str | None = None,
    draft_length: int | None = None,
    block_length: int | None = None,
    rule: str | None = None,
    threshold: float | None = None,
    factor: float | None = None,
    guidance: float | None = None,
    rule_options: dict[str, Any] | None = None,
    revoke: str | None = None,
    revoke_options: dict[str, Any] | None = None,
    steps: int | None = None,
    approximate_cache: str | None = None,
    refresh: int | None = None,
    preset_options: dict[str, Any] | None = None,
    constraint: OfBatch = None,
    logprobs: int | None = None,
    logprobs_at: str | None = None,
    stats: bool | None = None,
    seed: int | None = None,
    denoiser: str | Path | None = None,
    stop_strings: str | list[str] | None = None,
    streamer: BaseStreamer | None = None,
    tokenizer: PreTrainedTokenizerBase | LightTokenizer | None = None,
    assistant_model: PreTrainedModel | None = None,
    assistant_tokenizer: PreTrainedTokenizerBase | None = None,
    **model_kwargs: Any,
) -> Tensor | DiffusionOutput:
    """Pass as `model.generate(**inputs, custom_generate=block_diffusion, ...)`; diffusion models do so themselves.

    What is honoured and what raises: docs/transformers.md.

    :param model: a SmolLM2-135M-Instruct in any float dtype, a tri-mode or a diffusion model.
    :param input_ids: int64 [batch, length]; mask ids inside are gaps, which models that fill them fill in place.
        Nothing is then written behind a prompt, unless `max_new_tokens` or `max_length` asks for it.
    :param mode: see :class:`~dllm_plugins.config.SamplingConfig`, as for the options after it.
    :param constraint: what every answer must be; beside mask ids, what every gap must be. A list has one for each
        prompt, None for one that may be anything; in it, a list has one for each run of mask ids, and one more for what
        is written behind the prompt.
    :param logprobs: fill `logprobs` of the output, and so needs `return_dict_in_generate`.
    :param stats: the same for `parts`.
    :param seed: row i of the batch samples with seed + i; drawn from torch's generator if not given.
    :param denoiser: file with the denoiser's weights; None for the model's own or the shipped ones.
    :param stop_strings: end an answer at these; needs `tokenizer`, as in transformers.
    :param tokenizer: the model's, which turns ids into text.
    :param assistant_model: a diffusion model that drafts; the text is that of `model` in mode `ar`, which may then be
        any Llama, Qwen2 or Qwen3. As an argument of generate() it is found, too.
    :param assistant_tokenizer: its tokenizer, where the two read other ids; needs `tokenizer`.
    :returns: int64 [batch, length + longest answer], gaps filled in place, answers padded on the right; with
        `return_dict_in_generate`, a :class:`~dllm_transformers.DiffusionOutput`.
    :raises OptionError: for what this strategy cannot honour.
    :raises CheckpointError: if the model is not of a supported family.
    """
    given = given_to_generate(model, inspect.currentframe())
    with calling(TRANSFORMERS), ending(streamer or given.streamer):
        config = generation_config or model.generation_config
        check_tensors(input_ids, model_kwargs)
        check_helpers(streamer or given.streamer, logits_processor, stopping_criteria)
        refuse_arguments(given.refused)
        assistant = assistant_of(
            assistant_model or given.assistant_model,
            tokenizer or given.tokenizer,
            assistant_tokenizer or given.assistant_tokenizer,
        )
        # Called by hand, everything in the config is the caller's.
        asked = vars(config) if given.asked is None else given.asked
        asked = {name: value for name, value in asked.items() if name in option_names()}
        refuse_options(asked)
        refuse_kwargs(input_ids, model_kwargs)
        check_output(config, stats=stats or None, logprobs=logprobs)
        criteria = own_criteria(stopping_criteria)
        if stop_strings is not None:
            criteria.append(_stop_string_criteria(stop_strings, tokenizer or given.tokenizer))
        options = {
            "mode": mode,
            "drafts": drafts,
            "draft_length": draft_length,
            "block_length": block_length,
            "rule": rule,
            "threshold": threshold,
            "factor": factor,
            "guidance": guidance,
            "rule_options": rule_options,
            "revoke": revoke,
            "revoke_options": revoke_options,
            "steps": steps,
            "approximate_cache": approximate_cache,
            "refresh": refresh,
            "preset_options": preset_options,
            "logprobs": logprobs,
            "logprobs_at": logprobs_at,
            "stats": stats,
        }
        first, shared = seed_of(seed), _shared(model, denoiser, assistant)
        spec, mask = shared.model.denoiser.spec, shared.model.denoiser.spec.mask_id
        prompts = _prompts(input_ids, model_kwargs.get("attention_mask"))
        options["mode"] = mode_of(mode or getattr(config, "mode", None), prompts, mask, filling(plugins.modes(), spec))
        room = room_behind(prompts, mask, given.asked, int(config.max_length) - input_ids.shape[1])
        plain = sampling(config, room or 1, {}, **options)
        constraint = getattr(config, "constraint", None) if constraint is None else constraint
        held = of_rows(constraint, len(prompts), int(config.num_return_sequences or 1))
        reader = _reader(constraint, tokenizer or given.tokenizer)
        modes = [
            stands(
                request_of(tokens, plain, mask, room, constrained, tokenizer=reader),
                plugins.modes(),
                shared.model.tokenizer,
                spec,
            )
            for tokens, constrained in zip(prompts, held, strict=True)
        ]
        arrived, built = list(logits_processor or []), given.asked is not None
        told = GenerateArguments(
            asked, drawing(config, asked), plain, arrived, (given.processors if built else arrived) or [], built
        )
        fitted = {mode: told.of(mode, shared) for mode in dict.fromkeys(modes)}
        cache = prefix_cache(users_cache(model_kwargs), shared, fitted, bool(config.return_dict_in_generate))
        scored = bool(config.return_dict_in_generate and (config.output_scores or config.output_logits))
        requests = [
            request_of(
                tokens,
                # Greedy decoding may need noise too: commit rules at random, canvases that begin with random tokens.
                sampling(
                    config,
                    room or 1,
                    {**fitted[mode].options, "seed": (first + place) % (LARGEST_SEED + 1)},
                    **options,
                ),
                mask,
                room,
                held[place],
                stop_ids=stop_ids(config),
                prefixes=None if cache is None else cache.prefixes,
                logits=scored,
                tokenizer=reader,
                processors=of_row(fitted[mode].processors, input_ids[place, : input_ids.shape[1] - len(tokens)]),
            )
            for place, (tokens, mode) in enumerate(zip(prompts, modes, strict=True))
        ]
        target = delivery(streamer or given.streamer, len(requests), pad_id(config), mask)
        if streamer is not None:
            # generate() shows the prompt to the streamers it is given itself, and skip_prompt counts on it.
            streamer.put(input_ids.cpu())
        inside = behind_gaps(prompts, mask)
        done = decode(shared, requests, input_ids.cpu(), criteria, target, inside)
    sequences = sequences_of(filled(input_ids, done, inside, mask, pad_id(config)), done, config, inside)
    if not config.return_dict_in_generate:
        return sequences
    vocabulary = shared.model.denoiser.spec.vocabulary
    return output_of(
        sequences,
        input_ids.shape[1],
        done,
        config,
        [fitted[mode].scoring for mode in modes],
        cache,
        vocabulary,
        inside,
    )


def _shared(model: PreTrainedModel, denoiser: str | Path | None, assistant: Assistant | None) -> SharedModel:
    return shared_model_of(model, denoiser) if assistant is None else assisted(model, denoiser, assistant)


def _reader(constraint: object, tokenizer: Any) -> Any:
    """What tells which text tokens stand for, where a constraint has to know.

    :raises OptionError: if it has to, and there is none.
    """
    return None if constraint is None else _given_tokenizer("constraint", constraint, tokenizer)


def _given_tokenizer(option: str, value: object, tokenizer: Any) -> PreTrainedTokenizerBase | LightTokenizer:
    if tokenizer is None:
        raise OptionError(f"{option}={shown(value)} needs the model's tokenizer; pass tokenizer=tokenizer beside it")
    if not isinstance(tokenizer, PreTrainedTokenizerBase | LightTokenizer):
        raise OptionError(f"tokenizer={shown(tokenizer)} is no tokenizer; pass the model's")
    return tokenizer


def _stop_string_criteria(stop_strings: str | list[str], tokenizer: Any) -> StopStringCriteria:
    tokenizer = _given_tokenizer("stop_strings", stop_strings, tokenizer)
    tokenizer = tokenizer.in_transformers if isinstance(tokenizer, LightTokenizer) else tokenizer
    texts = [stop_strings] if isinstance(stop_strings, str) else stop_strings
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise OptionError(f"stop_strings={shown(stop_strings)}: give a text or a list of texts, none of them empty")
    return StopStringCriteria(tokenizer=tokenizer, stop_strings=list(texts))


def _prompts(input_ids: Tensor, mask: Tensor | None) -> list[list[int]]:
    """Rows without their padding.

    :raises RequestError: for padding elsewhere than on the left.
    """
    if mask is None:
        rows: list[list[int]] = input_ids.tolist()
        return rows
    kept = mask.bool()
    if bool((kept[:, :-1] & ~kept[:, 1:]).any()):
        raise RequestError("attention_mask hides positions that are not on the left; set padding_side='left'")
    return [row[keep].tolist() for row, keep in zip(input_ids, kept, strict=True)]
