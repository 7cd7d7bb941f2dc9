"""Prompts with mask ids inside: the templates that they are, where their gaps begin, and the prompt filled."""

from collections.abc import Mapping
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Finish
from dllm_plugins.request import Request
from dllm_plugins.template import Gap
from dllm_transformers.constraining import OfRow
from dllm_transformers.constraining import of_gaps

#: Options of generate() by which a user asks for new tokens behind the prompt.
_ROOM = frozenset({"max_new_tokens", "max_length"})


def template_of(
    prompt: Sequence[int], mask: int, room: int, constraint: OfRow = None
) -> tuple[list[int], list[list[int] | Gap]]:
    """What stands before the first mask of a prompt, and from there gaps of as many tokens as there are masks.

    :param room: most new tokens behind the prompt; 0 for none.
    :param constraint: what gaps must be, and what is written behind the prompt.
    :raises OptionError: for constraints of another number of gaps.
    """
    first = list(prompt).index(mask)
    runs = [(masked, list(run)) for masked, run in groupby(prompt[first:], key=mask.__eq__)]
    held = iter(of_gaps(constraint, sum(masked for masked, _ in runs), behind=room > 0))
    parts: list[list[int] | Gap] = [
        Gap(tokens=len(run), constraint=next(held)) if masked else run for masked, run in runs
    ]
    behind = [Gap(max_tokens=room, constraint=next(held))] if room else []
    return list(prompt[:first]), [*parts, *behind]


def request_of(
    tokens: list[int], config: SamplingConfig, mask: int, room: int, constraint: OfRow, **given: Any
) -> Request:
    """What the engine is asked for a prompt: to go on from it, or to fill its gaps.

    :param room: most new tokens behind the prompt; 0 for none.
    :param constraint: what the answer must be; where there are gaps, what each of them must be.
    :param given: other fields of the request.
    :raises OptionError: for constraints of another number of gaps.
    """
    if mask not in tokens:
        [held] = of_gaps(constraint, 0, behind=True)
        return Request(tokens, config if held is None else config.with_options(constraint=held), **given)
    before, parts = template_of(tokens, mask, room, constraint)
    options = {name: value for name, value in config.given().items() if name != "max_new_tokens"}
    return Request(before, SamplingConfig(**options), template=parts, **given)


def room_behind(prompts: Sequence[Sequence[int]], mask: int, asked: Mapping[str, Any] | None, room: int) -> int:
    """How many new tokens are written behind prompts: none behind gaps, unless somebody asks for them.

    :param asked: options that the user set himself; None if nobody can tell.
    :raises RequestError: for prompts of which some have gaps, and nobody says how long the answers of others get.
    """
    gaps = [mask in prompt for prompt in prompts]
    if asked is None or not any(gaps) or any(asked.get(name) is not None for name in _ROOM):
        return room
    if not all(gaps):
        raise RequestError(
            f"prompt {gaps.index(False)} of the batch has no mask to fill, and others have; give max_new_tokens, which "
            f"is written behind every prompt, or fill gaps in a batch of their own"
        )
    return 0


def mode_of(mode: str | None, prompts: Sequence[Sequence[int]], mask: int, fills: Sequence[str]) -> str | None:
    """The mode that was asked for, or the first that fills gaps where there are any.

    :raises OptionError: where none does.
    """
    if mode is not None or not any(mask in prompt for prompt in prompts):
        return mode
    if not fills:
        raise OptionError(f"the prompt holds the mask id {mask}, and this model fills no gaps; remove it")
    return fills[0]


def behind_gaps(prompts: Sequence[Sequence[int]], mask: int) -> list[int]:
    """For each prompt, how many tokens of its answer lie inside it: those from its first gap on; 0 without one."""
    return [len(prompt) - list(prompt).index(mask) if mask in prompt else 0 for prompt in prompts]


def filled(input_ids: Tensor, done: Sequence[Finish], inside: Sequence[int], mask: int, pad: int) -> Tensor:
    """Prompts with their gaps filled in place, int64 [batch, length].

    Given tokens stay as they are. A gap behind a token that ended the answer holds what stood there
    then, and the pad token where that was open.

    :param input_ids: int64 [batch, length], padded on the left.
    """
    rows = input_ids.clone()
    for row, finish, count in zip(rows, done, inside, strict=True):
        if not count:
            continue
        canvas = [*finish.tokens, *finish.rest][:count]
        canvas += [None] * (count - len(canvas))
        found = torch.tensor([pad if token is None else token for token in canvas]).to(row)
        part = row[len(row) - count :]
        row[len(row) - count :] = torch.where(part == mask, found, part)
    return rows
