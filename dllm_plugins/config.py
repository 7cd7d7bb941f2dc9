"""SamplingConfig: every option of a request, validated and documented in one place."""

from typing import Any
from typing import Literal
from typing import Self

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import field_validator
from pydantic import model_validator

from dllm_plugins.constraints.values import Constraint
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import Option
from dllm_plugins.messages import message
from dllm_plugins.options.checked import Checked

LARGEST_SEED = 2**63 - 1
#: Of each position, as other interfaces allow.
MOST_ALTERNATIVES = 20
#: Where drafts that are verified come from.
Drafts = Literal["auto", "denoiser", "prompt_lookup"]

#: Options that every mode honours; the rest belong to a strategy or a rule.
COMMON_OPTIONS = frozenset(
    {
        "mode",
        "max_new_tokens",
        "temperature",
        "top_k",
        "top_p",
        "seed",
        "stop",
        "stats",
        "logprobs",
        "logprobs_at",
        "repetition_penalty",
        "no_repeat_ngram_size",
        "bad_words",
        "min_new_tokens",
        "constraint",
    }
)


class Sampling(BaseModel):
    """The options of decoding that every host calls by the same names, with their ranges and descriptions."""

    model_config = ConfigDict(defer_build=True)

    mode: str | None = Field(
        default=None,
        description="speculative (lossless: same text as ar, fewer passes), diffusion, ar, "
        "repair (ar, then doubtful tokens anew), alternating (modes in turns), or auto (chosen for each request); "
        "the model's first if not given",
    )
    temperature: float = Field(
        default=0.0, ge=0.0, le=100.0, allow_inf_nan=False, description="0 is greedy; above 0 samples"
    )
    top_k: int | None = Field(default=None, ge=1, description="sample among the k likeliest tokens")
    top_p: float | None = Field(
        default=None, gt=0.0, le=1.0, description="sample among the likeliest tokens that hold this probability"
    )
    seed: int | None = Field(
        default=None, ge=0, le=LARGEST_SEED, description="makes sampling repeatable; drawn at random if not given"
    )
    drafts: Drafts | None = Field(
        default=None,
        description="speculative: drafts of the denoiser, prompt_lookup (copied from the text so far), or auto: both, "
        "as many as pay; auto if not given, where the backend can",
    )
    draft_length: int | None = Field(
        default=None, ge=1, le=16, description="speculative: a fixed layout, so many draft tokens verified in one pass"
    )
    block_length: int | None = Field(
        default=None, ge=1, le=1024, description="diffusion: open positions denoised together"
    )
    rule: str | None = Field(default=None, description="diffusion: commit rule; `llm dllm rules` lists them")
    threshold: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="diffusion: commit tokens at least this probable (rule threshold and others)",
    )
    factor: float | None = Field(
        default=None, gt=0.0, le=64.0, description="diffusion: larger commits more tokens a pass (rule factor)"
    )
    guidance: float | None = Field(
        default=None, gt=0.0, le=64.0, description="diffusion: classifier-free guidance; doubles the rows"
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        le=1 << 16,
        description="diffusion: passes a block is spread over (rules quota, random, margin, position_aware); "
        "a family's own sampler counts as its original does, see docs/families.md",
    )

    approximate_cache: Literal["prefix", "dual"] | None = Field(
        default=None, description="bidirectional models: prefix or dual; whole passes, which are exact, if not given"
    )
    refresh: int | None = Field(
        default=None, ge=1, description="with an approximate cache: forward the whole canvas again every n passes"
    )
    rule_options: dict[str, Any] | None = Field(
        default=None, description="diffusion: parameters of the commit rule by their names; see `llm dllm rules`"
    )
    revoke: str | None = Field(default=None, description="diffusion: revocation rule, which reopens committed tokens")
    revoke_options: dict[str, Any] | None = Field(
        default=None, description="diffusion: parameters of the revocation rule by their names"
    )
    preset_options: dict[str, Any] | None = Field(
        default=None, description="options of the model's own sampler by their names; see docs/families.md"
    )

    logprobs: int | None = Field(
        default=None,
        ge=0,
        le=MOST_ALTERNATIVES,
        description="tell each token's log-probability and so many likeliest alternatives; 0: the token's own only",
    )
    logprobs_at: Literal["settling", "final"] | None = Field(
        default=None,
        description="logprobs as of the pass that committed the token, or of one more pass over the final text; "
        "settling if not given",
    )
    repetition_penalty: float | None = Field(
        default=None,
        gt=0.0,
        le=100.0,
        allow_inf_nan=False,
        description="above 1: tokens of prompt and answer are less likely to come again; see docs/guide.md",
    )
    no_repeat_ngram_size: int | None = Field(
        default=None, ge=1, le=1024, description="ar, speculative: no run of so many tokens comes twice"
    )
    bad_words: tuple[str | tuple[int, ...], ...] | None = Field(
        default=None, description="texts, or lists of token ids, that the answer never holds"
    )
    min_new_tokens: int | None = Field(
        default=None, ge=1, description="no token that ends the answer before so many others"
    )
    stats: bool = Field(default=False, description="measure where the time goes: seconds by part in the statistics")


