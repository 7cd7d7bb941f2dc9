"""The options of one call: a model's fields with the call's own changes, checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import fields
from typing import Any

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.models import LoadOptions

#: Sampling options under the engine's names; LangChain says `max_tokens` for `max_new_tokens`.
SAMPLING = tuple(name for name in SamplingConfig.model_fields if name != "max_new_tokens")
LOADING = tuple(option.name for option in fields(LoadOptions))
#: What may change from call to call, besides what a class adds itself.
CALL = ("model_name", "max_tokens", *SAMPLING, "timeout", "max_retries")


@dataclass(frozen=True, slots=True)
class Call:
    """What one call asks for.

    :param timeout: seconds until the answer must be complete; None waits for ever.
    :param max_retries: how often a request starts again after a pass failed.
    :param raw: DLLM only: send the text without a chat template.
    :raises OptionError: if `timeout` or `max_retries` is out of range.
    """

    model_name: str
    config: SamplingConfig
    timeout: float | None = None
    max_retries: int = 0
    raw: bool = False

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout > 0:
            raise OptionError(f"option timeout={self.timeout!r}: it must be above 0 seconds; None waits for ever")
        if self.max_retries < 0:
            raise OptionError(f"option max_retries={self.max_retries!r}: it must be at least 0")


def call_of(options: Mapping[str, Any]) -> Call:
    """Options under LangChain's names, None meaning the default, as a Call.

    :raises OptionError: for a value out of range.
    """
    given = {name: value for name, value in options.items() if value is not None}
    own = {name: given[name] for name in ("timeout", "max_retries", "raw") if name in given}
    return Call(given["model_name"], _sampling(given), **own)


def _sampling(given: Mapping[str, Any]) -> SamplingConfig:
    options = {name: given[name] for name in SAMPLING if name in given}
    if "max_tokens" in given:
        options["max_new_tokens"] = given["max_tokens"]
    try:
        return SamplingConfig(**options)
    except OptionError as error:
        raise OptionError(str(error).replace("max_new_tokens", "max_tokens")) from None


def changes_of(given: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """A call's keyword arguments under the names of the fields they change.

    :raises OptionError: for an argument that is not among `known`.
    """
    if "model" in given and "model_name" in given:
        raise OptionError(f"model={given['model']!r} and model_name={given['model_name']!r} are the same; give one")
    # `stream` is LangChain's own switch between _generate and _stream; it has done its work by now.
    changes = {"model_name" if name == "model" else name: given[name] for name in given if name != "stream"}
    for name, value in changes.items():
        if name in LOADING:
            raise OptionError(f"{name}={value!r} is chosen when a model is made, not in a call; make another model")
        if name not in known:
            raise OptionError(f"unknown option {name}={value!r} of a call; known options: {', '.join(sorted(known))}")
    return changes
