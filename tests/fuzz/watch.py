"""Attempts with a seed, a bounded time, a bounded memory and a watchdog, in a process of their own.

An attempt is known by its number: the same seed and number make the same damage again.
DLLM_FUZZ_SEED and DLLM_FUZZ_FIRST override how and where it begins. It makes a fixed number of attempts, the same on
every machine; with DLLM_FUZZ_SECONDS it goes on for as long instead.
"""

import faulthandler
import os
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from dllm_plugins.errors import DllmError

SEED = int(os.environ.get("DLLM_FUZZ_SEED", "2026"))
SECONDS = float(os.environ.get("DLLM_FUZZ_SECONDS", "0"))
FIRST = int(os.environ.get("DLLM_FUZZ_FIRST", "0"))
#: Attempts of a run that no time is given to.
ATTEMPTS = 120
#: Far longer than any attempt takes on a busy machine: the process ends with a traceback then.
PATIENCE = 120
#: Beyond what the libraries themselves take: many times a tiny checkpoint.
MEMORY = 2 << 30
#: How many faults are shown before it ends.
_MOST = 20
#: Changes a folder and says how, then what reads it; both are given the attempt's own random numbers.
Attempt = Callable[[Random, Path], tuple[str, Callable[[], object]]]


def run(attempts: dict[str, Attempt]) -> int:
    """All kinds in turn, as often or as long as is asked for, each once at least; the number of faults.

    Right is an error of ours, or none. Any other exception is a fault, and so is an error of ours that was
    caused by a lack of memory; a hang and a crash end the process.
    """
    _limit()
    counts: Counter[str] = Counter()
    faults, number, end = 0, FIRST, time.monotonic() + SECONDS
    kinds = list(attempts)
    last = FIRST + (len(kinds) if SECONDS else ATTEMPTS)
    while faults < _MOST and (number < last or time.monotonic() < end):
        kind = kinds[number % len(kinds)]
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        with TemporaryDirectory(prefix="dllm-fuzz-") as folder:
            what, outcome = _one(attempts[kind], Random(f"{SEED} {number}"), Path(folder))
        faulthandler.cancel_dump_traceback_later()
        counts[f"{kind}: {outcome or 'a fault'}"] += 1
        if outcome is None:
            faults += 1
            print(f"DLLM_FUZZ_SEED={SEED} DLLM_FUZZ_FIRST={number}: {kind}: {what}", file=sys.stderr)
        number += 1
    for line, count in sorted(counts.items()):
        print(f"{line}: {count}")
    return faults


def _one(attempt: Attempt, random: Random, folder: Path) -> tuple[str, str | None]:
    """What was changed, and how it ended; None for a fault, which is shown."""
    what = "before anything was read"
    try:
        what, use = attempt(random, folder)
        use()
    except DllmError as error:
        if not _memory(error):
            return what, type(error).__name__
        traceback.print_exc()
    except BaseException as error:
        # What libraries in Rust raise is no Exception.
        traceback.print_exc()
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
    else:
        return what, "loaded"
    return what, None


def _memory(error: BaseException) -> bool:
    """Whether a lack of memory is behind it: what was claimed was allocated before it was checked."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or "allocate memory" in str(seen):
            return True
        seen = seen.__cause__
    return False


def _limit() -> None:
    """Bound the address space from here on; where the system does not say how large it is, nothing is bounded."""
    place = Path("/proc/self/statm")
    if place.exists():
        now = int(place.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
