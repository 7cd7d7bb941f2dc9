"""LLaDA's `generate` and Fast-dLLM's three on top of it."""

from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.play import Play
from dllm_plugins.conformance.play import left_padding
from dllm_plugins.conformance.play import seen
from dllm_plugins.conformance.play import whole_steps
from dllm_plugins.request import Request

#: What a threshold or factor of 0 means to the references, as the smallest one that we take.
LEAST = 1e-30
#: The largest values that we take; beyond them the references do the same.
MOST = {"threshold": 1.0, "factor": 64.0}


def llada(case: Case, setting: Setting) -> Play:
    """Two of its options are ids here."""
    params = setting.params
    own: dict[str, Any] = {}
    if params.get("logits_eos_inf"):
        own["suppress_tokens"] = [case.about["eos_id"]]
    if params.get("confidence_eos_eot_inf"):
        own["late_tokens"] = [case.about["eos_id"], case.about["eot_id"]]
    options = common(params) | ({"guidance": params["cfg_scale"]} if (params.get("cfg_scale") or 0) > 0 else {})
    options |= {"rule": "random"} if params.get("remasking") == "random" else {}
    return play(setting, {"mode": "llada", **options, "preset_options": own or None})


def fast_dllm(_case: Case, setting: Setting) -> Play:
    """With a threshold or a factor the reference ignores `steps`."""
    params = setting.params
    cache = next((name for name in ("prefix", "dual") if f"_{name}_" in setting.sampler), None)
    options = {"mode": "fast_dllm", **common(params), "approximate_cache": cache}
    own = {"last_candidate": True} if params.get("factor") is not None and not setting.quirk else None
    return play(setting, options | {"preset_options": own})


def common(params: dict[str, Any]) -> dict[str, Any]:
    """Lengths, and the one rule the reference goes by."""
    new, length = params.get("gen_length", 128), params.get("block_length", 128)
    found = {"block_length": length, "max_new_tokens": new}
    for rule in ("factor", "threshold"):
        if params.get(rule) is not None:
            return found | {rule: min(max(params[rule], LEAST), MOST[rule])}
    return found | {"steps": whole_steps(params.get("steps", 128) // (new // length), new, length)}


def play(setting: Setting, options: dict[str, Any]) -> Play:
    """The references run all steps: end-of-text ids do not stop them."""
    config = SamplingConfig(**options)
    prompts = seen(setting)
    requests = [Request(prompt, config, stop_ids=frozenset()) for prompt in prompts]
    return Play(requests, left=left_padding(setting, prompts))


PLAYS = {
    "LLaDA generate": llada,
    "Fast-dLLM v1 generate": fast_dllm,
    "Fast-dLLM v1 generate_with_prefix_cache": fast_dllm,
    "Fast-dLLM v1 generate_with_dual_cache": fast_dllm,
}
