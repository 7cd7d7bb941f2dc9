"""Options of the llm model, described by the engine's own SamplingConfig."""

import json
from typing import Any

import click
import llm
from pydantic import Field
from pydantic import ValidationError
from pydantic import field_validator

from dllm_plugins.config import SamplingConfig
from dllm_plugins.config import value_range
from dllm_plugins.errors import OptionError
from dllm_plugins.options.checked import Numbers
from dllm_plugins.options.checked import explain
from llm_dllm.dialect import LLM

#: What holds where an option is left out and SamplingConfig has no value for it.
_OTHERWISE = {
    "top_k": "all tokens",
    "top_p": "all tokens",
    "draft_length": "the model's own",
    "block_length": "the model's own",
    "rule": "the mode's own",
    "threshold": "the rule's own",
    "factor": "the rule's own",
    "steps": "the sampler's own",
    "refresh": "never",
}


def _option(name: str, form: str = "") -> Any:
    """A field with the description, the range and the default that SamplingConfig gives it.

    :param form: how it is written.
    """
    field = SamplingConfig.model_fields[name]
    default = _OTHERWISE.get(name, "none") if field.default in (None, ()) else str(field.default).lower()
    described = field.description or ""
    # Some descriptions say it themselves.
    said = "" if "if not given" in described else f"default: {default}"
    notes = "; ".join(note for note in (form, value_range(name), said) if note)
    return Field(default=None, description=f"{described} ({notes})" if notes else described)


def _json_option(name: str) -> Any:
    """A field that is written as a JSON object."""
    return _option(name, "a JSON object")


class LlmOptionError(click.ClickException, OptionError):
    """Options that llm was given are wrong: an error of ours in Python, and one line where a command meets it.

    llm itself shows what pydantic says, without the values and without the options there are.
    """


class Options(Numbers, llm.Options):
    """Everything a request can be told; an option left out takes the mode's default.

    :raises LlmOptionError: naming every option that is unknown or wrong.
    """

    mode: str | None = _option("mode")
    max_tokens: int | None = _option("max_new_tokens")
    temperature: float | None = _option("temperature")
    top_k: int | None = _option("top_k")
    top_p: float | None = _option("top_p")
    seed: int | None = _option("seed")
    stop: list[str] | None = _option("stop", "one string, or a JSON list of strings")
    draft_length: int | None = _option("draft_length")
    block_length: int | None = _option("block_length")
    rule: str | None = _option("rule")
    threshold: float | None = _option("threshold")
    factor: float | None = _option("factor")
    guidance: float | None = _option("guidance")
    rule_options: dict[str, Any] | None = _json_option("rule_options")
    revoke: str | None = _option("revoke")
    revoke_options: dict[str, Any] | None = _json_option("revoke_options")
    steps: int | None = _option("steps")
    approximate_cache: str | None = _option("approximate_cache")
    refresh: int | None = _option("refresh")
    preset_options: dict[str, Any] | None = _json_option("preset_options")
    stats: bool | None = _option("stats")

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
            # Ranges, too, are checked here, where llm still knows that options are wrong.
            to_config(self)
        except ValidationError as error:
            raise LlmOptionError(explain(error, SamplingConfig.model_fields).told(LLM)) from None
        except OptionError as error:
            raise LlmOptionError(error.said.told(LLM)) from None

    @field_validator("stop", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.startswith("["):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                return [value]
        return [value]

    @field_validator("preset_options", "rule_options", "revoke_options", mode="before")
    @classmethod
    def _from_json(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ValueError('write a JSON object, for example {"bound": 0.5}')
        return found


def to_config(options: llm.Options) -> SamplingConfig:
    """The engine's options.

    :raises OptionError: for a value out of range.
    """
    given = {name: value for name, value in options if value is not None}
    if "max_tokens" in given:
        given["max_new_tokens"] = given.pop("max_tokens")
    return SamplingConfig(**given)
