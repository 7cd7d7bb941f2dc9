"""Python's garbage collector while libraries are imported and models loaded.

Both make hundreds of thousands of objects, hardly one of which is garbage, and the collector looks at all of them
again and again: a tenth of the time until the first word. Nothing heavy is imported here.
"""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage in the block, nor in other threads meanwhile, unless it was switched off before."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def leave_at_once() -> None:
    """Have the collector look at nothing when the process ends: a second, of which nothing comes but free memory.

    Only for programs whose process is their own.
    """
    atexit.unregister(gc.freeze)
    atexit.register(gc.freeze)
