"""What loading a checkpoint costs in anonymous memory, measured in a process of its own."""

import json
from pathlib import Path

import pytest

from ..forked import run

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc")

#: glibc raises the size from which it maps memory whenever such a piece is freed, by whatever was imported before, and
#: then keeps holes between matrices. With a fixed size what is measured is what is held.
PLAIN = """
import ctypes, sys
if sys.platform == "linux":
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    mallopt and mallopt(-3, 1 << 17)  # M_MMAP_THRESHOLD
"""
SCRIPT = """
import json, sys, threading, time

def anonymous():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("RssAnon")).split()[1]) * 1024

load(sys.argv[1])
before, peak, going = anonymous(), [0], [True]

def watch():
    while going[0]:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.0005)

thread = threading.Thread(target=watch, daemon=True)
thread.start()
model = load(sys.argv[2])
going[0] = False
thread.join()
size = sum(weight.nbytes for weight in model.parameters())
print(json.dumps({"peak": peak[0] - before, "kept": anonymous() - before, "size": size}))
"""


def loading_memory(load: str, small: Path, large: Path, *, fixed: bool = True) -> dict[str, int]:
    """Bytes: the peak while `large` is loaded, what is kept afterwards, and the size of its weights.

    :param load: source of a function `load(position)` that returns a torch module.
    :param small: loaded first, for all that is paid once.
    :param fixed: without glibc's holes, see :data:`PLAIN`.
    """
    done = run((PLAIN if fixed else "") + load + SCRIPT, str(small), str(large))
    assert done.code == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found
