"""Fields that several kinds of requests share, and what is said of those that there are not."""

from typing import Any
from typing import ClassVar
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import ValidationInfo
from pydantic import field_validator
from pydantic import model_validator

from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.config import SamplingConfig
from dllm_plugins.constraints.values import Constraint
from dllm_plugins.constraints.values import Grammar
from dllm_plugins.constraints.values import Regex
from dllm_plugins.errors import calling
from dllm_plugins.messages import Dialect
from dllm_plugins.messages import shown
from dllm_plugins.serving.errors import OPENAI
from dllm_plugins.serving.errors import OURS
from dllm_plugins.serving.errors import ApiError

#: Values that ask for nothing: what clients send who write every field out.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "store": (False,),
    "best_of": (1,),
    "echo": (False,),
    "background": (False,),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
    "truncation": ("disabled",),
    "include": ([],),
    "functions": ([],),
    "annotations": ([],),
}
_OF_LOGITS = ("logit_bias", "frequency_penalty", "presence_penalty")
_LOGITS = (
    "but for values that change nothing; what changes logits is dllm.repetition_penalty, dllm.no_repeat_ngram_size and "
    "dllm.bad_words"
)
_OF_THINKING = ("reasoning_effort", "reasoning", "chat_template_kwargs", "enable_thinking")
_THINKING = '; {"dllm": {"thinking": ...}} turns thinking on and off where a model can'
#: Of the object `dllm`, beside options of the engine.
_MORE = ("draft_events", "regex", "grammar", "thinking")


class Strict(BaseModel):
    """Whatever it does not know is refused; numbers are numbers and texts are texts. What is null is not given."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_what_asks_for_nothing(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {
            name: value
            for name, value in given.items()
            if value is not None and (name in cls.model_fields or value not in _NEUTRAL.get(name, ()))
        }


class RequestFields(Strict):
    """What every request may say.

    :cvar field: where its prompt stands.
    :cvar more: what `dllm` may say beside options of the engine.
    """

    field: ClassVar[str] = "messages"
    more: ClassVar[tuple[str, ...]] = _MORE

    model: str = Field(min_length=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    stream: bool | None = None
    dllm: dict[str, Any] | None = Field(
        default=None, description="options of the engine by their names, draft_events, regex, grammar, thinking"
    )

    @property
    def dialect(self) -> Dialect:
        """How it calls the engine's options."""
        return OPENAI

    def sampling(self, **more: Any) -> SamplingConfig:
        """The engine's options: OpenAI's fields, `more`, and those of `dllm`.

        :raises ApiError: for an option of ours that there is not.
        :raises OptionError: for a value out of range.
        """
        given = {name: value for name, value in more.items() if value is not None}
        if self.temperature is not None:
            given["temperature"] = self.temperature
        # Only truncation asks for sampling. Of greedy answers it keeps the likeliest token, which they take anyway.
        if self.top_p is not None and self.top_p < 1 and self.temperature != 0:
            given |= {"top_p": self.top_p} | ({} if "temperature" in given else {"temperature": 1.0})
        own = self._own()
        constraint = self._constraint(own)
        if constraint is not None:
            if "constraint" in given:
                raise ApiError(400, "dllm and response_format both say what the answer must be", param="dllm")
            given["constraint"] = constraint
        with calling(self.dialect):
            return SamplingConfig(**given, **{name: own[name] for name in own if name not in self.more})

    def _own(self) -> dict[str, Any]:
        own = {name: value for name, value in (self.dllm or {}).items() if value is not None}
        for name in own:
            if name not in OURS and name not in self.more:
                told = OPENAI.of(name)
                remedy = f"it is the field {told}" if told != name or name in OPENAI.names else self._options()
                raise ApiError(400, f"there is no option dllm.{name}; {remedy}", param=f"dllm.{name}")
        return own

    @classmethod
    def _options(cls) -> str:
        return f"there are: {', '.join(sorted((*OURS, *cls.more)))}"

    def _constraint(self, own: dict[str, Any]) -> Constraint | None:
        for name in ("regex", "grammar"):
            if name in own and not isinstance(own[name], str):
                raise ApiError(400, f"dllm.{name}={shown(own[name])}: give a text", param=f"dllm.{name}")
        if "regex" in own and "grammar" in own:
            raise ApiError(400, "dllm.regex and dllm.grammar both say what the answer must be", param="dllm.grammar")
        if "regex" in own:
            return Regex(own["regex"])
        return Grammar(own["grammar"]) if "grammar" in own else None

    @property
    def draft_events(self) -> bool:
        """Whether drafts are wanted.

        :raises ApiError: for what is neither true nor false, and where nothing is streamed.
        """
        value = self._switch("draft_events")
        if value and not self.stream:
            raise ApiError(400, "dllm.draft_events is about streams; say stream, too", param="dllm.draft_events")
        return bool(value)

    @property
    def thinking(self) -> bool | None:
        """Whether the model is to think first; None if nobody says so.

        :raises ApiError: for what is neither true nor false.
        """
        return self._switch("thinking")

    def _switch(self, name: str) -> bool | None:
        value = (self.dllm or {}).get(name)
        if value is not None and not isinstance(value, bool):
            raise ApiError(400, f"dllm.{name}={shown(value)}: give true or false", param=f"dllm.{name}")
        return value


class StreamOptions(Strict):
    """Of streams."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Sampled(RequestFields):
    """What requests of the two older interfaces share."""

    n: int | None = Field(default=None, ge=1, le=128)
    seed: int | None = Field(default=None, ge=0, le=LARGEST_SEED)
    stop: str | list[str] | None = Field(default=None, max_length=1 << 16)
    max_tokens: int | None = Field(default=None, ge=1)
    stream_options: StreamOptions | None = None

    @field_validator("stream_options")
    @classmethod
    def _options_of_streams(cls, given: StreamOptions | None, info: ValidationInfo) -> StreamOptions | None:
        if given is not None and not info.data.get("stream"):
            raise ValueError("it is about streams; say stream, too")
        return given

    @property
    def stops(self) -> tuple[str, ...] | None:
        """What ends the answer."""
        return (self.stop,) if isinstance(self.stop, str) else None if self.stop is None else tuple(self.stop)


def alternatives(wanted: bool | None, top: int | None) -> int | None:
    """The engine's `logprobs` of a switch and a number beside it.

    :raises ApiError: for a number without the switch.
    """
    if top is not None and not wanted:
        raise ApiError(400, "top_logprobs needs logprobs=true", param="top_logprobs")
    return (top or 0) if wanted else None


def unknown_field(name: str) -> str:
    """What is said of a field that there is not."""
    if name in OURS or name in _MORE:
        return f'there is no field {name!r} here; give it as {{"dllm": {{"{name}": ...}}}}'
    known = f", {_LOGITS}" if name in _OF_LOGITS else _THINKING if name in _OF_THINKING else "; leave it out"
    return f"there is no field {name!r} here{known}"
