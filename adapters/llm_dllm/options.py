"""Options of the llm model, described by the engine's own SamplingConfig."""

import json
from typing import Any

import click
import llm
from pydantic import Field
from pydantic import ValidationError
from pydantic import create_model
from pydantic import field_validator

from dllm_plugins.config import SamplingConfig
from dllm_plugins.config import value_range
from dllm_plugins.constraints.values import Grammar
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.constraints.values import Regex
from dllm_plugins.errors import OptionError
from dllm_plugins.options.checked import Numbers
from dllm_plugins.options.checked import explain
from llm_dllm.dialect import LLM

#: What holds where an option is left out and SamplingConfig has no value for it.
_OTHERWISE = {
    "top_k": "all tokens",
    "top_p": "all tokens",
    "draft_length": "what pays, or the model's own",
    "block_length": "the model's own",
    "rule": "the mode's own",
    "threshold": "the rule's own",
    "factor": "the rule's own",
    "steps": "the sampler's own",
    "refresh": "never",
}


#: How options are written that are no single value.
_FORMS = {
    "stop": "one string, or a JSON list of strings",
    "bad_words": "one text, or a JSON list of texts and of lists of token ids",
} | dict.fromkeys(("rule_options", "revoke_options", "preset_options"), "a JSON object")


def _option(name: str) -> tuple[Any, Any]:
    """A field with the type, the description, the range and the default that SamplingConfig gives it."""
    field = SamplingConfig.model_fields[name]
    default = _OTHERWISE.get(name, "none") if field.default in (None, ()) else str(field.default).lower()
    described = field.description or ""
    # Some descriptions say it themselves.
    otherwise = "" if "if not given" in described else f"default: {default}"
    notes = "; ".join(note for note in (_FORMS.get(name), value_range(name), otherwise) if note)
    # JSON has lists only, and errors show what was written.
    annotation: Any = list[str] if field.annotation == tuple[str, ...] else field.annotation
    return annotation | None, Field(default=None, description=f"{described} ({notes})" if notes else described)


class LlmOptionError(click.ClickException, OptionError):
    """Options that llm was given are wrong: an error of ours in Python, and one line where a command meets it.

    llm itself shows what pydantic says, without the values and without the options there are.
    """


class _Options(Numbers, llm.Options):
    """Everything a request can be told; an option left out takes the mode's default.

    :raises LlmOptionError: naming every option that is unknown or wrong.
    """

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
            # Ranges, too, are checked here, where llm still knows that options are wrong.
            to_config(self)
        except ValidationError as error:
            raise LlmOptionError(explain(error, [*_ENGINE.values(), *_CONSTRAINTS]).text_for(LLM)) from None
        except OptionError as error:
            raise LlmOptionError(error.detail.text_for(LLM)) from None

    @field_validator("stop", "bad_words", mode="before", check_fields=False)
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

    @field_validator("preset_options", "rule_options", "revoke_options", mode="before", check_fields=False)
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


#: The engine's option behind each of llm's.
_ENGINE = {LLM.of(name): name for name in SamplingConfig.model_fields if name != "constraint"}
#: What an answer must be, where it is no JSON; a schema is llm's own option.
_CONSTRAINTS: dict[str, tuple[type[Regex | Grammar], str]] = {
    "regex": (Regex, "a regular expression that matches the whole answer (default: none)"),
    "grammar": (
        Grammar,
        "a context-free grammar of the whole answer, in Lark's notation (default: none)",
    ),
}
_FIELDS: dict[str, Any] = {own: _option(name) for own, name in _ENGINE.items()} | {
    name: (str | None, Field(default=None, description=meaning)) for name, (_, meaning) in _CONSTRAINTS.items()
}
_FIELDS["suffix"] = (
    str | None,
    Field(
        default=None,
        description="text that follows: the prompt is then the text before a gap, and the answer what fills it "
        "(max_tokens is the longest it may get; default: 64)",
    ),
)
_FIELDS["thinking"] = (
    bool | None,
    Field(
        default=None,
        description="turns thinking on or off, where the model's chat template can (default: as the template does)",
    ),
)
Options = create_model("Options", __base__=_Options, __doc__=_Options.__doc__, **_FIELDS)


def to_config(options: llm.Options, schema: dict[str, Any] | None = None) -> SamplingConfig:
    """The engine's options.

    :param schema: what the answer must be, by llm's `--schema`.
    :raises OptionError: for a value out of range.
    """
    given = {name: value for name, value in options if value is not None}
    asked: dict[str, Any] = {} if schema is None else {"--schema": JsonSchema(schema)}
    asked |= {name: kind(given.pop(name)) for name, (kind, _) in _CONSTRAINTS.items() if name in given}
    if len(asked) > 1:
        raise OptionError(f"{' and '.join(asked)} all say what the answer must be; give one of them")
    constraint = next(iter(asked.values()), None)
    return SamplingConfig(
        **{_ENGINE[name]: value for name, value in given.items() if name in _ENGINE}, constraint=constraint
    )
