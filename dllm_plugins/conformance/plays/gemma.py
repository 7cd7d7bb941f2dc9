"""DiffusionGemma's `generate`, with the draws that were logged, or those of its seed."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.conformance.case import Case
from dllm_plugins.conformance.case import Setting
from dllm_plugins.conformance.play import Play
from dllm_plugins.conformance.play import left_padding
from dllm_plugins.conformance.replay import Draws
from dllm_plugins.conformance.replay import Recorded
from dllm_plugins.conformance.replay import Regenerated
from dllm_plugins.conformance.replay import Replay
from dllm_plugins.conformance.run import RowTrace
from dllm_plugins.errors import OptionError
from dllm_plugins.request import Request

#: Arguments that go by the same name here.
SAME = ("entropy_bound", "t_min", "t_max", "stability_threshold", "confidence_threshold")
#: Arguments that are translated, and those that leave the result alone.
READ = ("max_new_tokens", "max_length", "max_denoising_steps", "seed", "eos_token_id", "pad_token_id")
ALSO = ("decoder_input_ids", "sampler_config", "return_dict_in_generate", "bos_token_id", "disable_compile")
#: Caches that keep what the default one keeps.
CACHES = (None, "dynamic", "offloaded")


def diffusion_gemma(case: Case, setting: Setting) -> Play:
    """The reference fills whole canvases, so that many tokens are asked for."""
    params = setting.params
    _known(params)
    length, left = int(case.about["canvas_length"]), left_padding(setting)
    total = _canvases(params, length, len(left[0]) + len(setting.prompts[0])) * length
    # The log is an input, like the seed.
    log, rows = setting.raw.get("rng_log"), len(setting.prompts)
    draws: Draws = Regenerated(params["seed"], rows, length) if log is None else Recorded(log, length)
    stop = params.get("eos_token_id", case.about["eos_id"])
    stops = frozenset(stop) if isinstance(stop, list) else frozenset(() if stop is None else (stop,))
    requests = [
        Request(prompt, _config(params, row, total), stop_ids=stops, noise=Replay(draws, row, len(prompt), length))
        for row, prompt in enumerate(setting.prompts)
    ]
    pad = params.get("pad_token_id", case.about["pad_id"])
    arrange = partial(_arranged, [len(prompt) for prompt in setting.prompts], left, length, pad)
    return Play(requests, rest=pad, untrimmed=pad is None, arrange=arrange, rows_go_on=True)


def _known(params: dict[str, Any]) -> None:
    """Refuse arguments that would be ignored.

    :raises OptionError: naming the argument.
    """
    for name in params.keys() - {*SAME, *READ, *ALSO, "cache_implementation"}:
        raise OptionError(f"{name}={params[name]!r} of DiffusionGemma's generate has no translation here")
    if params.get("cache_implementation") not in CACHES:
        raise OptionError(
            f"cache_implementation={params['cache_implementation']!r} keeps other keys than the exact cache here"
        )


def _canvases(params: dict[str, Any], length: int, prompt: int) -> int:
    """How many canvases the reference fills, `prompt` being padded."""
    wanted, longest = params.get("max_new_tokens") or 256, params.get("max_length")
    if longest and wanted == 256:
        wanted = longest - prompt
    canvases = -(-wanted // length)
    return canvases if longest is None else min(canvases, max(1, -(-(longest - prompt) // length)))


def _config(params: dict[str, Any], row: int, total: int) -> SamplingConfig:
    """The options of a row. What is None takes its default there, too."""
    own = {name: params[name] for name in SAME if params.get(name) is not None}
    own |= {"entropy_bound": params["sampler_config"]["entropy_bound"]} if params.get("sampler_config") else {}
    own |= {"decoder_input_ids": params["decoder_input_ids"][row]} if params.get("decoder_input_ids") else {}
    steps = params.get("max_denoising_steps")
    return SamplingConfig(mode="diffusion_gemma", max_new_tokens=total, steps=steps, preset_options=own or None)


def _arranged(
    prompts: Sequence[int], left: Sequence[Sequence[int]], length: int, pad: int | None, traces: Sequence[RowTrace]
) -> list[RowTrace]:
    """As the reference: one canvas after each pass, rows in step, padding behind the end of the text."""
    rows = [_by_canvas(trace, prompt, length) for trace, prompt in zip(traces, prompts, strict=True)]
    count = max(map(len, rows))
    found = []
    for trace, own, prompt, before in zip(traces, rows, prompts, left, strict=True):
        canvases: list[list[int]] = []
        for number, part in enumerate(own):
            canvases += part
            canvases += [part[-1]] * (max(len(row[number]) for row in rows if number < len(row)) - len(part))
        text = trace.text[: prompt + len(own) * length]
        text += [] if pad is None else [pad] * (prompt + count * length - len(text))
        found.append(replace(trace, canvases=canvases, text=[*before, *text]))
    return found


def _by_canvas(trace: RowTrace, prompt: int, length: int) -> list[list[list[int]]]:
    """Per canvas of a row, what it said after each of its passes."""
    blank = trace.canvases[0][-1]
    found: list[list[list[int]]] = []
    for canvas in trace.canvases[1:]:
        answer = canvas[prompt:]
        number = (sum(token != blank for token in answer) - 1) // length
        found += [[] for _ in range(number + 1 - len(found))]
        found[number].append(answer[number * length : (number + 1) * length])
    return found


PLAYS = {"DiffusionGemma generate": diffusion_gemma}
