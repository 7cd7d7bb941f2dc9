"""SDAR's `block_diffusion_generate`."""

from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.play import Play
from dllm_plugins.request import Request

#: What a threshold of 0 means to the reference, as the smallest one that we take.
LEAST = 1e-30


def sdar(case: Case, setting: Setting) -> Play:
    """The reference fills whole blocks and leaves masks behind a block that holds a stop id."""
    params = setting.params
    length, new = params.get("block_length", 8), params.get("gen_length", 128)
    stops = frozenset(params.get("stopping_criteria_idx") or ())
    options = _options(params, length, rewrite=setting.quirk is None)
    totals = [-(-(len(prompt) + new) // length) * length for prompt in setting.prompts]
    requests = [
        Request(prompt, SamplingConfig(max_new_tokens=total - len(prompt), **options), stop_ids=stops)
        for prompt, total in zip(setting.prompts, totals, strict=True)
    ]
    return Play(requests, width=max(totals), rest=case.about["mask_id"], untrimmed=True)


def _options(params: dict[str, Any], length: int, *, rewrite: bool) -> dict[str, Any]:
    """With top_k 1, every token has confidence 1, which is above any threshold below it."""
    remasking = params.get("remasking_strategy", "low_confidence_dynamic")
    own = {"remasking": remasking} | ({"rewrite": True} if rewrite and remasking != "sequential" else {})
    threshold = params.get("confidence_threshold", 0.85)
    return {
        "mode": "sdar",
        "block_length": length,
        "steps": min(params.get("denoising_steps", 8), length),
        "threshold": LEAST if params.get("top_k") == 1 and threshold < 1 else min(max(threshold, LEAST), 1.0),
        "preset_options": own,
    }


PLAYS = {"SDAR block_diffusion_generate": sdar}
