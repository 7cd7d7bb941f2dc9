"""Whose rows are in the next pass: first come, first served, within the bounds of a server.

All state belongs to the event loop. One thread for each model makes a pass at a time; between two passes rows that
were left are freed, and those whose turn it is are taken in.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import AsyncGenerator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace

from dllm_plugins.decoding.failing import caused
from dllm_plugins.errors import DllmError
from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.events import Failure
from dllm_plugins.events import Finish
from dllm_plugins.request import Request
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.kv_budget import KvBudget
from dllm_plugins.serving.mailbox import Letters
from dllm_plugins.serving.mailbox import Mailbox
from dllm_plugins.serving.mailbox import Queue
from dllm_plugins.serving.metrics import Metrics
from dllm_plugins.serving.settings import ServerSettings
from dllm_plugins.sharing import SharedModel

_log = logging.getLogger(__name__)
#: Seconds that an answer is thought to take before one has ended.
_GUESS = 5.0
#: How much the last answer counts in the mean of those before it.
_NEW = 0.2


@dataclass(eq=False, slots=True)
class _Row:
    """One answer of a request, waiting or at work.

    :param positions: it may come to hold so many, see :meth:`~dllm_plugins.serving.kv_budget.KvBudget.positions`.
    :param number: the engine's, once it is at work.
    :param left: nobody waits for it any more.
    """

    request: Request
    mailbox: Letters
    place: int
    positions: int
    drafts: bool
    number: int = 0
    began: float = 0.0
    left: bool = False


class Answers:
    """The answers to one request while they are written; closing frees their rows within a pass."""

    def __init__(self, scheduler: "Scheduler", rows: Sequence[_Row], mailbox: Letters) -> None:
        self._scheduler = scheduler
        self._rows = rows
        self._mailbox = mailbox

    async def events(self) -> AsyncGenerator[tuple[int, Event], None]:
        """(place, event) until every answer has ended.

        :raises DllmError: if one of them is refused or fails.
        """
        missing = len(self._rows)
        while missing:
            place, event = await self._mailbox.get()
            if isinstance(event, Failure):
                raise event.error
            missing -= isinstance(event, Finish)
            yield place, event

    def close(self) -> None:
        """Nobody waits any more."""
        self._scheduler.leave(self._rows)


class Scheduler:
    """The rows of one loaded model.

    :param name: of the model, for metrics.
    """

    def __init__(self, name: str, shared: SharedModel, settings: ServerSettings, metrics: Metrics) -> None:
        self.shared = shared
        self._name = name
        self._settings = settings
        self._metrics = metrics
        self._budget = KvBudget(shared.model, settings.kv_memory)
        self._rows = shared.rows()
        self._waiting = deque[_Row]()
        # Taken in by the pass under way, and so without a number as yet.
        self._joining: Sequence[_Row] = ()
        self._working: dict[int, _Row] = {}
        self._leaving = list[int]()
        self._seconds = _GUESS
        self._wanted = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"passes of {name}")
        self._task = asyncio.create_task(self._work())

    @property
    def busy(self) -> int:
        """Answers that wait or are being written."""
        return len(self._waiting) + len(self._joining) + len(self._working)

    def bound(self, settings: ServerSettings) -> None:
        """Go by other bounds from the next pass on; what waits and never finds room then is refused."""
        if settings.kv_memory != self._settings.kv_memory:
            self._budget.bound(settings.kv_memory)
        self._settings = settings
        for row in [*self._waiting]:
            if (error := self._budget.never_holds(row.positions)) is not None:
                row.mailbox.put(row.place, Failure(row.number, 0, error))
                self.leave([row])
        self._wanted.set()

    def ask(self, requests: Sequence[Request], drafts: bool = False, own: bool = False) -> Answers:
        """Queue the answers to a request.

        :param drafts: whether anybody wants to see them.
        :param own: of a host of this user: nobody is turned away, every event is told as the engine tells it, and
            where nobody else waits, or slices would be rounded differently, the prompt is read in one pass.
        :raises ApiError: 429 if the queue is full, 400 for more answers, or larger ones, than ever find room.
        """
        most = self._settings.waiting + self._settings.rows
        if len(requests) > most and not own:
            raise ApiError(400, f"{len(requests)} answers at once: this server takes {most} at most", param="n")
        positions = [self._budget.positions(request) for request in requests]
        free = max(0, self._settings.rows - len(self._joining) - len(self._working))
        if len(self._waiting) + len(requests) > self._settings.waiting + free and not own:
            raise self._full()
        mailbox: Letters = Queue() if own else Mailbox(len(requests))
        same = self.shared.model.denoiser.spec.numerics.startswith("row-invariant")
        slice_ = None if own and not (self.busy and same) else self._settings.slice
        sliced = [replace(request, slice=slice_) for request in requests]
        rows = [_Row(sliced[place], mailbox, place, most, drafts) for place, most in enumerate(positions)]
        self._waiting.extend(rows)
        self._tell_queue()
        self._wanted.set()
        return Answers(self, rows, mailbox)

    def leave(self, rows: Sequence[_Row]) -> None:
        """Free these rows, whatever they are at."""
        for row in rows:
            row.left = True
            with suppress(ValueError):
                self._waiting.remove(row)
            if self._working.pop(row.number, None) is not None:
                self._leaving.append(row.number)
        self._tell_queue()
        self._wanted.set()

    def cut(self, error: DllmError) -> int:
        """End all answers by an error; how many there were."""
        rows = [*self._working.values(), *(row for row in self._joining if not row.left), *self._waiting]
        for row in rows:
            row.mailbox.put(row.place, Failure(row.number, 0, error))
        self.leave(rows)
        return len(rows)

    async def close(self) -> None:
        """Stop working; rows that are still there are freed."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await asyncio.to_thread(self._thread.shutdown)
        self._rows.close()

    def _full(self) -> ApiError:
        rounds = math.ceil((len(self._waiting) + 1) / self._settings.rows)
        seconds = max(1, math.ceil(rounds * self._seconds))
        self._metrics.refused(self._name)
        return ApiError(
            429,
            f"{len(self._waiting)} answers wait for model {self._name!r} already; ask again in {seconds} seconds",
            code="server_busy",
            headers={"Retry-After": str(seconds)},
        )

    def _due(self) -> list[_Row]:
        """Those whose turn it is; a row that does not fit lets nobody pass."""
        found = list[_Row]()
        held = [row.positions for row in self._working.values()]
        while self._waiting and len(held) < self._settings.rows:
            held.append(self._waiting[0].positions)
            if not self._budget.holds(held):
                break
            found.append(self._waiting.popleft())
        return found

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not (self._working or self._waiting or self._leaving):
                self._wanted.clear()
                await self._wanted.wait()
            leaving, self._leaving = self._leaving, []
            due = self._joining = self._due()
            for row in due:
                row.began = loop.time()
            rows = [row.positions for row in (*self._working.values(), *due)]
            try:
                joined, events = await loop.run_in_executor(self._thread, self._pass, leaving, due, rows)
            except Exception as error:  # noqa: BLE001  whoever waits must be told, and the next ones served
                self._start_again(error)
                continue
            self._joining = ()
            self._join(due, joined)
            for event in events:
                self._deliver(event, loop.time())
            self._tell_queue()

    def _start_again(self, error: Exception) -> None:
        """End all rows by an error that nobody foresaw."""
        _log.error("the passes of %s were broken off", self._name, exc_info=error)
        self.cut(caused("the passes of this request were broken off; the server's log says how; ask again", error))
        self._joining, self._leaving = (), []
        self._rows.close()
        self._rows = self.shared.rows()

    def _pass(
        self, leaving: Sequence[int], due: Sequence[_Row], rows: Sequence[int]
    ) -> tuple[list[int | DllmError], list[Event | Failure]]:
        """In the thread: free rows, take rows in, and make a pass. For each that is due its number, or its error.

        :param rows: positions of all rows, those that are due among them.
        """
        for number in leaving:
            self._rows.cancel(number)
        if due:
            self._budget.trim(self.shared.prefixes, rows)
        joined = [self._admitted(row.request) for row in due]
        return joined, self._rows.advance()

    def _admitted(self, request: Request) -> int | DllmError:
        try:
            return self._rows.admit(request)
        except DllmError as error:
            return error
        except Exception as error:  # noqa: BLE001  one request's trouble is not the others'
            _log.exception("a request was not taken in")
            return caused("the request could not be taken in; the server's log says why", error)

    def _join(self, due: Sequence[_Row], joined: Sequence[int | DllmError]) -> None:
        for row, number in zip(due, joined, strict=True):
            if isinstance(number, DllmError):
                row.mailbox.put(row.place, Failure(0, 0, number))
            elif row.left:
                # Meanwhile.
                self._leaving.append(number)
            else:
                row.number = number
                self._working[number] = row

    def _deliver(self, event: Event | Failure, now: float) -> None:
        row = self._working.get(event.row)
        if row is None or (isinstance(event, Draft) and not row.drafts):
            return
        row.mailbox.put(row.place, event)
        if isinstance(event, Finish | Failure):
            del self._working[event.row]
        if isinstance(event, Finish):
            self._seconds += _NEW * (now - row.began - self._seconds)
            self._metrics.finished(self._name, event.usage)

    def _tell_queue(self) -> None:
        self._metrics.queue(self._name, len(self._waiting), len(self._joining) + len(self._working))
