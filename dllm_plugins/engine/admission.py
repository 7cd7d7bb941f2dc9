"""What is asked of a request before it is taken in, and the row it becomes."""

import secrets
from collections.abc import Mapping
from collections.abc import Sequence
from operator import index

from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.row import OpenGap
from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.messages import message
from dllm_plugins.modes.base import Sampler
from dllm_plugins.noise import RowNoise
from dllm_plugins.request import Request
from dllm_plugins.template import Gap


def sampler_of(modes: Mapping[str, Sampler], mode: str | None, spec: ModelSpec) -> Sampler:
    """The sampler behind a mode of this model.

    :raises OptionError: if the model does not serve it.
    """
    known = {name: spec.samplers.get(name, name) for name in spec.modes}
    sampler = modes.get(known.get(mode or "", ""))
    if sampler is None and mode is not None and mode in spec.refused:
        raise OptionError(message("{mode} {!r} is not served by {}: {}", mode, spec.name, spec.refused[mode]))
    if sampler is None:
        served = ", ".join(name for name, sampler in known.items() if sampler in modes)
        raise OptionError(message("unknown {mode} {!r}; modes of {}: {}, and auto", mode, spec.name, served))
    return sampler


def filling(modes: Mapping[str, Sampler], spec: ModelSpec) -> list[str]:
    """The modes of a model that fill gaps."""
    known = {name: modes.get(spec.samplers.get(name, name)) for name in spec.modes}
    return [name for name, sampler in known.items() if sampler is not None and sampler.suffix]


def room_of(template: Sequence[Sequence[int] | Gap]) -> int:
    """Positions from the first gap to the end of the last; 1 where there is none, which is refused later."""
    gaps = [number for number, part in enumerate(template) if isinstance(part, Gap)]
    inside = template[gaps[0] : gaps[-1] + 1] if gaps else ()
    return sum(part.room if isinstance(part, Gap) else len(part) for part in inside) or 1


def check_prompt(request: Request, sampler: Sampler, spec: ModelSpec, fills: Sequence[str]) -> list[int]:
    """The tokens of a prompt that can be used.

    :param fills: the model's modes that fill gaps.
    :raises RequestError: for one that is empty, too long, or holds ids it must not hold.
    :raises OptionError: for what stands behind a gap where the mode fills none.
    """
    try:
        tokens = [index(token) for token in request.tokens]
        parts = [part if isinstance(part, Gap) else tuple(index(token) for token in part) for part in request.template]
    except TypeError as error:
        raise RequestError(f"the prompt holds something that is no token id ({error}); give integers") from error
    if not tokens and (not parts or (isinstance(parts[0], Gap) and spec.cache == "exact")):
        if not parts:
            raise RequestError("the prompt is empty; give at least one token")
        raise RequestError(
            f"nothing stands before the first gap, and {spec.name} predicts a token from those before it; put one "
            f"there: text, or the id that begins texts (bos_token)"
        )
    fixed = [token for part in parts if not isinstance(part, Gap) for token in part]
    rooms = [part.room for part in parts if isinstance(part, Gap)]
    check_gaps(request, sampler, len(rooms), fills)
    length, most = len(tokens) + len(request.suffix) + len(fixed) + sum(rooms), spec.context - (not parts)
    if length > most:
        raise RequestError(
            f"the prompt has {length} tokens, but {spec.name} holds {spec.context} with its answer; shorten it"
        )
    for position, token in enumerate([*tokens, *request.suffix, *fixed]):
        if token == spec.mask_id and not (sampler.holes and position < len(tokens) and not parts):
            raise RequestError(f"the prompt holds the mask id {token} at position {position}; remove it")
        if not 0 <= token < spec.vocabulary and token != spec.mask_id:
            raise RequestError(
                f"the prompt holds id {token} at position {position}, outside 0 to {spec.vocabulary - 1}"
            )
    return tokens


def check_gaps(request: Request, sampler: Sampler, count: int, fills: Sequence[str]) -> None:
    """Refuse gaps that a mode does not fill.

    :param count: of the template.
    :param fills: the model's modes that do.
    :raises OptionError: naming the modes that do, or that there is none.
    :raises RequestError: for a template that is none.
    """
    if request.template and not count:
        raise RequestError("the template has no gap, so there is nothing to fill; put a Gap into it")
    if request.template and request.suffix:
        raise RequestError(f"the suffix of {len(request.suffix)} tokens belongs into the template, as its last part")
    if request.template and "max_new_tokens" in request.config.given():
        raise OptionError(
            message(
                "{max_new_tokens}={} has no effect beside a template, whose gaps say how long they are; leave it out, "
                "or give Gap(max_tokens=...)",
                request.config.max_new_tokens,
            )
        )
    bounded = any(isinstance(part, Gap) and part.bounded for part in request.template)
    if request.template and request.config.stop and not bounded:
        raise OptionError(
            f"stop={list(request.config.stop)} has no effect on gaps of a fixed length; leave it out, or give "
            f"Gap(max_tokens=...)"
        )
    if (count or request.suffix) and not sampler.suffix:
        fixed = f"leave the suffix of {len(request.suffix)} tokens out" if request.suffix else "ask without a template"
        remedy = f"use mode {' or '.join(map(repr, fills))}" if fills else f"{fixed}, or choose a model that fills gaps"
        raise OptionError(
            f"mode {(request.config.mode or sampler.name)!r} writes to the end of the text and sees nothing behind "
            f"what it writes, so it fills no gaps; {remedy}"
        )


def row_of(request: Request, config: SamplingConfig, tokens: list[int], spec: ModelSpec) -> Row:
    """The row of a request, without number and handle as yet; its answer has no more than the room that is left."""
    gaps: tuple[OpenGap, ...] = ()
    suffix, requested = tuple(request.suffix), config.max_new_tokens
    if request.template:
        tokens, given, suffix, gaps = _laid_out(tokens, request.template, spec.mask_id)
        length = requested = len(given)
    else:
        prompt = tokens.index(spec.mask_id) if spec.mask_id in tokens else len(tokens)
        tokens, given = tokens[:prompt], tokens[prompt:]
        length = min(requested, spec.context - prompt - len(given) - len(suffix)) + len(given)
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
        suffix=suffix,
        gaps=gaps,
        requested=requested,
    )


def _laid_out(
    tokens: list[int], template: Sequence[Sequence[int] | Gap], mask: int
) -> tuple[list[int], list[int], tuple[int, ...], tuple[OpenGap, ...]]:
    """What stands before the first gap, from there to the end of the last one, and behind that; and the gaps."""
    canvas, gaps = list(tokens), list[OpenGap]()
    for part in template:
        if isinstance(part, Gap):
            gap = OpenGap(len(canvas), len(canvas) + part.room, part.room, part.bounded, part.constraint)
            gap.old, gap.head = part.old, part.head
            gaps.append(gap)
            canvas += [mask] * part.room
        else:
            canvas += part
    first, last = gaps[0].start, gaps[-1].stop
    return canvas[:first], canvas[first:last], tuple(canvas[last:]), tuple(gaps)
