"""What generate() is given and does not hand on to a strategy.

transformers rebinds its arguments for a callable `custom_generate`: `streamer`,
`tokenizer`, `assistant_model` and a few more never arrive (`_extract_generation_mode_kwargs`
of transformers 5.24). A user would see a streamer that stays silent, or a draft model
that is never asked. So the strategy looks at its caller's arguments; it only reads them.
"""

import inspect
from dataclasses import dataclass
from types import FrameType
from typing import Any

from transformers.generation.utils import GenerationMixin

from dllm_transformers.asked import asked_for

#: Arguments of generate() that have no place in block diffusion, and what to do instead.
REFUSED = {
    "prefix_allowed_tokens_fn": "it steers one next token at a time; leave it out",
    "synced_gpus": "every process decodes for itself; leave it out",
    "negative_prompt_ids": "there is no classifier-free guidance; leave it out",
    "negative_prompt_attention_mask": "there is no classifier-free guidance; leave it out",
}


@dataclass(frozen=True, slots=True)
class CallerArguments:
    """Arguments of the generate() call that a strategy does not get.

    :param asked: the generation options that the user set himself; None if nothing called generate().
    :param processors: those that the user handed in.
    """

    streamer: Any
    tokenizer: Any
    refused: dict[str, Any]
    asked: dict[str, Any] | None = None
    processors: Any = None
    assistant_model: Any = None
    assistant_tokenizer: Any = None


def given_to_generate(model: Any, strategy: FrameType | None) -> CallerArguments:
    """The arguments of the generate() call that called `strategy`, all None if nothing did.

    :param strategy: the strategy's own frame.
    """
    code = inspect.unwrap(GenerationMixin.generate).__code__
    caller = None if strategy is None else strategy.f_back
    if caller is None or caller.f_code is not code:
        return CallerArguments(None, None, {})
    found = caller.f_locals
    refused = {name: found.get(name) for name in REFUSED}
    # `tokenizer` and `assistant_tokenizer` are popped from generate()'s own kwargs; its decorators still hold theirs.
    outer, beyond = _outside(caller)
    asked = asked_for(model, outer.get("generation_config"), outer, beyond)
    return CallerArguments(
        found.get("streamer"),
        outer.get("tokenizer"),
        refused,
        asked,
        outer.get("logits_processor"),
        found.get("assistant_model"),
        outer.get("assistant_tokenizer"),
    )


def _outside(generate: FrameType) -> tuple[dict[str, Any], FrameType | None]:
    """Arguments by their names as the decorators of generate() got them, and the frame that called it.

    Our own `generate` stands between the two where a model's class calls it.
    """
    codes, function = set(), GenerationMixin.generate
    names = list(inspect.signature(function).parameters)
    while hasattr(function, "__wrapped__"):
        codes.add(function.__code__)
        function = function.__wrapped__
    found: dict[str, Any] = {}
    frame = generate.f_back
    while frame is not None and frame.f_code in codes:
        placed = dict(zip(names, frame.f_locals.get("args", ()), strict=False))
        found = {**placed, **frame.f_locals.get("kwargs", {}), **found}
        frame = frame.f_back
    return found, outside_ours(frame)


def outside_ours(frame: FrameType | None) -> FrameType | None:
    """The first frame that is not of this package."""
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "dllm_transformers":
        frame = frame.f_back
    return frame
