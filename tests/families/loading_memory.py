"""What loading a checkpoint costs in anonymous memory, measured in a process of its own."""

import json
from operator import itemgetter
from pathlib import Path

import pytest

from ..forked import run

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is read from /proc")

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


def loading_memory(load: str, small: Path, large: Path) -> dict[str, int]:
    """Bytes: the peak while `large` is loaded, what is kept afterwards, and the size of its weights.

    Of two processes the one with the lower peak: a second copy of the weights is there in both, what
    the allocator or a late import keeps is there in one.

    :param load: source of a function `load(position)` that returns a torch module.
    :param small: loaded first, for all that is paid once.
    """
    return min((_measured(load, small, large) for _ in range(2)), key=itemgetter("peak"))


def _measured(load: str, small: Path, large: Path) -> dict[str, int]:
    done = run(load + SCRIPT, str(small), str(large))
    assert done.code == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout)
    return found
