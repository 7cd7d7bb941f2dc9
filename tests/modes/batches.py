"""Unequal requests of one sampler, and a batch beside its rows alone."""

from collections.abc import Sequence
from typing import Any

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig

NEVER: frozenset[int] = frozenset()


def unequal(
    mode: str, prompts: Sequence[list[int]], options: dict[str, Any], begin: int = 6, more: int = 1, **common: Any
) -> list[Request]:
    """A request for each prompt: lengths from `begin` on by `more`, seeds, temperatures from 0 on."""
    return [
        Request(
            prompt,
            SamplingConfig(
                mode=mode,
                max_new_tokens=begin + more * number,
                temperature=number / 2,
                seed=number,
                preset_options=options,
                **common,
            ),
            stop_ids=NEVER,
        )
        for number, prompt in enumerate(prompts)
    ]


def equal_alone(model: Model, requests: Sequence[Request]) -> list[Finish]:
    """Decode a batch and check that each row has the tokens and passes that it has alone."""
    together = model.engine().generate(requests)
    alone = [model.engine().generate([request])[0] for request in requests]
    assert [found.tokens for found in together] == [found.tokens for found in alone]
    assert [found.usage.passes for found in together] == [found.usage.passes for found in alone]
    return together
