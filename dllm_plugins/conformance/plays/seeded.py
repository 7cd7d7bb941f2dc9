"""Fast-dLLM v2's and WeDLM's samplers."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.play import Play
from dllm_plugins.conformance.run import RowTrace
from dllm_plugins.request import Request

#: What a threshold of 0 means to a reference, as the smallest one that we take.
ALWAYS = 1e-30
ROWS = "rows are independent here: none waits for another, or stops with it"


def given(params: dict[str, Any], **names: str) -> dict[str, Any]:
    """The reference's arguments under our names, those that were given."""
    return {ours: params[theirs] for ours, theirs in names.items() if theirs in params}


def sampling(params: dict[str, Any]) -> dict[str, Any]:
    """Temperature and its cuts, which no reference reads at temperature 0."""
    if not params.get("temperature"):
        return {}
    found = given(params, temperature="temperature", top_p="top_p", top_k="top_k")
    return {name: value for name, value in found.items() if value} | {"seed": 0}


def limit(value: float | None) -> float | None:
    """A threshold in our range."""
    return None if value is None else max(value, ALWAYS)


def load(params: dict[str, Any], name: str = "mask_token_id") -> dict[str, Any]:
    """The mask id, where it is an argument."""
    return {} if params.get(name) is None else {"mask_id": params[name]}


def fast_dllm_v2(case: Case, setting: Setting) -> Play:
    """The reference counts whole blocks, the prompt's last one among them, and adds one token behind the last."""
    params, prompts = setting.params, setting.prompts
    batch, length = setting.sampler.endswith("batch_sample"), params.get("block_size", 32)
    blocks = [params["max_new_tokens"] // length + len(prompt) // length for prompt in prompts]
    ends = [(max(blocks) if batch else own) * length + 1 for own in blocks]
    own = given(params, small_block_size="small_block_size", use_block_cache="use_block_cache")
    stop = params.get("stop_token", case.about["eos_id"])
    common = {
        "mode": "fast_dllm_v2",
        "block_length": length,
        "threshold": limit(params.get("threshold", 0.95 if batch else 1)),
        "preset_options": own | ({"batch_stop_ids": [stop]} if batch else {}),
        **sampling(params),
    }
    stops = frozenset() if batch else frozenset({stop})
    requests = [
        Request(prompt, SamplingConfig(max_new_tokens=end - len(prompt), **common), stop_ids=stops)
        for prompt, end in zip(prompts, ends, strict=True)
    ]
    pad = params.get("pad_token_id", case.about["pad_id"])
    return Play(
        requests,
        load=load(params, "mask_id"),
        arrange=partial(arrange_batch, prompts, ends, length, stop, pad)
        if batch
        else partial(arrange, prompts, length),
        stored="prefill",
        rows_go_on=batch,
        per_change=len(prompts) > 1,
        cuts=batch,
        note=ROWS if len(prompts) > 1 else "",
    )


def arrange(prompts: Sequence[Sequence[int]], length: int, traces: Sequence[RowTrace]) -> list[RowTrace]:
    """No canvas before a prefill that gives the first token."""
    begun = [len(prompt) % length == 0 for prompt in prompts]
    return [replace(trace, canvases=trace.canvases[first:]) for trace, first in zip(traces, begun, strict=True)]


def arrange_batch(
    prompts: Sequence[Sequence[int]], ends: Sequence[int], length: int, stop: int, pad: int, traces: Sequence[RowTrace]
) -> list[RowTrace]:
    """Padding behind the end of a text, up to the end of its block, and one token more if other rows go on.

    A row that ends waits, full or padded, for the others; what it holds meanwhile is not told apart.

    :param ends: where each row ends if no stop id ends it.
    """
    full = [
        len(trace.text) if len(trace.text) == end else -(-len(trace.text) // length) * length
        for trace, end in zip(traces, ends, strict=True)
    ]
    found = []
    for trace, prompt, end, own in zip(arrange(prompts, length, traces), prompts, ends, full, strict=True):
        if len(trace.text) == end:
            found.append(trace)
            continue
        # The first stop id counts, be it one that a commit gave and nobody looked at.
        text = trace.text[: trace.text.index(stop, len(prompt)) + 1]
        text += [pad] * (own + (own < max(full)) - len(text))
        found.append(replace(trace, text=text, canvases=trace.canvases[:-1]))
    return found


def wedlm(_case: Case, setting: Setting) -> Play:
    """The engine's prefill, which the reference does not count, is part of our first pass."""
    params = setting.params
    own = given(
        params,
        entropy_threshold="entropy_threshold",
        pos_penalty_factor="pos_penalty_factor",
    )
    config = SamplingConfig(
        mode="wedlm",
        max_new_tokens=params.get("max_tokens", 64),
        block_length=params.get("window_size", 16),
        preset_options=own,
        **sampling(params),
    )
    stops = frozenset(params.get("stop_token_ids") or ())
    requests = [Request(prompt, config, stop_ids=stops) for prompt in setting.prompts]
    return Play(requests, load=load(params))


def wedlm_block(case: Case, setting: Setting) -> Play:
    """The reference takes the argmax at any temperature, and neither top_p nor top_k matters."""
    params = setting.params
    pad = params.get("pad_token_id", case.about["pad_id"])
    prompts = setting.prompts if pad is not None else setting.inputs.get("input_ids") or setting.prompts
    config = SamplingConfig(
        mode="wedlm_block",
        max_new_tokens=params["max_new_tokens"],
        block_length=params["block_size"],
        threshold=params.get("confidence_threshold") or None,
        preset_options=given(params, confidence_temperature="temperature"),
    )
    requests = [Request(prompt, config, stop_ids=frozenset()) for prompt in prompts]
    width = max(map(len, prompts)) + params["max_new_tokens"]
    return Play(requests, load=load(params), width=width, rest=pad or 0, per_change=len(prompts) > 1)


PLAYS = {
    "Fast-dLLM v2 generate": fast_dllm_v2,
    "Fast-dLLM v2 batch_sample": fast_dllm_v2,
    "WeDLM generate_wedlm": wedlm_block,
    "WeDLM streaming engine": wedlm,
}
