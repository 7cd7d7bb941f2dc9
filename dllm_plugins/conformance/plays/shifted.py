"""The whole-canvas samplers of the shifted families: Dream, DreamOn, Open-dCoder and RND1."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.play import Play
from dllm_plugins.conformance.play import left_padding
from dllm_plugins.conformance.play import seen
from dllm_plugins.request import Request


def dream(_case: Case, setting: Setting) -> Play:
    """The reference lets `top_p` be anything from 1 up where it is off."""
    params = setting.params
    alg, width = params.get("alg", "origin"), _width(setting)
    limit = params.get("max_length")
    length = params.get("max_new_tokens") or (20 if limit is None else limit - width)
    own = {"alg": alg, "eps": params.get("eps", 1e-3)} | ({} if alg == "origin" else _alg_temp(params))
    options = {"mode": "dream", "steps": params.get("steps", 512), **drawing(params, alg != "origin")}
    return repeated(setting, seen(setting), SamplingConfig(max_new_tokens=length, preset_options=own, **options))


def open_dcoder(case: Case, setting: Setting) -> Play:
    """The reference takes `alg_temp` and `eps` with p2, and uses neither; nor does it hide any padding."""
    params = setting.params
    alg = params.get("alg", "entropy")
    new = params.get("max_new_tokens")
    length = params.get("max_length", 20) - _width(setting) if new is None else new
    own: dict[str, Any] = {"alg": alg}
    own |= {} if alg == "p2" else {"eps": params.get("eps", 1e-3)}
    own |= {} if alg in ("p2", "origin") else _alg_temp(params)
    options = {"mode": "open_dcoder", "steps": params.get("steps", 512), **drawing(params, alg != "origin")}
    padded = setting.inputs.get("input_ids") or setting.prompts
    if length:
        return repeated(setting, padded, SamplingConfig(max_new_tokens=length, preset_options=own, **options))
    config = SamplingConfig(max_new_tokens=1, preset_options=own, **options)
    return filled(setting, padded, config, case.about["mask_id"])


def filled(setting: Setting, prompts: Sequence[Sequence[int]], config: SamplingConfig, mask: int) -> Play:
    """Nothing behind the prompts: the last open position of each is the answer, the others are holes."""
    found = repeated(setting, prompts, config)
    requests = []
    for request in found.requests:
        last = max(position for position, token in enumerate(request.tokens) if token == mask)
        requests.append(replace(request, tokens=request.tokens[:last], suffix=request.tokens[last + 1 :]))
    initial = [request.tokens for request in found.requests]
    return replace(found, requests=requests, untrimmed=True, initial=initial)


def dreamon(case: Case, setting: Setting) -> Play:
    """The reference's prompt holds the hole; its canvas always has the largest width."""
    params, mask = setting.params, case.about["mask_id"]
    shortest, longest = params.get("min_gen_len", 16), params.get("max_gen_len", 512)
    own = {name: params.get(name, True) for name in ("pad_eos_to_right", "delete_eos_token")} | _alg_temp(params)
    own |= {"alg": params.get("alg", "entropy"), "min_gen_len": shortest, "expand_budget": longest}
    own |= {"expand_token_id": case.about["expand_id"], "eos_token_id": case.about["eos_id"]}
    requests, widths = [], []
    for prompt in setting.prompts:
        begin = prompt.index(mask)
        given = len(prompt) - shortest
        widths.append(min(params.get("max_tokens", 2048), given + longest))
        options = {"mode": "dreamon", "steps": params.get("steps", 512), **drawing(params, confidences=True)}
        config = SamplingConfig(max_new_tokens=widths[-1] - given, preset_options=own, **options)
        suffix = prompt[begin + shortest :]
        requests.append(Request(prompt[:begin], config, stop_ids=frozenset(), suffix=suffix))
    return Play(requests, width=max(widths), rest=mask, untrimmed=True, initial=setting.prompts)


def rnd1(case: Case, setting: Setting) -> Play:
    """The reference counts the position it keeps for the end of text as a new token."""
    params = setting.params
    prompts, suffixes = setting.prompts, setting.inputs.get("suffix") or [[] for _ in setting.prompts]
    reserved = int("eos_token_id" not in params or params["eos_token_id"] is not None)
    options = {"mode": "rnd1", "steps": params.get("num_steps", 256), **drawing(params, confidences=True)}
    options["temperature"] = max(params.get("temperature", 1.0), 1e-8)
    own = {name: params[name] for name in ("eb_gamma", "pad_token_id") if params.get(name) is not None}
    own["greedy"] = params.get("greedy", True)
    if params.get("add_eos_at_end") and reserved:
        own |= {"add_eos_at_end": True, "eos_token_id": params.get("eos_token_id", case.about["eos_id"])}
    requests, initial = [], []
    for prompt, suffix in zip(prompts, suffixes, strict=True):
        new = params.get("max_new_tokens")
        total = len(prompt) + len(suffix) + new if new else params.get("seq_len", 256)
        room = total - len(prompt) - len(suffix) - reserved
        length = min(params.get("infill_length") or room, room)
        padding = room + reserved - length
        config = SamplingConfig(max_new_tokens=length, preset_options=own | {"padding": padding}, **options)
        requests.append(Request(prompt, config, stop_ids=frozenset(), suffix=suffix))
        end = [own.get("pad_token_id", case.about["pad_id"])] * padding
        end[-1:] = [own["eos_token_id"]] if own.get("add_eos_at_end") else end[-1:]
        initial.append([*prompt, *[case.about["mask_id"]] * length, *suffix, *end])
    return Play(requests, untrimmed=True, initial=initial)


def drawing(params: dict[str, Any], confidences: bool) -> dict[str, Any]:
    """Temperature, and top_k and top_p where they matter: at temperature 0 they act on confidences alone."""
    found: dict[str, Any] = {"temperature": params.get("temperature") or 0.0}
    if found["temperature"] or confidences:
        found |= {"top_k": params.get("top_k") or None}
        found |= {"top_p": params["top_p"]} if 0 < (params.get("top_p") or 0) < 1 else {}
    return found


def repeated(setting: Setting, prompts: Sequence[Sequence[int]], config: SamplingConfig) -> Play:
    """Rows that end-of-text ids do not stop, each as often as the reference was asked for it."""
    times = setting.params.get("num_return_sequences", 1)
    requests = [Request(prompt, config, stop_ids=frozenset()) for prompt in prompts for _ in range(times)]
    return Play(requests, left=_repeat(left_padding(setting, prompts), times))


def _repeat(rows: Sequence[list[int]], times: int) -> list[list[int]]:
    return [row for row in rows for _ in range(times)]


def _width(setting: Setting) -> int:
    return max(map(len, setting.inputs.get("input_ids") or setting.prompts))


def _alg_temp(params: dict[str, Any]) -> dict[str, Any]:
    return {"alg_temp": params["alg_temp"]} if params.get("alg_temp") else {}


PLAYS = {
    "Dream diffusion_generate": dream,
    "Open-dLLM diffusion_generate": open_dcoder,
    "DreamOn batch_generate_with_expand_as_token": dreamon,
    "RND1 diffusion_sample": rnd1,
}
