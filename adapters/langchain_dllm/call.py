"""The options of one call: a model's fields with the call's own changes, checked."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pydantic import Field

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import calling
from dllm_plugins.messages import Dialect
from dllm_plugins.messages import shown
from dllm_plugins.models import LoadOptions
from dllm_plugins.options.checked import Checked
from dllm_plugins.options.unknown import unknown_option

#: What LangChain calls the engine's options.
LANGCHAIN = Dialect({"max_new_tokens": "max_tokens", "model_name": "model"})
#: Sampling options under the engine's names; LangChain says `max_tokens` for `max_new_tokens`.
SAMPLING = tuple(name for name in SamplingConfig.model_fields if name != "max_new_tokens")
LOADING = tuple(option.name for option in fields(LoadOptions))
#: What may change from call to call, besides what a class adds itself.
CALL = ("model_name", "max_tokens", *SAMPLING, "timeout", "max_retries")


class Call(Checked):
    """What one call asks for.

    :param timeout: seconds until the answer must be complete; None waits for ever.
    :param max_retries: how often a request starts again after a pass failed.
    :param raw: DLLM only: send the text without a chat template.
    :raises OptionError: if any of them is of another kind or out of range.
    """

    model_name: str = Field(default="dllm", min_length=1)
    config: SamplingConfig
    timeout: float | None = Field(default=None, gt=0)
    max_retries: int = Field(default=0, ge=0)
    raw: bool = False


def call_of(options: Mapping[str, Any]) -> Call:
    """Options under LangChain's names, None meaning the default, as a Call.

    :raises OptionError: for a value out of range.
    """
    given = {name: value for name, value in options.items() if value is not None}
    own = {name: given[name] for name in ("model_name", "timeout", "max_retries", "raw") if name in given}
    sampling = {name: given[name] for name in SAMPLING if name in given}
    if "max_tokens" in given:
        sampling["max_new_tokens"] = given["max_tokens"]
    with calling(LANGCHAIN):
        return Call(config=SamplingConfig(**sampling), **own)


def changes_of(given: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    """A call's keyword arguments under the names of the fields they change.

    :raises OptionError: for an argument that is not among `known`.
    """
    if "model" in given and "model_name" in given:
        raise OptionError(
            f"model={shown(given['model'])} and model_name={shown(given['model_name'])} are the same; give one"
        )
    # `stream` is LangChain's own switch between _generate and _stream; it has done its work by now.
    changes = {"model_name" if name == "model" else name: given[name] for name in given if name != "stream"}
    for name, value in changes.items():
        if name in LOADING:
            raise OptionError(
                f"{name}={shown(value)} is chosen when a model is made, not in a call; make another model"
            )
        if name not in known:
            with calling(LANGCHAIN):
                raise OptionError(unknown_option(name, value, in_engine_words(known), " of a call"))
    return changes


def in_engine_words(known: tuple[str, ...]) -> list[str]:
    """Options of LangChain under the engine's names."""
    return ["max_new_tokens" if name == "max_tokens" else name for name in known]
