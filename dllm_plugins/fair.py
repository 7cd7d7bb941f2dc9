"""A lock that is handed on in the order of asking, and that no interrupt can leave held.

threading.Lock goes to whoever is awake, which is the thread that has just let go of it:
of several callers of one model, one would run all the passes and the others wait. And an
exception that arrives from outside (Ctrl-C) between taking a lock and the block that
releases it would keep it for ever. So what is taken here is a place in a queue, under a
ticket that the caller made before: `release` gives back whatever the ticket has by then.
"""

from collections import deque
from contextlib import suppress
from queue import SimpleQueue


class Ticket:
    """One caller's place in the queue; for a single turn."""

    __slots__ = ("gate",)

    def __init__(self) -> None:
        #: Whoever may have made this ticket the first one puts something in.
        self.gate: SimpleQueue[None] = SimpleQueue()


class FairLock:
    """Mutual exclusion, first come, first served. Not reentrant.

    Every step is one operation of a deque, which other threads, finalisers and interrupts see
    done or not begun. Whoever calls :meth:`acquire` or :meth:`try_acquire` calls
    :meth:`release` with the same ticket afterwards, however the call ended.
    """

    def __init__(self) -> None:
        self._queue: deque[Ticket] = deque()

    def acquire(self, ticket: Ticket) -> None:
        """Wait until the ticket is the first in the queue, which is to hold the lock."""
        self._queue.append(ticket)
        while self._queue[0] is not ticket:
            ticket.gate.get()

    def try_acquire(self, ticket: Ticket) -> bool:
        """Take the lock if nobody holds it or waits for it; never waits. Safe in a finaliser."""
        if self._queue:
            return False
        self._queue.append(ticket)
        if self._queue[0] is ticket:
            return True
        self.release(ticket)
        return False

    def holds(self, ticket: Ticket) -> bool:
        """Whether the ticket has the lock."""
        try:
            return self._queue[0] is ticket
        except IndexError:
            return False

    def release(self, ticket: Ticket) -> None:
        """Leave the queue, wherever in it the ticket stands, and wake the first. Twice does no harm."""
        with suppress(ValueError):
            self._queue.remove(ticket)
        try:
            first = self._queue[0]
        except IndexError:
            return
        first.gate.put(None)
