"""SDAR's `block_diffusion_generate`."""

from dllm_plugins.config import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.play import Play
from dllm_plugins.request import Request


def sdar(case: Case, setting: Setting) -> Play:
    """The reference fills whole blocks and leaves masks behind a block that holds a stop id.

    With top_k 1, every token has confidence 1, which is above any threshold.
    """
    params, length = setting.params, setting.params["block_length"]
    stops = frozenset(params.get("stopping_criteria_idx") or ())
    totals = [-(-(len(prompt) + params["gen_length"]) // length) * length for prompt in setting.prompts]
    requests = [
        Request(
            prompt,
            SamplingConfig(
                mode="sdar",
                max_new_tokens=total - len(prompt),
                block_length=length,
                steps=params["denoising_steps"],
                threshold=1e-9 if params.get("top_k") == 1 else params.get("confidence_threshold"),
                preset_options={"remasking": params["remasking_strategy"]},
            ),
            stop_ids=stops,
        )
        for prompt, total in zip(setting.prompts, totals, strict=True)
    ]
    return Play(requests, width=max(totals), rest=case.about["mask_id"], untrimmed=True)


PLAYS = {"SDAR block_diffusion_generate": sdar}
