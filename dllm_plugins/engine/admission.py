"""What is asked of a request before it is taken in, and the row it becomes."""

import secrets
from collections.abc import Mapping
from operator import index

from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.messages import message
from dllm_plugins.modes.base import Sampler
from dllm_plugins.noise import RowNoise
from dllm_plugins.request import Request


def sampler_of(modes: Mapping[str, Sampler], mode: str | None, spec: ModelSpec) -> Sampler:
    """The sampler behind a mode of this model.

    :raises OptionError: if the model does not serve it.
    """
    known = {name: spec.samplers.get(name, name) for name in spec.modes}
    sampler = modes.get(known.get(mode or "", ""))
    if sampler is None and mode is not None and mode in spec.refused:
        raise OptionError(message("mode {!r} is not served by {}: {}", mode, spec.name, spec.refused[mode]))
    if sampler is None:
        served = ", ".join(name for name, sampler in known.items() if sampler in modes)
        raise OptionError(f"unknown mode {mode!r}; modes of {spec.name}: {served}")
    return sampler


def check_prompt(request: Request, sampler: Sampler, spec: ModelSpec) -> list[int]:
    """The tokens of a prompt that can be used.

    :raises RequestError: for one that is empty, too long, or holds ids it must not hold.
    :raises OptionError: for a suffix where the mode fills no gaps.
    """
    try:
        tokens = [index(token) for token in request.tokens]
    except TypeError as error:
        raise RequestError(f"the prompt holds something that is no token id ({error}); give integers") from error
    if not tokens:
        raise RequestError("the prompt is empty; give at least one token")
    if request.suffix and not sampler.suffix:
        raise OptionError(
            f"mode {sampler.name!r} writes to the end of the text; leave the suffix of {len(request.suffix)} "
            f"tokens out, or choose a model that fills gaps"
        )
    if len(tokens) + len(request.suffix) >= spec.context:
        raise RequestError(
            f"the prompt has {len(tokens) + len(request.suffix)} tokens, but {spec.name} holds {spec.context} "
            f"with its answer; shorten it"
        )
    for position, token in enumerate([*tokens, *request.suffix]):
        if token == spec.mask_id and not (sampler.holes and position < len(tokens)):
            raise RequestError(f"the prompt holds the mask id {token} at position {position}; remove it")
        if not 0 <= token < spec.vocabulary and token != spec.mask_id:
            raise RequestError(
                f"the prompt holds id {token} at position {position}, outside 0 to {spec.vocabulary - 1}"
            )
    return tokens


def row_of(request: Request, config: SamplingConfig, tokens: list[int], spec: ModelSpec) -> Row:
    """The row of a request, without number and handle as yet; its answer has no more than the room that is left."""
    prompt = tokens.index(spec.mask_id) if spec.mask_id in tokens else len(tokens)
    tokens, given = tokens[:prompt], tokens[prompt:]
    room = spec.context - len(tokens) - len(given) - len(request.suffix)
    requested, length = config.max_new_tokens, min(config.max_new_tokens, room) + len(given)
    if length != config.max_new_tokens:
        config = config.model_copy(update={"max_new_tokens": length})
    seed = config.seed if config.seed is not None else secrets.randbelow(LARGEST_SEED)
    return Row(
        number=0,
        handle=0,
        tokens=tokens,
        prompt=len(tokens),
        config=config,
        noise=RowNoise(seed) if request.noise is None else request.noise,
        vocabulary=spec.vocabulary,
        mask=spec.mask_id,
        stop_ids=spec.stop_ids if request.stop_ids is None else request.stop_ids,
        given=tuple(given),
        logits={} if request.logits else None,
        said=None if config.logprobs is None else {},
        suffix=tuple(request.suffix),
        requested=requested,
    )
