"""A lock that is handed on in the order of asking.

threading.Lock goes to whoever is awake, which is the thread that has just let go of it:
of several callers of one model, one would run all the passes and the others wait.
"""

import threading
from collections import deque


class FairLock:
    """Mutual exclusion, first come, first served; also a context manager. Not reentrant."""

    def __init__(self) -> None:
        self._inner = threading.Lock()
        self._held = False
        self._gates: deque[threading.Lock] = deque()

    def try_acquire(self) -> bool:
        """Take the lock if nobody holds it or waits for it; never waits.

        Safe in a finaliser, which may run in the middle of this class's other methods.
        """
        if not self._inner.acquire(blocking=False):
            return False
        try:
            taken = not self._held and not self._gates
            self._held = self._held or taken
            return taken
        finally:
            self._inner.release()

    def acquire(self) -> None:
        """Wait for the lock."""
        with self._inner:
            if not self._held and not self._gates:
                self._held = True
                return
            gate = threading.Lock()
            gate.acquire()
            self._gates.append(gate)
        try:
            gate.acquire()
        except BaseException:
            # Interrupted (Ctrl-C): nobody may hand the lock to somebody who has gone.
            with self._inner:
                waiting = gate in self._gates
                if waiting:
                    self._gates.remove(gate)
            if not waiting:
                self.release()
            raise

    def release(self) -> None:
        """Hand the lock to whoever has waited longest."""
        with self._inner:
            if self._gates:
                self._gates.popleft().release()
            else:
                self._held = False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
