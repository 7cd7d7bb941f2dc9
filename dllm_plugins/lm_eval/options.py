"""What lm-evaluation-harness gives, `--model_args` and the `generation_kwargs` of tasks, as options of ours."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.options.unknown import unknown_option

#: Sets of masks, or rows, in one pass, where the harness leaves it to the model.
TOGETHER = 16
#: Other names of the most tokens of an answer, the first of which counts.
_LENGTH = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
#: What tasks and `--gen_kwargs` say.
_OF_TASKS = ("max_new_tokens", "stop", "temperature", "top_k", "top_p")
#: What the harness's command gives where nobody has said `--device`, also on machines that have none.
_ANY_DEVICE = "cuda:0"
_DECODING = frozenset(SamplingConfig.model_fields)
_LOADING = frozenset(option.name for option in fields(LoadOptions))


@dataclass(frozen=True, slots=True)
class Arguments:
    """What `--model_args` says.

    :param pretrained: a name, folder, hub id or GGUF file.
    :param loading: options of :func:`~dllm_plugins.models.load_model`.
    :param decoding: options of every answer.
    :param samples: sets of masks of which a bound is the mean.
    :param together: how many prompts, or sets of masks, share a pass.
    :param max_gen_toks: most tokens of an answer, where its task does not say it.
    :param max_length: of prompt and answer; the model's context where None is given.
    :param truncate: cut the beginning of prompts that are too long, in place of refusing them.
    """

    pretrained: str
    loading: Mapping[str, Any] = field(default_factory=dict)
    decoding: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 128
    together: int = TOGETHER
    max_gen_toks: int = 256
    max_length: int | None = None
    truncate: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "Arguments":
        """Sort out what the harness hands over.

        :raises OptionError: for an unknown name, a value of another kind, and what belongs to tasks.
        """
        rest = {name: value for name, value in given.items() if value is not None}
        own = {name: _checked(name, rest.pop(name), kind) for name, kind in _OWN.items() if name in rest}
        if "pretrained" not in own:
            raise OptionError("pretrained is missing; say --model_args pretrained=FOLDER, a name or a hub id")
        if rest.pop("trust_remote_code", False):
            raise OptionError("trust_remote_code has no effect: no code of a checkpoint is run; leave it out")
        rest.pop("max_batch_size", None)
        if rest.get("device") == _ANY_DEVICE:
            del rest["device"]
        together = _together(rest.pop("batch_size", 1))
        for name, value in rest.items():
            if name in _OF_TASKS:
                raise OptionError(f"{name}={value!r} belongs to the task; say --gen_kwargs {name}={value}")
            if name not in _DECODING | _LOADING:
                raise OptionError(unknown_option(name, value, _OWN.keys() | _DECODING | _LOADING, " of the model"))
        loading = {name: value for name, value in rest.items() if name in _LOADING}
        decoding = {name: value for name, value in rest.items() if name in _DECODING}
        SamplingConfig(**decoding)
        return cls(loading=loading, decoding=decoding, together=together, **own)


_OWN: Mapping[str, type] = {
    "pretrained": str,
    "samples": int,
    "max_gen_toks": int,
    "max_length": int,
    "truncate": bool,
}


def _checked(name: str, value: Any, kind: type) -> Any:
    if type(value) is not kind or (isinstance(value, int) and kind is int and value < 1):
        wanted = "a whole number of 1 or more" if kind is int else "true or false" if kind is bool else "a text"
        raise OptionError(f"{name}={value!r} is no {kind.__name__} that fits; give {wanted}")
    return value


def _together(batch_size: Any) -> int:
    """Of the harness's `--batch_size`, which may be "auto" or "auto:N"."""
    if isinstance(batch_size, str) and batch_size.startswith("auto"):
        return TOGETHER
    try:
        found = int(batch_size)
    except (TypeError, ValueError):
        found = 0
    if found < 1:
        raise OptionError(f"batch_size={batch_size!r} must be 1 or more, or auto")
    return found


def config_of(arguments: Arguments, given: Mapping[str, Any]) -> SamplingConfig:
    """Options of an answer, from a task's `generation_kwargs` and what `--gen_kwargs` puts over them.

    As for the harness's own models nothing is sampled unless `do_sample` or a temperature says so, and
    `do_sample=False` is greedy whatever stands beside it.

    :raises OptionError: for an unknown name, or a value that does not fit.
    """
    rest = dict(given)
    lengths = [rest.pop(name) for name in _LENGTH if name in rest]
    until = rest.pop("until", None) or []
    sampled = rest.pop("do_sample", None)
    temperature = float(rest.pop("temperature", 1.0 if sampled else 0.0))
    if sampled is False or temperature == 0:
        temperature = 0.0
        # Tasks name them beside do_sample=False; nothing is drawn then.
        rest.pop("top_k", None)
        rest.pop("top_p", None)
    for name, value in rest.items():
        if name not in _DECODING:
            raise OptionError(unknown_option(name, value, _DECODING, " of an answer"))
    return SamplingConfig(
        **{
            **arguments.decoding,
            **rest,
            "max_new_tokens": int(lengths[0]) if lengths else arguments.max_gen_toks,
            "stop": tuple([until] if isinstance(until, str) else until),
            "temperature": temperature,
        }
    )
