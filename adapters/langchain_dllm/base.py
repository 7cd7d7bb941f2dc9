"""What ChatDLLM and DLLM share: their options, and how those reach the engine."""

import logging
from functools import cached_property
from typing import Any
from typing import ClassVar
from typing import Literal
from typing import Self

from langchain_core.language_models import BaseLanguageModel
from langchain_core.language_models.base import LangSmithParams
from pydantic import ConfigDict
from pydantic import Field
from pydantic import SecretStr
from pydantic import ValidationError
from pydantic import model_validator

from dllm_plugins.config import Sampling
from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import calling
from dllm_plugins.options.checked import Numbers
from dllm_plugins.options.checked import explain
from dllm_plugins.warm.opening import Answering
from dllm_plugins.warm.opening import open_model
from langchain_dllm.call import CALL
from langchain_dllm.call import LANGCHAIN
from langchain_dllm.call import LOADING
from langchain_dllm.call import SAMPLING
from langchain_dllm.call import Call
from langchain_dllm.call import call_of
from langchain_dllm.call import changes_of
from langchain_dllm.call import in_engine_words
from langchain_dllm.messages import Teller

#: Fields of ours that are no options of a call, and the best known of LangChain's.
_ALSO = ("streaming", "api_key", "cache", "callbacks", "rate_limiter", "tags", "metadata", "verbose")
#: What changes an answer beside the engine's options and what is loaded.
_OF_ANSWERS = ("model_name", "max_tokens", "top_logprobs", "n", "thinking")
_log = logging.getLogger(__name__)


