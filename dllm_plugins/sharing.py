"""One loaded model for several callers: threads, asyncio tasks, interleaved streams.

Whoever needs an event runs the next pass, for every row; the events of others wait for
them. No caller holds the engine for longer than one pass.

An exception may come from outside between any two steps (Ctrl-C, a task that is cancelled, a
generator that is closed). So whatever a caller takes is noted first in something it made
before: its :class:`Claim`, its ticket of the lock. And whatever has to be tidied up can be
found and done again by the next one who comes: rows of a pass that was broken off, claims of
those who left, rows that nobody claims.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from weakref import ReferenceType
from weakref import WeakKeyDictionary
from weakref import WeakValueDictionary
from weakref import ref

from dllm_plugins.decoding.failing import or_raise
from dllm_plugins.errors import PassError
from dllm_plugins.events import Event
from dllm_plugins.events import Failure
from dllm_plugins.events import Finish
from dllm_plugins.fair import FairLock
from dllm_plugins.fair import Ticket
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.load_options import LoadOptions
from dllm_plugins.models import Model
from dllm_plugins.models import load_model
from dllm_plugins.request import Request
from dllm_plugins.text.thinking import Thinking
from dllm_plugins.text.thinking import parts_of


@dataclass(eq=False, slots=True)
class Claim:
    """One caller's rows, and the events that wait for it.

    :param numbers: the engine's numbers of its requests, in their order.
    :param left: nobody waits any more.
    """

    numbers: list[int] = field(default_factory=list)
    events: deque[Event | Failure] = field(default_factory=deque)
    left: bool = False


class SharedModel:
    """A model with one engine that any number of callers may use at once.

    Prefixes of finished rows are kept, as many positions as the model's context holds,
    so that the next turn of a conversation forwards only what is new.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.prefixes = KeptPrefixes(model.denoiser.spec.context)
        self._engine = model.engine(self.prefixes)
        self._lock = FairLock()
        self._claims: dict[int, Claim] = {}
        self._leaving: deque[Claim] = deque()
        # Weak values, too: a lock that tasks have waited for refers to their loop, and would keep it alive.
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, ReferenceType[asyncio.Lock]] = WeakKeyDictionary()

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """Events of one request until it finishes; closing the generator frees its row.

        :raises OptionError: for options the mode does not honour.
        :raises RequestError: for a prompt that cannot be used.
        :raises PassError: if a pass fails or is broken off, or the row fails in it.
        """
        events = iter(self.stream_batch([request]))
        try:
            for _, event in events:
                yield event
        finally:
            events.close()

    def stream_batch(self, requests: Sequence[Request]) -> "SharedBatch":
        """Events of several requests as (place in `requests`, event); see :class:`SharedBatch`.

        :raises OptionError: for options the mode does not honour.
        :raises RequestError: for a prompt that cannot be used.
        """
        return SharedBatch(self, requests)

    def generate(self, requests: Sequence[Request]) -> list[Finish]:
        """Decode several requests together; results in the order of `requests`.

        :raises OptionError: for options the mode does not honour.
        :raises RequestError: for a prompt that cannot be used.
        :raises PassError: if a pass fails or is broken off, or one of the rows fails in it.
        """
        done: dict[int, Finish] = {}
        events = iter(self.stream_batch(requests))
        try:
            for place, event in events:
                if isinstance(event, Finish):
                    done[place] = event
        finally:
            events.close()
        return [done[place] for place in range(len(requests))]

    def rows(self) -> "SharedRows":
        """Rows of one caller that join and leave at any pass."""
        return SharedRows(self)

    async def astream(self, request: Request) -> AsyncGenerator[Event, None]:
        """Like :meth:`stream`, for asyncio: passes run in a thread, one for all tasks of a loop.

        A cancelled task frees its row at once, or after the pass that is under way.
        """
        claim, turn = Claim(), self._turn()
        try:
            await asyncio.to_thread(self._admit, claim, [request])
            event: Event | None = None
            while not isinstance(event, Finish):
                event = or_raise(await self._anext(claim, turn))
                yield event
        finally:
            self._leave(claim)

    def _turn(self) -> asyncio.Lock:
        """The lock that the tasks of this loop share for as long as one of them is streaming."""
        loop = asyncio.get_running_loop()
        known = self._turns.get(loop)
        turn = None if known is None else known()
        if turn is None:
            turn = asyncio.Lock()
            self._turns[loop] = ref(turn)
        return turn

    async def _anext(self, claim: Claim, turn: asyncio.Lock) -> Event | Failure:
        async with turn:
            if claim.events:
                return claim.events.popleft()
            return await asyncio.to_thread(self._take, claim)

    def _alone(self, work: Callable[[], None]) -> None:
        """Do something with the engine, which is one caller's at a time."""
        ticket = Ticket()
        try:
            try:
                self._lock.acquire(ticket)
                self._put_in_order()
                work()
            finally:
                self._let_go(ticket)
        finally:
            # Once more, in case an interrupt came the first time. What is done already does no harm.
            self._let_go(ticket)

    def _let_go(self, ticket: Ticket) -> None:
        """Hand the engine on, with nothing left undone."""
        try:
            if self._lock.holds(ticket):
                self._put_in_order()
        finally:
            self._lock.release(ticket)
        self._tidy()

    def _tidy(self) -> None:
        """Put in order what there is, unless somebody holds the engine, who will look again when done."""
        while self._leaving or self._engine.broken:
            ticket = Ticket()
            try:
                try:
                    if not self._lock.try_acquire(ticket):
                        return
                    self._put_in_order()
                finally:
                    self._lock.release(ticket)
            finally:
                self._lock.release(ticket)

    def _put_in_order(self) -> None:
        """Tell those whose pass was broken off, free the rows of those who left, and what nobody claims."""
        self._engine.recover(self._deliver)
        while self._leaving:
            claim = self._leaving[0]
            for number in claim.numbers:
                self._engine.cancel(number)
                self._claims.pop(number, None)
            claim.events.clear()
            self._leaving.popleft()
        for number in self._engine.active:
            if number not in self._claims:
                self._engine.cancel(number)

    def _deliver(self, event: Event | Failure) -> None:
        claim = self._claims.get(event.row)
        if claim is not None:
            claim.events.append(event)

    def _admit(self, claim: Claim, requests: Sequence[Request]) -> None:
        """Take in all of them, or none if one is refused.

        What is worked out beforehand, such as the automaton of a large schema, keeps nobody else from passes.
        """
        jobs = [self._engine.prepare(request, len(requests) - 1) for request in requests]

        def admit() -> None:
            for job in jobs:
                if claim.left:
                    return
                number = self._engine.enter(job)
                claim.numbers.append(number)
                self._claims[number] = claim

        self._alone(admit)

    def _take(self, claim: Claim) -> Event | Failure:
        """The next event of any of the caller's rows, after as many passes as that needs.

        :raises PassError: if none can come any more.
        """

        def run() -> None:
            # Somebody else may have made a pass while this caller waited for its turn.
            if claim.events:
                return
            self._engine.advance(self._deliver)
            if not claim.events and not set(claim.numbers).intersection(self._engine.active):
                raise PassError("the rows of this request are gone, and no event of them is left; ask again")

        while True:
            with suppress(IndexError):
                return claim.events.popleft()
            self._alone(run)

    def _stop(self, claim: Claim, number: int, length: int, thinking: Thinking | None) -> Finish:
        found: list[Finish] = []

        def stop() -> None:
            waiting = list(claim.events)
            claim.events.clear()
            claim.events.extend(event for event in waiting if event.row != number)
            for event in (or_raise(event) for event in waiting if event.row == number):
                if isinstance(event, Finish):
                    thought, said = parts_of(self.model.tokenizer, event.tokens[:length], thinking)
                    found.append(event.cut(length, said, thought))
                    return
            found.append(self._engine.stop(number, length))

        self._alone(stop)
        return found[0]

    def _leave(self, claim: Claim) -> None:
        """Free the caller's rows without waiting: a generator may be closed by the garbage collector in mid-pass."""
        claim.left = True
        self._leaving.append(claim)
        self._tidy()


