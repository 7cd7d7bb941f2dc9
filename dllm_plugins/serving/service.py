"""From a request to its answer: model, prompt, queue, events, and what is sent of them."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from collections.abc import Callable
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any
from typing import ClassVar
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from dllm_plugins.errors import DllmError
from dllm_plugins.errors import RequestError
from dllm_plugins.errors import calling
from dllm_plugins.events import Commit
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.messages import Dialect
from dllm_plugins.models import Model
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.errors import told
from dllm_plugins.serving.hosting import Models
from dllm_plugins.serving.metrics import Metrics
from dllm_plugins.serving.sending import ClientLeftError
from dllm_plugins.serving.sending import EventStream
from dllm_plugins.serving.sending import Json
from dllm_plugins.serving.sending import unless_left
from dllm_plugins.serving.settings import ServerSettings
from dllm_plugins.serving.work import Work
from dllm_plugins.serving.work import check_length

_log = logging.getLogger(__name__)
#: Of answers that nobody waits for; clients never see it.
_LEFT = 499
STOPPING = "the server is being stopped; ask another one, or again when it is back"


class Wanted(Protocol):
    """A request, whatever its shape."""

    model: str
    stream: bool | None
    #: Where its prompt stands.
    field: ClassVar[str]

    @property
    def dialect(self) -> Dialect:
        """How it calls the engine's options."""

    def work(self, model: Model) -> Work:
        """What it asks of a model."""


class Teller(Protocol):
    """Puts answers into the shape of an interface."""

    def whole(self, finishes: Sequence[Finish]) -> dict[str, Any]:
        """All answers at once."""

    def opening(self) -> list[str]:
        """What a stream begins with."""

    def more(self, place: int, event: Event) -> list[str]:
        """What an event adds to a stream."""

    def closing(self, finishes: Sequence[Finish]) -> list[str]:
        """What a stream ends with."""

    def failed(self, error: ApiError) -> list[str]:
        """What a stream that fails ends with."""


class _Begun:
    """A request whose first event is there.

    :param stack: gives everything back.
    """

    def __init__(self, stack: AsyncExitStack, teller: Teller, events: AsyncGenerator[tuple[int, Event], None]) -> None:
        self.stack = stack
        self.teller = teller
        self.events = events
        self.first: tuple[int, Event] | None = None
        self.said = False
        self.finishes = dict[int, Finish]()

    async def all(self) -> AsyncGenerator[tuple[int, Event], None]:
        """Its events, the first one again among them."""
        if self.first is not None:
            yield self._noted(*self.first)
        async for place, event in self.events:
            yield self._noted(place, event)

    def _noted(self, place: int, event: Event) -> tuple[int, Event]:
        if isinstance(event, Finish):
            self.finishes[place] = event
        return place, event

    @property
    def ends(self) -> list[Finish]:
        """The ends of its answers, in their order."""
        return [self.finishes[place] for place in sorted(self.finishes)]


class Service:
    """What all endpoints of a server share."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.models = Models(settings, self.metrics)
        self.stopping = False

    async def answer(
        self, endpoint: str, wanted: Wanted, request: Request, tells: Callable[[Work, Any], Teller]
    ) -> Response:
        """Answer a request, whole or as a stream.

        :param tells: makes what tells of the work's answers, given the model's tokenizer.
        :raises DllmError: for what cannot be answered.
        """
        try:
            with calling(wanted.dialect):
                return await self._answered(endpoint, wanted, request, tells)
        except RequestError as error:
            # What is wrong with no option is wrong with the prompt.
            failure = told(error)
            failure.param = failure.param or wanted.field
            raise failure from error

    async def _answered(
        self, endpoint: str, wanted: Wanted, request: Request, tells: Callable[[Work, Any], Teller]
    ) -> Response:
        began, stack = time.perf_counter(), AsyncExitStack()
        async with stack:
            try:
                begun = await unless_left(request.receive, self._begin(stack, wanted, tells, began))
                if wanted.stream:
                    # From here on the stream gives everything back.
                    begun.stack = stack.pop_all()
                    return EventStream(self._stream(endpoint, wanted.model, begun, began))
                await unless_left(request.receive, self._finish(begun, wanted.model, began))
            except ClientLeftError:
                self.metrics.left(wanted.model)
                return Response(status_code=_LEFT)
            self.metrics.answered(endpoint, wanted.model, 200)
            return Json(begun.teller.whole(begun.ends))

    def bound(self, settings: ServerSettings) -> None:
        """Go by other bounds from the next pass on; what runs goes on."""
        self.settings = settings
        self.models.bound(settings)

    async def stop(self) -> None:
        """Take nothing more, give what runs its time, then cut it; and say so."""
        self.stopping = True
        busy = self.models.busy
        _log.warning("stopping: %d answers under way, up to %g seconds for them", busy, self.settings.grace)
        until = time.monotonic() + self.settings.grace
        while self.models.busy and time.monotonic() < until:
            await asyncio.sleep(min(0.05, self.settings.grace))
        cut = self.cut()
        _log.warning("stopped: %s", f"{cut} answers were cut" if cut else "every answer was finished")

    def cut(self) -> int:
        """End what runs; how many answers that were."""
        return self.models.cut(ApiError(503, STOPPING, code="stopping"))

    async def _begin(
        self, stack: AsyncExitStack, wanted: Wanted, tells: Callable[[Work, Any], Teller], began: float
    ) -> _Begun:
        if self.stopping:
            raise ApiError(503, STOPPING, code="stopping")
        scheduler = await stack.enter_async_context(self.models.using(wanted.model))
        model = scheduler.shared.model
        work = await asyncio.to_thread(wanted.work, model)
        check_length(work.requests, self.settings.prompt, wanted.field)
        answers = scheduler.ask(work.requests, work.drafts)
        stack.callback(answers.close)
        begun = _Begun(stack, tells(work, model.tokenizer), answers.events())
        # What is refused is no answer that has begun: its status says so.
        begun.first = await anext(begun.events)
        return begun

    def _look(self, begun: _Begun, event: Event, model: str, began: float) -> None:
        """Note when the first text is there, thought or said."""
        if isinstance(event, Commit) and (event.text or event.reasoning) and not begun.said:
            begun.said = True
            self.metrics.first_text(model, time.perf_counter() - began)

    async def _finish(self, begun: _Begun, model: str, began: float) -> None:
        async for _, event in begun.all():
            self._look(begun, event, model, began)
        self.metrics.whole(model, time.perf_counter() - began)

    async def _stream(self, endpoint: str, model: str, begun: _Begun, began: float) -> AsyncGenerator[str, None]:
        status = _LEFT
        async with begun.stack:
            try:
                yield "".join(begun.teller.opening())
                async for place, event in begun.all():
                    self._look(begun, event, model, began)
                    if text := "".join(begun.teller.more(place, event)):
                        yield text
                yield "".join(begun.teller.closing(begun.ends))
                status = 200
                self.metrics.whole(model, time.perf_counter() - began)
            except DllmError as error:
                failure = told(error)
                status = failure.status
                yield "".join(begun.teller.failed(failure))
            finally:
                self.metrics.answered(endpoint, model, status)
                if status == _LEFT:
                    self.metrics.left(model)
