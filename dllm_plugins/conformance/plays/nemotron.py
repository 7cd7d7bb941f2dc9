"""Nemotron-Labs-Diffusion's three modes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.play import Play
from dllm_plugins.conformance.plays.seeded import ROWS
from dllm_plugins.conformance.plays.seeded import given
from dllm_plugins.conformance.plays.seeded import limit
from dllm_plugins.conformance.plays.seeded import load
from dllm_plugins.conformance.plays.seeded import sampling
from dllm_plugins.conformance.run import RowTrace
from dllm_plugins.request import Request


def nemotron(case: Case, setting: Setting) -> Play:
    """Stop ids end a row; the reference goes on until all rows have one, leaving masks in the others' blocks."""
    params = setting.params
    own = given(params, causal_context="causal_context") | thinking(params)
    config = SamplingConfig(
        mode="nemotron",
        max_new_tokens=params["max_new_tokens"],
        block_length=params["block_length"],
        threshold=limit(params.get("threshold")),
        preset_options=own,
        **sampling(params),
    )
    requests = [Request(prompt, config, stop_ids=stop_ids(case, params)) for prompt in setting.prompts]
    note = ROWS if len(requests) > 1 else ""
    return Play(requests, arrange=arrange_cut, stored="prefill", per_change=True, note=note)


def arrange_cut(traces: Sequence[RowTrace]) -> list[RowTrace]:
    """The reference commits the last block, which serves nobody, before it cuts it at the end of the text."""
    return [replace(trace, canvases=[*trace.canvases, trace.text]) for trace in traces]


def nemotron_ar(case: Case, setting: Setting) -> Play:
    """Rows of a batch stop only where all draw the end of text in the same pass: here they go on to the limit."""
    params, alone = setting.params, len(setting.prompts) == 1
    config = SamplingConfig(
        mode="ar",
        max_new_tokens=params.get("max_new_tokens", 128),
        preset_options=thinking(params),
        **sampling(params),
    )
    stops = stop_ids(case, params) if alone else frozenset[int]()
    return Play([Request(prompt, config, stop_ids=stops) for prompt in setting.prompts], note="" if alone else ROWS)


def nemotron_speculative(case: Case, setting: Setting) -> Play:
    """The reference returns all of its last round, ours stands in the rest of the answer."""
    params = setting.params
    own = thinking(params) | ({"show_replaced": True} if thinking(params) else {})
    config = SamplingConfig(
        mode="speculative",
        max_new_tokens=params.get("max_new_tokens", 128),
        block_length=params.get("block_length", 32),
        threshold=params.get("threshold") or None,
        preset_options=own,
        **sampling(params),
    )
    requests = [Request(prompt, config, stop_ids=stop_ids(case, params)) for prompt in setting.prompts]
    return Play(requests, load=load(params), untrimmed=True)


def thinking(params: dict[str, Any]) -> dict[str, Any]:
    """The budget, which works only with both of its arguments."""
    names = ("max_thinking_tokens", "end_think_token_id")
    return {name: params[name] for name in names} if all(params.get(name) is not None for name in names) else {}


def stop_ids(case: Case, params: dict[str, Any]) -> frozenset[int]:
    """The end of text, as given or of the config."""
    found = case.about["eos_id"] if params.get("eos_token_id") is None else params["eos_token_id"]
    return frozenset() if found is None else frozenset({found})


PLAYS = {
    "Nemotron generate": nemotron,
    "Nemotron ar_generate": nemotron_ar,
    "Nemotron linear_spec_generate": nemotron_speculative,
}
