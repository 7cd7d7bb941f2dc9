"""Cached-prefix block sampling as a `custom_generate` callable."""

from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig
from transformers import LogitsProcessorList
from transformers import PreTrainedModel
from transformers import StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Finish
from dllm_plugins.request import Request
from dllm_plugins.sharing import SharedModel
from dllm_transformers.options import refuse
from dllm_transformers.options import sampling
from dllm_transformers.options import stop_ids
from dllm_transformers.weights import shared_model_of


def block_diffusion(
    model: PreTrainedModel,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList | None = None,
    stopping_criteria: StoppingCriteriaList | None = None,
    generation_config: GenerationConfig | None = None,
    *,
    mode: str | None = None,
    draft_length: int | None = None,
    block_length: int | None = None,
    rule: str | None = None,
    threshold: float | None = None,
    factor: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    denoiser: str | Path | None = None,
    streamer: BaseStreamer | None = None,
    **model_kwargs: Any,
) -> Tensor:
    """Pass as `model.generate(**inputs, custom_generate=block_diffusion, ...)`.

    Honoured: max_new_tokens, max_length, do_sample, temperature, top_k, top_p,
    eos_token_id, pad_token_id, num_return_sequences, left-padded batches, and the
    options below, given to generate() or set on the generation config. generate() does
    not hand its `streamer` on to a callable; use
    `custom_generate=functools.partial(block_diffusion, streamer=streamer)`.

    :param model: a SmolLM2-135M-Instruct in any float dtype.
    :param input_ids: int64 [batch, length].
    :param mode: see :class:`~dllm_plugins.config.SamplingConfig`, as for the options after it.
    :param seed: row i of the batch samples with seed + i; drawn from torch's generator if not given.
    :param denoiser: file with the denoiser's weights; None for the shipped ones.
    :returns: int64 [batch, length + longest answer], answers padded on the right.
    :raises OptionError: for what this strategy cannot honour.
    :raises CheckpointError: if the model is not of a supported family.
    """
    config = generation_config or model.generation_config
    refuse(config, logits_processor, stopping_criteria, model_kwargs)
    if streamer is not None and len(input_ids) > 1:
        raise OptionError(f"a streamer takes one row, the batch has {len(input_ids)}; generate row by row")
    first = int(torch.randint(LARGEST_SEED, ())) if seed is None else seed
    options = {
        "mode": mode,
        "draft_length": draft_length,
        "block_length": block_length,
        "rule": rule,
        "threshold": threshold,
        "factor": factor,
        "steps": steps,
    }
    room = _room(config, input_ids)
    requests = [
        Request(tokens, sampling(config, room, first + place, **options), stop_ids(config))
        for place, tokens in enumerate(_prompts(input_ids, model_kwargs.get("attention_mask")))
    ]
    shared = shared_model_of(model, denoiser)
    done = shared.generate(requests) if streamer is None else [_stream(shared, requests[0], streamer)]
    return _sequences(input_ids, done, config)


def _room(config: GenerationConfig, input_ids: Tensor) -> int:
    if config.max_length is not None:
        return int(config.max_length) - input_ids.shape[1]
    return int(config.max_new_tokens or 20)


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


def _answer(finish: Finish) -> list[int]:
    """Generated ids, the end-of-text token included, as generate() returns them."""
    return [*finish.tokens, *([] if finish.stop_token is None else [finish.stop_token])]


def _stream(shared: SharedModel, request: Request, streamer: BaseStreamer) -> Finish:
    """Committed ids go to `put`, drafts to `put_draft` where the streamer has it."""
    draw = getattr(streamer, "put_draft", None)
    # generate() does this for the streamers it knows of, and skip_prompt counts on it.
    streamer.put(torch.tensor(request.tokens))
    for event in shared.stream(request):
        if isinstance(event, Commit) and event.tokens:
            streamer.put(torch.tensor(event.tokens))
        elif isinstance(event, Draft) and draw is not None:
            known = list(takewhile(lambda token: token is not None, event.tokens))
            if known:
                draw(torch.tensor([known]))
        elif isinstance(event, Finish):
            if event.stop_token is not None:
                streamer.put(torch.tensor([event.stop_token]))
            streamer.end()
            return event
    raise AssertionError("a stream ends with Finish")


def _sequences(input_ids: Tensor, done: Sequence[Finish], config: GenerationConfig) -> Tensor:
    answers = [_answer(finish) for finish in done]
    longest = max(len(answer) for answer in answers)
    pad = int(config.pad_token_id) if config.pad_token_id is not None else min(stop_ids(config), default=0)
    padded = torch.tensor([answer + [pad] * (longest - len(answer)) for answer in answers])
    return torch.cat([input_ids, padded.to(input_ids)], dim=1)
