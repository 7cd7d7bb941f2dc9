"""How tokens are drawn: what transformers' sampling options mean to the engine."""

from typing import Any

from transformers import GenerationConfig
from transformers import LogitsProcessorList
from transformers import TemperatureLogitsWarper
from transformers import TopKLogitsWarper
from transformers import TopPLogitsWarper

from dllm_plugins.config import SamplingConfig
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.modes.base import Sampler
from dllm_transformers.options import asks_for_nothing

OPTIONS = ("temperature", "top_k", "top_p")
#: Values that leave the distribution as it is, or ask for greedy decoding.
_IDLE = {"temperature": (0,), "top_k": (0,), "top_p": (1,)}


def wants_sampling(asked: dict[str, Any]) -> bool | None:
    """Whether the user wants tokens drawn at random; None if he did not say.

    `do_sample` decides. Without it, a temperature above 0, `top_k` and `top_p` ask for sampling too.

    :raises OptionError: for options of sampling beside `do_sample=False`, and for a value out of range.
    """
    given = {name: asked[name] for name in OPTIONS if asked.get(name) is not None}
    active = {
        name: value
        for name, value in given.items()
        if not isinstance(value, int | float) or value not in _IDLE[name] or isinstance(value, bool)
    }
    SamplingConfig(**active)
    if asked.get("do_sample") is None:
        return bool(active) if active or given.get("temperature") == 0 else None
    if not asked["do_sample"]:
        for name, value in active.items():
            if not asks_for_nothing(name, value):
                raise OptionError(f"{name}={value!r} has no effect beside do_sample=False; leave one of the two out")
    return bool(asked["do_sample"])


def drawing(config: GenerationConfig, asked: dict[str, Any]) -> dict[str, Any]:
    """The engine's options of sampling; none for greedy decoding.

    :param config: as transformers merged it.
    :param asked: what the user set of it.
    """
    wanted = wants_sampling(asked)
    if not (config.do_sample if wanted is None else wanted):
        return {}
    found: dict[str, Any] = {"temperature": 1.0 if config.temperature is None else config.temperature}
    if config.top_k:
        found["top_k"] = config.top_k
    if config.top_p is not None and config.top_p != 1:
        found["top_p"] = config.top_p
    return found


def fitting(
    drawn: dict[str, Any], asked: dict[str, Any], options: dict[str, Any], sampler: Sampler | None, spec: ModelSpec
) -> dict[str, Any]:
    """The same without what a host or a checkpoint filled in, if the sampler has no use for it.

    :param options: the other options of the request.
    """
    own = {name: value for name, value in drawn.items() if asked.get(name) is not None}
    if sampler is None or own == drawn:
        return drawn
    mode = options.get("mode") or spec.modes[0]
    try:
        sampler.check(SamplingConfig(**{**options, **drawn, "mode": mode}), spec)
    except OptionError:
        return own
    return drawn


def warpers(drawn: dict[str, Any]) -> LogitsProcessorList:
    """What makes scores of logits: these options, as transformers applies them."""
    found = LogitsProcessorList()
    if drawn.get("temperature", 1.0) not in (0, 1.0):
        found.append(TemperatureLogitsWarper(float(drawn["temperature"])))
    if "top_k" in drawn:
        found.append(TopKLogitsWarper(int(drawn["top_k"])))
    if "top_p" in drawn:
        found.append(TopPLogitsWarper(float(drawn["top_p"])))
    return found
