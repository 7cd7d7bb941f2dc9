"""A server's models for hosts of its user on its machine: see :mod:`dllm_plugins.warm.protocol`."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import aclosing
from contextlib import asynccontextmanager
from contextlib import closing
from contextlib import suppress
from pathlib import Path
from typing import Any

from dllm_plugins.errors import DllmError
from dllm_plugins.events import Commit
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.models import Model
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.fitting import fitting
from dllm_plugins.serving.scheduling import Scheduler
from dllm_plugins.serving.service import STOPPING
from dllm_plugins.serving.service import Service
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.work import check_length
from dllm_plugins.text.said import token_bytes
from dllm_plugins.warm.model import request_here
from dllm_plugins.warm.protocol import PATIENCE
from dllm_plugins.warm.protocol import difference
from dllm_plugins.warm.wire import line
from dllm_plugins.warm.wire import packed
from dllm_plugins.warm.wire import packed_error
from dllm_plugins.warm.wire import unpacked_request

_log = logging.getLogger(__name__)
_LOST = "the server has failed; its log says how"


class Desk:
    """Answers calls, one a connection."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._calls = set[asyncio.Task[None]]()

    @asynccontextmanager
    async def at(self, listening: socket.socket) -> AsyncGenerator[None, None]:
        """Answer what comes to a socket; what was begun is given its time when the block ends."""
        settings = self._service.settings
        # Not as one of Unix: newer versions would remove it by a name that it has no more.
        server = await asyncio.start_server(self._take, sock=listening, limit=settings.body)
        try:
            yield
        finally:
            server.close()
            if self._calls:
                await asyncio.wait(self._calls, timeout=settings.grace + 1)
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection: its call, which is given up when the client leaves."""
        task = asyncio.current_task()
        assert task is not None, "asyncio makes one of each connection"
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        answering = leaving = None
        try:
            sent = await asyncio.wait_for(reader.readline(), PATIENCE)
            answering = asyncio.create_task(self._told(sent, writer))
            leaving = asyncio.create_task(reader.read(1))
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        except (TimeoutError, ValueError, OSError):
            # It said nothing, or more than it may.
            with suppress(OSError):
                writer.write(line({"unfit": "the call is too long for it, or took too long to come"}))
        finally:
            for other in filter(None, (answering, leaving)):
                other.cancel()
            await asyncio.gather(*filter(None, (answering, leaving)), return_exceptions=True)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _told(self, sent: bytes, writer: asyncio.StreamWriter) -> None:
        """Write the answers to a call."""

        async def tell(told: Mapping[str, Any]) -> None:
            writer.write(line(told))
            await writer.drain()

        try:
            async with aclosing(self._answers(json.loads(sent))) as answers:
                async for told in answers:
                    await tell(told)
            await tell({"done": True})
        except OSError:
            # The client has left.
            return
        except ApiError as error:
            await tell({"unfit": str(error)})
        except DllmError as error:
            await tell({"error": packed_error(error)})
        except Exception:  # noqa: BLE001  whoever asked must be told
            _log.exception("a call was not answered")
            await tell({"unfit": _LOST})

    async def _answers(self, call: Mapping[str, Any]) -> AsyncGenerator[Mapping[str, Any], None]:
        """Whether a call fits, and its results.

        :raises ApiError: for what this server does not do.
        :raises DllmError: for what is wrong with it.
        """
        name = await asyncio.to_thread(self._named, call)
        yield {"fits": True}
        if call["ask"] == "look":
            return
        async with self._service.models.using(name) as scheduler:
            model = scheduler.shared.model
            if call["ask"] != "answer":
                yield {"result": await asyncio.to_thread(_RESULTS[call["ask"]], model, call)}
                return
            async with aclosing(self._events(name, scheduler, call)) as events:
                async for told in events:
                    yield told

    def _named(self, call: Mapping[str, Any]) -> str:
        """The model that is meant, by the name that it is served under.

        :raises ApiError: if it is none, or anything else does not fit.
        """
        if self._service.stopping:
            raise ApiError(503, STOPPING)
        found = difference(call)
        if found is not None:
            raise ApiError(400, found)
        loading = Loading(call["model"], call["options"])
        name = fitting(self._service.settings.models, loading, Path(call["folder"]))
        if name is None:
            raise ApiError(404, f"it does not serve {call['model']!r} with the options {dict(call['options'])}")
        if self._service.models.changed(name):
            raise ApiError(409, f"files of {call['model']!r} have changed since it loaded them; start it again")
        return name

    async def _events(
        self, name: str, scheduler: Scheduler, call: Mapping[str, Any]
    ) -> AsyncGenerator[Mapping[str, Any], None]:
        model = scheduler.shared.model
        wanted = [unpacked_request(one) for one in call["requests"]]
        requests = await asyncio.to_thread(lambda: [request_here(model, request) for request in wanted])
        check_length(requests, self._service.settings.prompt)
        spelled = _Spelled(model.tokenizer)
        with closing(scheduler.ask(requests, drafts=True, own=True)) as answers:
            async for place, event in answers.events():
                yield {"at": place, "event": packed(event), **spelled.more(event)}
        self._service.metrics.answered("local", name, 200)


class _Spelled:
    """The bytes of tokens whose log-probabilities are told, each once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._told = set[int]()

    def more(self, event: Event) -> dict[str, Any]:
        """Those of an event."""
        new = set(_tokens_of(event)) - self._told
        self._told |= new
        told = {str(token): token_bytes(self._tokenizer, token).decode("latin-1") for token in new}
        return {"bytes": told} if told else {}


def _tokens_of(event: Event) -> Iterator[int]:
    gaps = event.gaps if isinstance(event, Finish) else ()
    told = event.logprobs or () if isinstance(event, Commit | Finish) else ()
    for one in (*told, *(one for gap in gaps for one in gap.logprobs)):
        yield one.token
        yield from (token for token, _ in one.top)


def _facts(model: Model, _call: Mapping[str, Any]) -> dict[str, Any]:
    form = packed(model.call_form()) if model.chats else None
    return {"name": model.name, "context": model.context, "chats": model.chats, "thinks": model.thinks, "form": form}


def _encoded(model: Model, call: Mapping[str, Any]) -> list[int]:
    return [int(token) for token in request_here(model, unpacked_request(call["request"])).tokens]


def _written(model: Model, call: Mapping[str, Any]) -> list[int]:
    return [int(token) for token in model.tokenizer.encode(call["text"], add_special_tokens=call["special"])]


def _read(model: Model, call: Mapping[str, Any]) -> str:
    return str(model.tokenizer.decode(call["tokens"], skip_special_tokens=not call["special"]))


_RESULTS = {"open": _facts, "encode": _encoded, "write": _written, "read": _read}
