"""Options of the llm model, described by the engine's own SamplingConfig."""

import json
from typing import Any

import llm
from pydantic import Field
from pydantic import field_validator

from dllm_plugins.config import SamplingConfig
from dllm_plugins.config import value_range


def _option(name: str) -> Any:
    """A field with the description and the range that SamplingConfig gives it."""
    described = SamplingConfig.model_fields[name].description or ""
    limits = value_range(name)
    return Field(default=None, description=f"{described} ({limits})" if limits else described)


def _json_option(name: str) -> Any:
    """A field that is written as a JSON object."""
    described = SamplingConfig.model_fields[name].description or ""
    return Field(default=None, description=f"{described}; a JSON object")


class Options(llm.Options):
    """Everything a request can be told; an option left out takes the mode's default."""

    mode: str | None = _option("mode")
    max_tokens: int | None = _option("max_new_tokens")
    temperature: float | None = _option("temperature")
    top_k: int | None = _option("top_k")
    top_p: float | None = _option("top_p")
    seed: int | None = _option("seed")
    stop: list[str] | None = Field(
        default=None, description="string that ends the answer, or a JSON list of strings; not part of the answer"
    )
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

    @field_validator("stop", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.startswith("["):
            try:
                return json.loads(value)
            except ValueError:
                return [value]
        return [value]

    @field_validator("preset_options", "rule_options", "revoke_options", mode="before")
    @classmethod
    def _from_json(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            found = json.loads(value)
        except ValueError:
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
