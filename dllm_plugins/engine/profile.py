"""Where the time of a request goes: seconds by part, measured only for those who ask (`stats`).

A part's seconds are its own: what a part inside it takes is not counted twice, so the parts
of a pass add up to the pass. Parts named `forward/...` and `rules/constraint` are the exception: they say what
`forward` is made of, where the denoiser can tell, and how much of `rules` a constraint takes.
"""

import time
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextlib import contextmanager
from contextlib import nullcontext
from typing import Any
from typing import Protocol
from typing import cast

import torch

from dllm_plugins.decoding.limits import Limits
from dllm_plugins.denoisers.base import FullDenoiser

FORWARD, HEAD, RULES, ENGINE, TEXT = "forward", "head", "rules", "engine", "text"
CONSTRAINT = f"{RULES}/constraint"
#: Every part, in the order in which tables show them; what it is, for people.
PARTS = {
    FORWARD: "the denoiser: hidden states, keys and values",
    HEAD: "from hidden states to logits, or straight to tokens",
    RULES: "draws, rules and samplers",
    ENGINE: "plans, bookkeeping, events",
    TEXT: "from tokens to text, stop strings",
}
#: The denoiser's calls and the part each belongs to.
_CALLS = {
    "forward": FORWARD,
    "freeze": FORWARD,
    "hold": FORWARD,
    "release": FORWARD,
    "logits": HEAD,
    "draft_logits": HEAD,
    "unmask": HEAD,
}


class Clock(Protocol):
    """Where the engine says what it is doing."""

    def part(self, name: str) -> AbstractContextManager[None]:
        """Time from here to the end of the block belongs to a part."""


class NoClock:
    """For passes nobody asks about."""

    _nothing = nullcontext()

    def part(self, _name: str) -> AbstractContextManager[None]:
        """Nothing is measured."""
        return self._nothing


OFF = NoClock()


class Stopwatch:
    """Times one pass; whatever belongs to no other part is the engine's."""

    def __init__(self, denoiser: FullDenoiser) -> None:
        self._timings = denoiser.timings
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._running = [ENGINE]
        # What passes that nobody timed have left behind is not this one's.
        self._timings()
        self._since = time.perf_counter()

    def _lap(self) -> None:
        now = time.perf_counter()
        self._seconds[self._running[-1]] += now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """See :class:`Clock`."""
        self._lap()
        self._running.append(name)
        try:
            yield
        finally:
            self._lap()
            self._running.pop()

    def stop(self) -> dict[str, float]:
        """Seconds by part so far; what the denoiser leaves unexplained of its forward is `forward/other`."""
        self._lap()
        parts = {name: seconds for name, seconds in self._timings().items() if name != HEAD}
        found = dict(self._seconds)
        if parts:
            parts["other"] = parts.get("other", 0.0) + max(0.0, found[FORWARD] - sum(parts.values()))
        return found | {f"{FORWARD}/{name}": seconds for name, seconds in parts.items()}


class _Timed:
    """A denoiser whose calls are timed."""

    def __init__(self, inner: FullDenoiser, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in _CALLS:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            with self._clock.part(_CALLS[name]):
                said = found(*args, **kwargs)
                # An accelerator works on after the call has returned.
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                return said

        return call


def timed(denoiser: FullDenoiser, clock: Clock) -> FullDenoiser:
    """The same denoiser; its calls stop the clock."""
    return cast(FullDenoiser, _Timed(denoiser, clock))


class _TimedLimits:
    """Limits whose decisions are timed."""

    def __init__(self, inner: Limits, total: dict[str, float]) -> None:
        self._inner = inner
        self._total = total

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        def call(*args: Any) -> Any:
            began = time.perf_counter()
            try:
                return found(*args)
            finally:
                add(self._total, {CONSTRAINT: time.perf_counter() - began})

        return call


def timed_limits(limits: Limits, total: dict[str, float]) -> Limits:
    """The same limits; what they take is added to a request's seconds."""
    return cast(Limits, _TimedLimits(limits, total))


def add(total: dict[str, float], more: Mapping[str, float]) -> None:
    """Add one pass's seconds to a request's."""
    for name, seconds in more.items():
        total[name] = total.get(name, 0.0) + seconds


def table(parts: Mapping[str, float], passes: int) -> list[str]:
    """Lines for people: seconds, milliseconds a pass and share of every part, and their sum.

    :param passes: how many passes the seconds are of.
    """
    whole = sum(seconds for name, seconds in parts.items() if "/" not in name)
    order = [name for part in PARTS for name in parts if name == part or name.startswith(f"{part}/")]
    lines = [f"{'part':20} {'seconds':>9} {'ms/pass':>9} {'share':>7}"]
    for name, seconds in [*((name, parts[name]) for name in order), ("all", whole)]:
        shown = f"  {name.partition('/')[2]}" if "/" in name else name
        each, share = 1000 * seconds / max(passes, 1), 100 * seconds / whole if whole else 0.0
        lines.append(f"{shown:20} {seconds:9.3f} {each:9.3f} {share:6.1f}%")
    return lines
