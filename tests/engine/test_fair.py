"""The lock of shared models: order, finalisers, interrupts."""

import itertools
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from dllm_plugins import fair
from dllm_plugins.fair import FairLock
from dllm_plugins.fair import Ticket

from .injecting import Injector


def until(condition: Callable[[], bool]) -> None:
    """Wait, at most ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_first_come_first_served() -> None:
    """Waiters get it in their order, and the one who let go waits behind them."""
    lock, order, first = FairLock(), list[int](), Ticket()
    lock.acquire(first)

    def work(number: int) -> None:
        ticket = Ticket()
        lock.acquire(ticket)
        order.append(number)
        lock.release(ticket)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        until(lambda number=number: len(lock._queue) == number + 2)  # type: ignore[misc]
    assert not lock.try_acquire(Ticket())
    lock.release(first)
    work(5)
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4, 5]
    last = Ticket()
    assert lock.try_acquire(last)
    assert lock.holds(last)
    assert not lock.try_acquire(Ticket())
    lock.release(last)
    lock.release(last)
    assert not lock.holds(last)


def test_one_ticket_releases_only_its_own() -> None:
    """Leaving the queue while another one holds the lock does not take it away."""
    lock, holder, leaver = FairLock(), Ticket(), Ticket()
    lock.acquire(holder)
    lock._queue.append(leaver)
    lock.release(leaver)
    lock.release(Ticket())
    assert lock.holds(holder)
    assert len(lock._queue) == 1


def use(lock: FairLock) -> None:
    """Take the lock and give it back, as its contract says."""
    ticket = Ticket()
    try:
        try:
            lock.acquire(ticket)
        finally:
            lock.release(ticket)
    finally:
        lock.release(ticket)


@pytest.mark.parametrize("opcodes", [False, True])
def test_an_interrupt_at_any_step_leaves_the_lock_free(opcodes: bool) -> None:
    """Between any two lines, and any two instructions, of all its methods; the next one gets it."""
    for position in itertools.count(1):
        lock = FairLock()
        injector = Injector(position, fair, opcodes=opcodes)
        with injector, suppress(KeyboardInterrupt):
            use(lock)
        assert not lock._queue
        use(lock)
        if not injector.raised:
            break
    assert position > 10


@pytest.mark.parametrize("handed_over", [False, True])
def test_an_interrupted_waiter_is_forgotten(handed_over: bool) -> None:
    """Whether the lock was handed to it or not, the next one gets it."""
    lock, holder, waiter = FairLock(), Ticket(), Ticket()
    lock.acquire(holder)

    class Gate:
        """A gate whose wait is interrupted."""

        def get(self) -> None:
            if handed_over:
                lock.release(holder)
            raise KeyboardInterrupt

        def put(self, _: None) -> None:
            pass

    waiter.gate = Gate()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        lock.acquire(waiter)
    lock.release(waiter)
    lock.release(holder)
    assert lock.try_acquire(Ticket())


def test_nobody_is_inside_together() -> None:
    """Many threads, one counter."""
    lock, inside, most, total = FairLock(), 0, 0, 0

    def work() -> None:
        nonlocal inside, most, total
        for _ in range(200):
            ticket = Ticket()
            lock.acquire(ticket)
            inside += 1
            most = max(most, inside)
            total += 1
            inside -= 1
            lock.release(ticket)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (most, total) == (1, 1600)