class EngineModel(Sampling, Numbers, BaseLanguageModel[Any]):
    """A LangChain model that the engine runs.

    Every sampling option is a field and may be overridden in a call, for example
    `model.invoke(question, seed=3)` or `model.bind(mode="ar")`. An option left out takes
    the mode's default; see :class:`dllm_plugins.config.SamplingConfig`.

    :raises OptionError: for an option that is unknown, out of range or of another mode.
    """

    model_config = ConfigDict(populate_by_name=True, extra="forbid")

    model_name: str = Field(
        default="dllm", alias="model", description="a registered model, or a checkpoint: a folder or a hub id"
    )
    max_tokens: int = SamplingConfig.model_fields["max_new_tokens"].default
    logprobs: bool | int | None = Field(
        default=None, description="tell each token's log-probability; a number: and of as many alternatives"
    )
    top_logprobs: int | None = Field(default=None, description="alternatives that logprobs tells of each token")
    n: int = Field(default=1, description="answers to one prompt, decoded together; seed, seed + 1 and so on")
    stop: list[str] | None = None
    timeout: float | None = Field(default=None, description="seconds until an answer must be complete")
    max_retries: int = Field(default=0, description="how often a request starts again after a pass failed")
    constraint: Any = Field(default=None, description="what answers must be: Regex, JsonSchema or Grammar")
    thinking: bool | None = Field(
        default=None, description="whether the model thinks first, where its chat template has a switch for that"
    )
    streaming: bool = Field(default=False, description="tell callbacks about tokens and drafts in `invoke` too")
    base: str | None = Field(default=None, description="folder or hub id of the base weights")
    denoiser: str | None = Field(default=None, description="file with the denoiser's weights")
    dtype: str = "auto"
    device: str = "auto"
    device_map: str | dict[str, str | int] | None = None
    backend: str = Field(default="auto", description="a registered denoiser backend")
    weights: str = Field(default="auto", description="'int8' or 'Q4_0' and its like quantise them while loading")
    compile: bool = Field(default=False, description="a checkpoint's own class behind torch.compile")
    batch_invariant: bool | None = Field(
        default=None, description="False lets rows share calls of the model at the price of bits that depend on them"
    )
    family: str | None = Field(default=None, description="of a checkpoint that looks like an ordinary model")
    preset: str | None = Field(default=None, description="the checkpoint's sampler, where its config does not say it")
    mask_id: int | None = Field(default=None, description="the mask token, where nothing in the checkpoint says it")
    pair: dict[str, Any] | None = Field(default=None, description="two models under one name: ar verifies diffusion")
    api_key: SecretStr | None = Field(
        default=None, exclude=True, repr=False, description="not needed; taken because tools give every model one"
    )

    ls_type: ClassVar[Literal["chat", "llm"]]
    call_options: ClassVar[tuple[str, ...]] = CALL

    def __init__(self, **given: Any) -> None:
        with calling(LANGCHAIN):
            try:
                super().__init__(**given)
            except ValidationError as error:
                raise OptionError(explain(error, in_engine_words((*CALL, *LOADING, *_ALSO)))) from None

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        self._call(None, {})
        if self.api_key is not None:
            _log.warning("%s runs on this machine; api_key is not used", type(self).__name__)
        return self

    @property
    def _llm_type(self) -> str:
        return "dllm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All that changes the output: the key of LangChain's cache."""
        own = [name for name in self.call_options if name not in CALL]
        named = {name: getattr(self, name) for name in (*_OF_ANSWERS, *SAMPLING, *LOADING, *own)}
        if self.constraint is not None:
            # Tracers write it out.
            named["constraint"] = repr(self.constraint)
        # LangChain overwrites the key `stop` with the call's own stop strings.
        return {"stop_sequences" if name == "stop" else name: value for name, value in named.items()}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        found = LangSmithParams(
            ls_provider="dllm",
            ls_model_name=str(kwargs.get("model", kwargs.get("model_name", self.model_name))),
            ls_model_type=self.ls_type,
            ls_temperature=kwargs.get("temperature", self.temperature),
            ls_max_tokens=kwargs.get("max_tokens", self.max_tokens),
        )
        ends = self.stop if stop is None else stop
        if ends:
            found["ls_stop"] = ends
        return found

    def _call(self, stop: list[str] | None, given: dict[str, Any]) -> Call:
        """The fields, with the changes of one call."""
        changes = changes_of(given, self.call_options)
        options = {name: getattr(self, name) for name in self.call_options} | changes
        # A gap is not as long as an answer may be, unless somebody says so.
        gaps = any(options.get(name) is not None for name in ("suffix", "gap", "spans"))
        if gaps and "max_tokens" not in {*self.model_fields_set, *changes}:
            del options["max_tokens"]
        return call_of(options if stop is None else options | {"stop": stop})

    @cached_property
    def _loaded(self) -> dict[str, Answering]:
        """Models used so far, kept for as long as this object lives."""
        return {}

    def _shared(self, name: str) -> Answering:
        """The model of this name, loaded at its first use or a server's."""
        if name not in self._loaded:
            with calling(LANGCHAIN):
                self._loaded[name] = open_model(name, {key: getattr(self, key) for key in LOADING})
            self._learn(name)
        return self._loaded[name]

    def _learn(self, name: str) -> None:
        """A model of this name is loaded."""

    def _teller(self, call: Call) -> Teller:
        model = self._shared(call.model_name).model
        return Teller(call, model.tokenizer, None if call.toolkit is None else model.call_form())

    def __getstate__(self) -> dict[Any, Any]:
        """What a pickle holds: the options. What they load is loaded again where it is needed."""
        state = super().__getstate__()
        return {**state, "__dict__": {name: found for name, found in state["__dict__"].items() if name != "_loaded"}}

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """A copy of the options that shares the loaded models, as every other copy does."""
        memo = {} if memo is None else memo
        memo[id(self._loaded)] = self._loaded
        return super().__deepcopy__(memo)

    def get_token_ids(self, text: str) -> list[int]:
        """Tokens of a text by the model's own tokenizer, unless `custom_get_token_ids` is set."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        return self._shared(self.model_name).model.encode_text(text, special=False)

    def with_structured_output(self, *args: Any, **kwargs: Any) -> Any:
        """Only ChatDLLM has it.

        :raises OptionError: always.
        """
        raise OptionError(
            f"{type(self).__name__} gives text; use ChatDLLM, or constraint=JsonSchema(...) and parse the answer"
        )
