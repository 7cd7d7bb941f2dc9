"""What hosts ask of a model, before its tokenizer has made a request of it: all that a server must be sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeAlias

from dllm_plugins.config import SamplingConfig
from dllm_plugins.template import Template
from dllm_plugins.tools.tool import Tool

if TYPE_CHECKING:
    from dllm_plugins.models import Model
    from dllm_plugins.request import Request


@dataclass(frozen=True, slots=True)
class Chat:
    """An answer to a chat; see :meth:`~dllm_plugins.speaker.Speaker.chat_request`."""

    messages: tuple[Mapping[str, Any], ...]
    tools: tuple[Tool, ...] = ()
    choice: str = "auto"
    parallel: bool | None = None
    thinking: bool | None = None

    def request(self, model: "Model", config: SamplingConfig) -> "Request":
        """What the engine is asked."""
        return model.chat_request(self.messages, config, self.tools, self.choice, self.parallel, thinking=self.thinking)


@dataclass(frozen=True, slots=True)
class Text:
    """What goes on from a text; see :meth:`~dllm_plugins.speaker.Speaker.text_request`."""

    text: str
    special: bool = True

    def request(self, model: "Model", config: SamplingConfig) -> "Request":
        """What the engine is asked."""
        return model.text_request(self.text, config, special=self.special)


@dataclass(frozen=True, slots=True)
class Gaps:
    """What fills a template; see :meth:`~dllm_plugins.models.Model.fill_request`."""

    template: Template

    def request(self, model: "Model", config: SamplingConfig) -> "Request":
        """What the engine is asked."""
        return model.fill_request(self.template, **config.given())


Asked: TypeAlias = Chat | Text | Gaps