class SamplingConfig(Sampling, Checked):
    """How one request is decoded.

    An option left at ``None`` takes the mode's default. An option that the chosen mode
    or rule would not honour raises :class:`OptionError` when the request is admitted.

    :raises OptionError: for an unknown option or a value out of range.
    """

    max_new_tokens: int = Field(default=256, ge=1, description="most tokens to generate")
    stop: tuple[str, ...] = Field(default=(), description="strings that end the answer; they are not part of it")

    constraint: Any = Field(default=None, description="what the answer must be: Regex, JsonSchema or Grammar")

    def __init__(self, **options: Any) -> None:
        # Type checkers would take pydantic's own, which knows nothing of options that are read from texts.
        super().__init__(**options)

    @field_validator("constraint")
    @classmethod
    def _one_of_three(cls, value: object) -> object:
        if value is not None and not isinstance(value, Constraint):
            raise ValueError("give a Regex, a JsonSchema or a Grammar")
        return value

    @field_validator("stop", mode="before")
    @classmethod
    def _one_string_is_a_list_of_one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _no_empty_stop(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not text for text in value):
            raise ValueError("a stop string is empty; leave it out")
        for text in value:
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError("half of a surrogate pair is no character and stops nothing; leave it out")
        return value

    @field_validator("bad_words")
    @classmethod
    def _no_empty_word(
        cls, value: tuple[str | tuple[int, ...], ...] | None
    ) -> tuple[str | tuple[int, ...], ...] | None:
        if any(not word for word in value or ()):
            raise ValueError("a word is empty; leave it out")
        return value

    @model_validator(mode="after")
    def _room_for_the_least(self) -> Self:
        if self.min_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise OptionError(
                message(
                    "{min_new_tokens}={} is above {max_new_tokens}={}; make it smaller",
                    self.min_new_tokens,
                    self.max_new_tokens,
                )
            )
        return self

    @model_validator(mode="after")
    def _logprobs_somewhere(self) -> Self:
        if self.logprobs_at is not None and self.logprobs is None:
            raise OptionError(
                message("{logprobs_at}={!r} has no effect without {logprobs}; set {logprobs}=0", self.logprobs_at)
            )
        return self

    def given(self) -> dict[str, Any]:
        """The options that differ from "not given"."""
        return {name: getattr(self, name) for name in self.model_fields_set if getattr(self, name) is not None}

    def with_options(self, **options: Any) -> Self:
        """A copy with some options replaced, validated again."""
        return type(self)(**{**self.given(), **options})

    def several(self, count: int) -> list[Self]:
        """Options of so many answers to one prompt: the first has the seed, if there is one, the next that and one."""
        if self.seed is None or count == 1:
            return [self] * count
        seeds = ((self.seed + place) % (LARGEST_SEED + 1) for place in range(count))
        return [self.with_options(seed=seed) for seed in seeds]

    def check_sampling(self) -> None:
        """Refuse sampling options that greedy decoding would ignore.

        :raises OptionError: if top_k or top_p is set at temperature 0.
        """
        for name in ("top_k", "top_p"):
            if self.temperature == 0 and getattr(self, name) is not None:
                option, value = Option(name), getattr(self, name)
                raise OptionError(
                    message(
                        "{}={} has no effect at {temperature} 0; set {temperature} above 0 or leave {} out",
                        option,
                        value,
                        option,
                    )
                )


_LIMITS = {"ge": "at least", "gt": "above", "le": "at most"}


def value_range(option: str) -> str:
    """The values an option takes, in words; empty if any will do."""
    found = {
        name: getattr(item, name)
        for item in SamplingConfig.model_fields[option].metadata
        for name in _LIMITS
        if hasattr(item, name)
    }
    return ", ".join(f"{words} {found[name]}" for name, words in _LIMITS.items() if name in found)
