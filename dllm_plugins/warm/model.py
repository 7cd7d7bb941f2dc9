"""A model of a server in place of one of this process: what hosts use of it, under the same names."""

import asyncio
from collections.abc import AsyncGenerator
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import aclosing
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeVar

from dllm_plugins.asked import Asked
from dllm_plugins.asked import Chat
from dllm_plugins.asked import Gaps
from dllm_plugins.asked import Text
from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Event
from dllm_plugins.request import Request
from dllm_plugins.template import Template
from dllm_plugins.text.said import Spelling
from dllm_plugins.text.said import token_bytes
from dllm_plugins.tools.format import CallFormat
from dllm_plugins.tools.tool import Tool
from dllm_plugins.warm.link import Link
from dllm_plugins.warm.link import NotServedError
from dllm_plugins.warm.wire import besides
from dllm_plugins.warm.wire import packed_request
from dllm_plugins.warm.wire import unpacked

if TYPE_CHECKING:
    from dllm_plugins.models import Model
    from dllm_plugins.sharing import SharedModel

_T = TypeVar("_T")


class WarmTokenizer(Spelling):
    """What a server's tokenizer says of texts and ids."""

    def __init__(self, link: Link) -> None:
        self._link = link
        # Those that answers have told of.
        self._known: dict[int, bytes] = {}

    def know(self, told: Mapping[str, str]) -> None:
        """Keep the bytes of tokens, which came as Latin-1."""
        self._known |= {int(token): text.encode("latin-1") for token, text in told.items()}

    def token_bytes(self, token: int) -> bytes:
        """See :func:`~dllm_plugins.text.said.token_bytes`."""
        if self._link.here is not None:
            return token_bytes(self._link.here.model.tokenizer, token)
        return self._known[token]

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Sequence[int]:
        """See :class:`~dllm_plugins.text.tokenizer.TextTokenizer`."""
        try:
            return _asked(self._link, "write", _ids, text=text, special=add_special_tokens)
        except NotServedError as error:
            tokenizer = self._link.fall_back(error).model.tokenizer
            return list(tokenizer.encode(text, add_special_tokens=add_special_tokens))

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """See :class:`~dllm_plugins.text.tokenizer.TextTokenizer`."""
        try:
            return _asked(self._link, "read", _text, tokens=[*token_ids], special=not skip_special_tokens)
        except NotServedError as error:
            tokenizer = self._link.fall_back(error).model.tokenizer
            return str(tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens))


class WarmModel:
    """What hosts use of a :class:`~dllm_plugins.models.Model`. Its requests hold what is asked, and no tokens.

    :param facts: what the server says of it.
    """

    def __init__(self, link: Link, facts: Mapping[str, Any]) -> None:
        self._link = link
        self._form: CallFormat | None = unpacked(facts["form"])
        self.name = str(facts["name"])
        self.context = int(facts["context"])
        self.chats = bool(facts["chats"])
        self.thinks = bool(facts["thinks"])
        self.tokenizer = WarmTokenizer(link)

    def chat_request(
        self,
        messages: Sequence[Mapping[str, Any]],
        config: SamplingConfig | None = None,
        tools: Sequence[Tool] = (),
        choice: str = "auto",
        parallel: bool | None = None,
        thinking: bool | None = None,
    ) -> Request:
        """See :meth:`~dllm_plugins.speaker.Speaker.chat_request`; what that refuses is refused with the answer."""
        chat = Chat(tuple(messages), tuple(tools), choice, parallel, thinking)
        return Request((), config or SamplingConfig(), asked=chat)

    def text_request(self, text: str, config: SamplingConfig | None = None, special: bool = True) -> Request:
        """See :meth:`~dllm_plugins.speaker.Speaker.text_request`."""
        return Request((), config or SamplingConfig(), asked=Text(text, special))

    def fill_request(self, template: Template, **options: Any) -> Request:
        """See :meth:`~dllm_plugins.models.Model.fill_request`."""
        return Request((), SamplingConfig(**options), asked=Gaps(template))

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool] = (), thinking: bool | None = None
    ) -> list[int]:
        """See :meth:`~dllm_plugins.speaker.Speaker.encode_chat`."""
        return self._encoded(Chat(tuple(messages), tuple(tools), thinking=thinking))

    def encode_text(self, text: str, special: bool = True) -> list[int]:
        """See :meth:`~dllm_plugins.speaker.Speaker.encode_text`."""
        return self._encoded(Text(text, special))

    def call_form(self) -> CallFormat:
        """See :meth:`~dllm_plugins.speaker.Speaker.call_form`."""
        if self._form is None:
            raise RequestError(f"{self.name} has no chat template, so it calls no tools; use an instruct checkpoint")
        return self._form

    def _encoded(self, asked: Asked) -> list[int]:
        try:
            return _asked(self._link, "encode", _ids, request=_sendable(self._link, Request((), asked=asked)))
        except NotServedError as error:
            return list(request_here(self._link.fall_back(error).model, Request((), asked=asked)).tokens)