class SharedBatch:
    """The events of several requests while they are decoded together.

    Iterate once; closing the iterator frees the rows that are not done.
    """

    def __init__(self, shared: SharedModel, requests: Sequence[Request]) -> None:
        self._shared = shared
        self._requests = requests
        self._claim = Claim()
        self._places: dict[int, int] = {}

    def __iter__(self) -> Generator[tuple[int, Event], None, None]:
        """(place in the batch, event) until every row has finished or was stopped.

        :raises PassError: if a pass fails or is broken off, or one of the rows fails in it.
        """
        outcomes = self.outcomes()
        try:
            for place, event in outcomes:
                yield place, or_raise(event)
        finally:
            outcomes.close()

    def outcomes(self) -> Generator[tuple[int, Event | Failure], None, None]:
        """As iterating, but a row that fails says so by an event, and the others go on."""
        shared, claim = self._shared, self._claim
        try:
            try:
                shared._admit(claim, self._requests)
                self._places = {number: place for place, number in enumerate(claim.numbers)}
                while self._places:
                    event = shared._take(claim)
                    place = self._places.get(event.row)
                    if place is None:
                        continue
                    if isinstance(event, Finish | Failure):
                        del self._places[event.row]
                    yield place, event
            finally:
                shared._leave(claim)
        finally:
            # Once more, in case an interrupt came the first time.
            shared._leave(claim)

    def stop(self, place: int, length: int) -> Finish:
        """End one row, its answer cut to `length` tokens; no more of its events come.

        If the row has ended by itself already, its Finish may still be waiting: it is cut too.

        :raises KeyError: if the row has no events to come.
        :raises PassError: if the row has failed.
        """
        for number, known in self._places.items():
            if known == place:
                del self._places[number]
                return self._shared._stop(self._claim, number, length, self._requests[known].thinking)
        raise KeyError(place)


