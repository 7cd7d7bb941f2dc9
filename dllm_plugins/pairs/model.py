"""A pair as who answers: whichever model does, the chat is written in its own template and tokens."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from typing import Any

from dllm_plugins import plugins
from dllm_plugins.asked import Asked
from dllm_plugins.asked import Chat
from dllm_plugins.asked import Gaps
from dllm_plugins.asked import Text
from dllm_plugins.config import SamplingConfig
from dllm_plugins.engine import Engine
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.models import Model
from dllm_plugins.pairs.bridge import Bridge
from dllm_plugins.pairs.bridge import OneTokenizer
from dllm_plugins.pairs.engine import PairEngine
from dllm_plugins.request import Request
from dllm_plugins.template import Template

if TYPE_CHECKING:
    from dllm_plugins.tools.tool import Tool


@dataclass(frozen=True, slots=True)
class PairModel(Model):
    """Both models of a pair; tokenizer and denoiser are those of the one that verifies.

    :param diffusion: the other one, which also answers requests in its own modes.
    :param bridge: between the tokens of both.
    """

    diffusion: Model
    bridge: Bridge

    @property
    def one_tokenizer(self) -> bool:
        """Whether both read the same ids."""
        return isinstance(self.bridge, OneTokenizer)

    def engine(self, prefixes: KeptPrefixes | None = None) -> Engine:
        """See :meth:`Model.engine`; the other model keeps prefixes of its own."""
        engine = PairEngine(self.denoiser, self.tokenizer, plugins.modes(), prefixes)
        engine.join(self.diffusion, self.bridge)
        return engine

    def chat_request(
        self,
        messages: Sequence[Mapping[str, Any]],
        config: SamplingConfig | None = None,
        tools: Sequence["Tool"] = (),
        choice: str = "auto",
        parallel: bool | None = None,
        thinking: bool | None = None,
    ) -> Request:
        """See :meth:`~dllm_plugins.speaker.Speaker.chat_request`."""
        made = Model.chat_request(self, messages, config, tools, choice, parallel, thinking)
        if not self.diffusion.chats:
            # It goes on from the text that this one's template makes of the chat.
            return made
        return self._either(made, config, Chat(tuple(messages), tuple(tools), choice, parallel, thinking))

    def text_request(self, text: str, config: SamplingConfig | None = None, special: bool = True) -> Request:
        """See :meth:`~dllm_plugins.speaker.Speaker.text_request`."""
        return self._either(Model.text_request(self, text, config, special), config, Text(text, special))

    def fill_request(self, template: Template, **options: Any) -> Request:
        """See :meth:`~dllm_plugins.models.Model.fill_request`."""
        made = Model.fill_request(self, template, **options)
        return self._either(made, made.config, Gaps(template))

    def _either(self, made: Request, config: SamplingConfig | None, asked: Asked) -> Request:
        """The request, with what the other model makes of the same in its place."""
        constraint = None if config is None else config.constraint
        return replace(made, otherwise=partial(_asked_of, self.diffusion, asked, constraint))


def _asked_of(model: Model, asked: Asked, constraint: Any, config: SamplingConfig) -> Request:
    """What a model makes of what a host asks, given the options of the request by now.

    :param constraint: what was asked for; tools have added theirs since.
    """
    return asked.request(model, config.model_copy(update={"constraint": constraint}))