class WarmShared:
    """What hosts use of a :class:`~dllm_plugins.sharing.SharedModel`."""

    def __init__(self, link: Link, model: WarmModel) -> None:
        self._link = link
        self.model = model

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """See :meth:`~dllm_plugins.sharing.SharedModel.stream`.

        :raises ServerError: if the server ends in mid-answer, or does not answer and only it is to.
        """
        with closing(self.stream_batch([request])) as source:
            for _, event in source:
                yield event

    def stream_batch(self, requests: Sequence[Request]) -> Generator[tuple[int, Event], None, None]:
        """See :meth:`~dllm_plugins.sharing.SharedModel.stream_batch`; the first request that fails ends all."""
        try:
            sent = [_sendable(self._link, request) for request in requests]
            with closing(self._link.lines("answer", self._event, requests=sent)) as found:
                yield from found
            return
        except NotServedError as error:
            reason = error
        here = self._link.fall_back(reason)
        made = [request_here(here.model, request) for request in requests]
        with closing(iter(here.stream_batch(made))) as source:
            yield from source

    async def astream(self, request: Request) -> AsyncGenerator[Event, None]:
        """See :meth:`~dllm_plugins.sharing.SharedModel.astream`."""
        try:
            sent = [_sendable(self._link, request)]
            async with aclosing(self._link.alines("answer", self._event, requests=sent)) as found:
                async for _, event in found:
                    yield event
            return
        except NotServedError as error:
            reason = error
        here, made = await asyncio.to_thread(self._here, reason, request)
        async with aclosing(here.astream(made)) as source:
            async for event in source:
                yield event

    def _here(self, reason: NotServedError, request: Request) -> "tuple[SharedModel, Request]":
        here = self._link.fall_back(reason)
        return here, request_here(here.model, request)

    def _event(self, told: Mapping[str, Any]) -> tuple[int, Event]:
        self.model.tokenizer.know(told.get("bytes", {}))
        event: Event = unpacked(told["event"])
        return int(told["at"]), event


def request_here(model: "Model", request: Request) -> Request:
    """What a loaded model makes of a request that was made without one."""
    if request.asked is None:
        return request
    made = request.asked.request(model, request.config)
    return replace(made, **{name: value for name, value in besides(request).items() if name != "asked"})


def _sendable(link: Link, request: Request) -> Any:
    """A request as JSON.

    :raises NotServedError: if it cannot be sent, or the model is here by now.
    """
    if link.here is not None:
        raise NotServedError("the model was loaded here")
    found = packed_request(request)
    if found is None:
        raise NotServedError("the request holds objects that no other process can be sent")
    return found


def _ids(told: Any) -> list[int]:
    if not isinstance(told, list):
        raise TypeError("no ids")
    return [int(token) for token in told]


def _text(told: Any) -> str:
    if not isinstance(told, str):
        raise TypeError("no text")
    return told


def _asked(link: Link, kind: str, read: Callable[[Any], _T], **call: Any) -> _T:
    if link.here is not None:
        raise NotServedError("the model was loaded here")
    return link.ask(kind, read, **call)