class SharedRows:
    """One caller's rows, which join and leave at any pass: what a server has. One thread at a time."""

    def __init__(self, shared: SharedModel) -> None:
        self._shared = shared
        self._claim = Claim()

    def admit(self, request: Request) -> int:
        """Take a request in; its row joins at the next pass.

        :returns: the number that its events carry.
        :raises OptionError: for options the mode does not honour.
        :raises RequestError: for a prompt that cannot be used.
        """
        self._shared._admit(self._claim, [request])
        return self._claim.numbers[-1]

    def advance(self) -> list[Event | Failure]:
        """What one pass over all rows tells of these, or what passes of other callers have told already."""
        claim, shared = self._claim, self._shared

        def run() -> None:
            if not claim.events:
                shared._engine.advance(shared._deliver)

        shared._alone(run)
        found = list[Event | Failure]()
        while claim.events:
            found.append(claim.events.popleft())
        for event in found:
            if isinstance(event, Finish | Failure):
                self._forget(event.row)
        return found

    def cancel(self, number: int) -> None:
        """Free a row; no more of its events come. One that has ended is left alone."""
        claim, shared = self._claim, self._shared

        def free() -> None:
            shared._engine.cancel(number)
            waiting = [event for event in claim.events if event.row != number]
            claim.events.clear()
            claim.events.extend(waiting)

        if number in claim.numbers:
            shared._alone(free)
            self._forget(number)

    def close(self) -> None:
        """Free all of them."""
        self._shared._leave(self._claim)

    def _forget(self, number: int) -> None:
        self._claim.numbers.remove(number)
        self._shared._claims.pop(number, None)


_models: WeakValueDictionary[tuple[tuple[str, str], ...], SharedModel] = WeakValueDictionary()
_loading = threading.Lock()


def shared_model(name: str = "dllm", **options: Any) -> SharedModel:
    """The model of these options, loaded once per process and freed with its last holder.

    :param options: see :func:`dllm_plugins.models.load_model`.
    """
    defaults = asdict(LoadOptions())
    given = {option: str(value) for option, value in options.items() if value != defaults.get(option)}
    key = tuple(sorted({"name": name, **given}.items()))
    with _loading:
        found = _models.get(key)
        if found is None:
            found = SharedModel(load_model(name, **options))
            _models[key] = found
        return found
