"""The lock of shared models: order, finalisers, interrupts."""

import threading
import time
from collections.abc import Callable

import pytest

from dllm_plugins.fair import FairLock


def until(condition: Callable[[], bool]) -> None:
    """Wait, at most ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_first_come_first_served() -> None:
    """Waiters get it in their order, and the one who let go waits behind them."""
    lock, order = FairLock(), list[int]()
    lock.acquire()

    def work(number: int) -> None:
        with lock:
            order.append(number)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        until(lambda number=number: len(lock._gates) == number + 1)  # type: ignore[misc]
    assert not lock.try_acquire()
    lock.release()
    with lock:
        order.append(5)
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4, 5]
    assert lock.try_acquire()
    assert not lock.try_acquire()
    lock.release()


def test_a_finaliser_does_not_wait() -> None:
    """Not even when it runs inside the lock's own methods."""
    lock = FairLock()
    with lock._inner:
        assert not lock.try_acquire()
    assert lock.try_acquire()


@pytest.mark.parametrize("handed_over", [False, True])
def test_an_interrupted_waiter_is_forgotten(handed_over: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before or just after the lock was handed to it, the next one gets it."""
    lock = FairLock()
    lock.acquire()

    class Gate:
        """A gate whose wait is interrupted."""

        def __init__(self) -> None:
            self.taken = False

        def acquire(self) -> None:
            if self.taken:
                if handed_over:
                    lock.release()
                raise KeyboardInterrupt
            self.taken = True

        def release(self) -> None:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(threading, "Lock", Gate)
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
    if not handed_over:
        lock.release()
    assert lock.try_acquire()


def test_nobody_is_inside_together() -> None:
    """Many threads, one counter."""
    lock, inside, most, total = FairLock(), 0, 0, 0

    def work() -> None:
        nonlocal inside, most, total
        for _ in range(200):
            with lock:
                inside += 1
                most = max(most, inside)
                total += 1
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (most, total) == (1, 1600)
