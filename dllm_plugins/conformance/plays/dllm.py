"""dllm's MDLMSampler and BD3LMSampler."""

from collections.abc import Sequence
from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.play import Play
from dllm_plugins.conformance.play import whole_steps
from dllm_plugins.request import Request


def mdlm(case: Case, setting: Setting) -> Play:
    """The reference never stops early; it fills rows up with the end-of-text id."""
    params, prompts = setting.params, _prompts(case, setting)
    own = {name: params[name] for name in ("suppress_tokens", "begin_suppress_tokens") if params.get(name)}
    if params.get("remasking") == "random":
        own.pop("begin_suppress_tokens", None)
    config = _config("mdlm", params, prompts, params.get("block_size", 128), own)
    requests = [Request(prompt, config, stop_ids=frozenset()) for prompt in prompts]
    width = max(map(len, prompts)) + config.max_new_tokens
    return Play(requests, load={"preset": "mdlm"}, width=width, rest=case.about["eos_id"], untrimmed=True)


def bd3lm(case: Case, setting: Setting) -> Play:
    """It fills rows up on the left, to whole blocks, and stops when all of them hold an end of text."""
    params, prompts = setting.params, _prompts(case, setting)
    length = params.get("block_size", 32)
    config = _config("bd3lm", params, prompts, length, {})
    stops = frozenset({int(case.about["eos_id"])})
    requests = [Request(prompt, config, stop_ids=stops) for prompt in prompts]
    width = -(-max(map(len, prompts)) // length) * length
    left = [[case.about["pad_id"]] * (width - len(prompt)) for prompt in prompts]
    return Play(requests, load={"preset": "bd3lm"}, left=left, untrimmed=True, together=True)


def _prompts(case: Case, setting: Setting) -> list[list[int]]:
    """Shifted, an empty prompt becomes the beginning of text."""
    shifted = setting.params.get("right_shift_logits")
    return [prompt or [case.about["bos_id"]] if shifted else prompt for prompt in setting.prompts]


def _config(
    mode: str, params: dict[str, Any], prompts: Sequence[Sequence[int]], length: int, own: dict[str, Any]
) -> SamplingConfig:
    """The reference rounds up the passes of a block, unless it is told them."""
    new = params.get("max_new_tokens", 128) or params["max_length"] - max(map(len, prompts))
    each = params.get("steps_per_block") or -(-params.get("steps", 128) // -(-new // length))
    guidance = params.get("cfg_scale") or None
    keep = params.get("cfg_keep_tokens")
    return SamplingConfig(
        mode=mode,
        max_new_tokens=new,
        temperature=params.get("temperature", 0.0),
        block_length=length,
        steps=whole_steps(each, new, length),
        guidance=guidance,
        preset_options={
            "remasking": params.get("remasking", "low_confidence"),
            "scheduler": params.get("scheduler", "Linear").lower().removesuffix("alphascheduler"),
            "stochastic_transfer": bool(params.get("stochastic_transfer")),
            "right_shift_logits": bool(params.get("right_shift_logits")),
            **({"cfg_keep_tokens": keep} if keep and guidance else {}),
            **own,
        },
    )


PLAYS = {"dllm MDLMSampler": mdlm, "dllm BD3LMSampler": bd3lm}
