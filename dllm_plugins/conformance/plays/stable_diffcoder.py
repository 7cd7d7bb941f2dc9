"""Stable-DiffCoder's `generate_block`."""

from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.play import Play
from dllm_plugins.conformance.play import whole_steps
from dllm_plugins.modes.stable_diffcoder import DEFAULT_THRESHOLD
from dllm_plugins.request import Request


def generate_block(_case: Case, setting: Setting) -> Play:
    """One row; a stop fills the rest of its block with itself."""
    params, (prompt,) = setting.params, setting.prompts
    length, eos = params["block_length"], params.get("eos_id")
    rule: dict[str, Any] = {"threshold": params.get("threshold", DEFAULT_THRESHOLD)}
    if rule["threshold"] is None:
        each = params["steps"] // (params["gen_length"] // length)
        rule = {"steps": whole_steps(each, params["gen_length"], length)}
    config = SamplingConfig(mode="stable_diffcoder", max_new_tokens=params["gen_length"], block_length=length, **rule)
    request = Request(prompt, config, stop_ids=frozenset() if eos is None else frozenset({eos}))
    return Play([request], width=len(prompt) + params["gen_length"], multiple=length, rest=eos)


PLAYS = {"Stable-DiffCoder generate_block": generate_block}
