"""`generate` of LLaDA2.0 and 2.1, and SGLang's JointThresholdInDel for LLaDA2.2."""

from dataclasses import replace
from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.play import Play
from dllm_plugins.request import Request

#: Smaller than any largest probability, so a threshold that everything exceeds.
LEAST = 1e-9


def llada2_0(case: Case, setting: Setting) -> Play:
    """The reference never stops early unless told to."""
    params = setting.params
    own = {"minimal_topk": params.get("minimal_topk", 1), "eos_early_stop": bool(params.get("eos_early_stop"))}
    most = min(_length(params), params.get("gen_length", 2048) // own["minimal_topk"])
    options = {"steps": max(1, min(params.get("steps", 32), most)), "threshold": _threshold(params)}
    return _play("llada2.0", case, setting, options, own)


def llada2_1(case: Case, setting: Setting) -> Play:
    """It has `steps` and `minimal_topk`, too, but does not look at them."""
    params = setting.params
    own = {
        "eos_early_stop": bool(params.get("eos_early_stop")),
        "editing_threshold": min(max(params.get("editing_threshold", 0.9), 0.0), 1.0),
        "max_post_steps": params.get("max_post_steps", 16),
        "num_to_transfer": params.get("num_to_transfer", 1),
    }
    return _play("llada2.1", case, setting, {"threshold": _threshold(params)}, own)


def llada2_2(case: Case, setting: Setting) -> Play:
    """The reference returns whole blocks. It stores one behind its final pass, which ours does in passing."""
    params = setting.params
    own = {
        "edit_threshold": min(max(params.get("edit_threshold", 0.0), 0.0), 1.0),
        "max_post_edit_steps": params.get("max_post_edit_steps", 16),
    }
    found = _play("llada2.2", case, setting, {"threshold": _threshold(params, 0.5)}, own)
    requests = [replace(request, config=_whole_blocks(request)) for request in found.requests]
    return replace(found, requests=requests, answer_only=False, untrimmed=True, stored="final")


def _whole_blocks(request: Request) -> SamplingConfig:
    config, prompt = request.config, len(request.tokens)
    length = config.block_length or 32
    total = -(-(prompt + config.max_new_tokens) // length) * length
    return config.with_options(max_new_tokens=total - prompt)


def _length(params: dict[str, Any]) -> int:
    return int(params.get("block_length", params.get("block_size", 32)))


def _threshold(params: dict[str, Any], default: float = 0.95) -> float:
    return float(min(max(params.get("threshold", default), LEAST), 1.0))


def _play(mode: str, case: Case, setting: Setting, options: dict[str, Any], own: dict[str, Any]) -> Play:
    params = setting.params
    config = SamplingConfig(
        mode=mode,
        max_new_tokens=params.get("gen_length", 2048),
        block_length=_length(params),
        preset_options=own,
        **options,
        **_drawing(params),
    )
    stops = frozenset({int(params.get("eos_id", case.about["eos_id"]))})
    requests = [Request(prompt, config, stop_ids=stops) for prompt in setting.prompts]
    return Play(requests, load={"preset": mode}, answer_only=True)


def _drawing(params: dict[str, Any]) -> dict[str, Any]:
    """At temperature 0 the reference ignores what it was told of top_k and top_p."""
    if not params.get("temperature"):
        return {}
    top_k, top_p = params.get("top_k") or None, params.get("top_p")
    return {"temperature": params["temperature"], "top_k": top_k, "top_p": top_p}


PLAYS = {"LLaDA2.0 generate": llada2_0, "LLaDA2.1 generate": llada2_1, "JointThresholdInDel": llada2_2}
