"""Constraints on the default model: real words, real tokens, drafts of a trained denoiser."""

import json
import re
from typing import Any

import pytest

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.constraints.validation import validated
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.constraints.values import Regex

STRING = r'"([^"\\\x00-\x1f]|\\["\\/bfnrt]){0,40}"'
PERSON = rf'\{{"name": {STRING}, "age": (0|[1-9][0-9]{{0,2}}), "hobbies": \[({STRING}(, {STRING}){{0,3}})?\]\}}'
CHAT = [{"role": "user", "content": "Describe Ada Lovelace as JSON with name, age and hobbies."}]


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "seed": 5}], ids=["greedy", "sampled"])
def test_drafts_under_a_constraint_change_nothing_but_the_passes(
    default_model: Model, sampling: dict[str, Any]
) -> None:
    """Mode speculative has the tokens of ar, in fewer passes, and both have fewer than tokens."""
    engine, prompt = default_model.engine(), default_model.encode_chat(CHAT)

    def told(mode: str, **options: Any) -> Any:
        config = SamplingConfig(mode=mode, max_new_tokens=80, constraint=Regex(PERSON), **sampling, **options)
        return engine.generate([Request(prompt, config)])[0]

    ar = told("ar")
    assert json.loads(ar.text).keys() == {"name", "age", "hobbies"}
    assert ar.usage.total_passes < len(ar.tokens)
    for options in ({"draft_length": 3}, {"drafts": "prompt_lookup"}):
        found = told("speculative", **options)
        assert (found.tokens, found.reason) == (ar.tokens, ar.reason)
    drafted = told("speculative", draft_length=3)
    assert drafted.usage.total_passes < ar.usage.total_passes
    assert re.fullmatch(PERSON, told("diffusion").text)


def test_a_schema_is_fulfilled_in_every_mode(default_model: Model) -> None:
    """Properties, bounds and patterns, the values what an independent validator allows."""
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "zip": {"type": "string", "pattern": "^[0-9]{5}$"},
        },
        "required": ["name", "age", "zip"],
    }
    engine, prompt = default_model.engine(), default_model.encode_chat(CHAT)
    for mode in ("ar", "diffusion"):
        config = SamplingConfig(mode=mode, max_new_tokens=60, constraint=JsonSchema(schema))
        found = engine.generate([Request(prompt, config)])[0]
        assert found.usage.total_passes < len(found.tokens)
        assert validated(found.text, schema).keys() == {"name", "age", "zip"}
