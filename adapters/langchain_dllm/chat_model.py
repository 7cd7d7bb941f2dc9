"""ChatDLLM: the engine as a LangChain chat model."""

from collections.abc import Iterator
from typing import Any
from typing import NoReturn

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models.base import LangSmithParams
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages import AIMessageChunk
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGeneration
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.outputs import ChatResult
from pydantic import ConfigDict
from pydantic import Field
from pydantic import PrivateAttr
from pydantic import model_validator

from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.events import Commit
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.request import Request
from dllm_plugins.sharing import SharedModel
from dllm_plugins.sharing import shared_model
from langchain_dllm.messages import chat_of
from langchain_dllm.messages import metadata_of
from langchain_dllm.messages import usage_of

#: Fields that go to the engine as they are; `max_tokens` is its `max_new_tokens`.
SAMPLING = tuple(name for name in SamplingConfig.model_fields if name != "max_new_tokens")
LOADING = ("base", "denoiser", "dtype", "device")


class ChatDLLM(BaseChatModel):
    """A diffusion language model in a chain.

    Every sampling option is a field and may be overridden in a call, for example
    `model.invoke(messages, seed=3)` or `model.bind(mode="ar")`. An option left out takes
    the mode's default; see :class:`dllm_plugins.config.SamplingConfig`.

    :raises OptionError: for an option that is unknown, out of range or of another mode.
    """

    model_config = ConfigDict(populate_by_name=True, extra="forbid")

    model_name: str = Field(default="dllm", alias="model", description="a registered model")
    mode: str = "speculative"
    max_tokens: int = 256
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    draft_length: int | None = None
    block_length: int | None = None
    rule: str | None = None
    threshold: float | None = None
    factor: float | None = None
    steps: int | None = None
    base: str | None = Field(default=None, description="folder or hub id of the base weights")
    denoiser: str | None = Field(default=None, description="file with the denoiser's weights")
    dtype: str = "auto"
    device: str = "auto"

    _shared: SharedModel | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _check_sampling(self) -> "ChatDLLM":
        self._config(None, {})
        return self

    @property
    def _llm_type(self) -> str:
        return "dllm"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        """All that changes the output: the key of LangChain's cache."""
        return {name: getattr(self, name) for name in ("model_name", "max_tokens", *SAMPLING, *LOADING)}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        found = LangSmithParams(
            ls_provider="dllm",
            ls_model_name=str(kwargs.get("model", self.model_name)),
            ls_model_type="chat",
            ls_temperature=kwargs.get("temperature", self.temperature),
            ls_max_tokens=kwargs.get("max_tokens", self.max_tokens),
        )
        ends = stop or self.stop
        if ends:
            found["ls_stop"] = ends
        return found

    def _config(self, stop: list[str] | None, changes: dict[str, Any]) -> SamplingConfig:
        """The engine's options; `changes` are those of one call."""
        options = {name: getattr(self, name) for name in ("max_tokens", *SAMPLING)} | changes
        if stop is not None:
            options["stop"] = stop
        options["max_new_tokens"] = options.pop("max_tokens")
        return SamplingConfig(**{name: value for name, value in options.items() if value is not None})

    def _model(self, name: str) -> SharedModel:
        if name != self.model_name:
            return shared_model(name, **{key: getattr(self, key) for key in LOADING})
        if self._shared is None:
            self._shared = shared_model(name, **{key: getattr(self, key) for key in LOADING})
        return self._shared

    def _events(self, messages: list[BaseMessage], stop: list[str] | None, options: dict[str, Any]) -> Iterator[Event]:
        changes = dict(options)
        name = str(changes.pop("model", changes.pop("model_name", self.model_name)))
        config, chat = self._config(stop, changes), chat_of(messages)
        shared = self._model(name)
        yield from shared.stream(Request(shared.model.encode_chat(chat), config))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        for event in self._events(messages, stop, kwargs):
            if isinstance(event, Finish):
                message = AIMessage(
                    event.text, usage_metadata=usage_of(event), response_metadata=metadata_of(event, self.model_name)
                )
                return ChatResult(generations=[ChatGeneration(message=message)])
        raise AssertionError("a stream ends with Finish")

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        """Committed text only: a chunk is never taken back."""
        for event in self._events(messages, stop, kwargs):
            if isinstance(event, Commit) and event.text:
                message = AIMessageChunk(content=event.text)
            elif isinstance(event, Finish):
                message = AIMessageChunk(
                    content="",
                    usage_metadata=usage_of(event),
                    response_metadata=metadata_of(event, self.model_name),
                    chunk_position="last",
                )
            else:
                continue
            chunk = ChatGenerationChunk(message=message)
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def bind_tools(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not supported yet.

        :raises OptionError: always.
        """
        raise OptionError("ChatDLLM does not call tools; put what the tools return into the prompt")

    def with_structured_output(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not supported yet.

        :raises OptionError: always.
        """
        raise OptionError("ChatDLLM has no structured output; ask for JSON in the prompt and parse it")
