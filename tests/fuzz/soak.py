"""Many callers of one model at random: threads, tasks, early leavers, interrupts, bad options, as long as is wanted.

Every answer that is finished equals the one alone; whoever gets none gets an error of ours; nothing is left behind.
"""

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from dllm_plugins import DllmError
from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.errors import PassError
from dllm_plugins.sharing import SharedModel

from ..modes.tiny_models import random_model

MODES = ("ar", "speculative", "diffusion", "llada", "dream", "mdlm", "sdar", "fast_dllm_v2", "rnd1", "wedlm", "remdm")
#: Options that no mode takes, or that no model can honour.
BAD: tuple[dict[str, Any], ...] = (
    {"mode": "llada", "preset_options": {"suppress_tokens": [99]}},
    {"mode": "ar", "block_length": 4},
    {"mode": "nonsense"},
)


@dataclass
class Counts:
    """What happened to the requests."""

    right: int = 0
    failed: int = 0
    left: int = 0
    refused: int = 0
    interrupted: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Left:
    """What a process holds: resident bytes, open descriptors, threads, rows, claims, kept positions."""

    memory: int
    descriptors: int
    threads: int
    rows: int
    claims: int
    kept: int


class Soak:
    """One model, its callers and what becomes of them."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.model = random_model(*MODES)
        self.shared = SharedModel(self.model)
        self.counts = Counts()
        self._known = {name: self.model.engine().generate([made])[0].tokens for name, made in self._requests().items()}

    @staticmethod
    def _requests() -> dict[str, Request]:
        return {
            f"{mode} {number}": Request(
                [3 + number] * (2 + number),
                SamplingConfig(mode=mode, max_new_tokens=4 + number, temperature=0.7 * (number % 2), seed=number),
                stop_ids=frozenset(),
            )
            for mode in MODES
            for number in range(3)
        }

    def run(self, rounds: int, seconds: float = 0) -> None:
        """So many rounds of every kind, and more until the time is up."""
        end = time.monotonic() + seconds
        while rounds > 0 or time.monotonic() < end:
            for way in (self._alone, self._threads, self._tasks):
                way()
            rounds -= 1

    def left(self) -> Left:
        """What is held between rounds."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        rows: Any = self.model.denoiser
        return Left(
            pages * os.sysconf("SC_PAGE_SIZE"),
            len([*Path("/proc/self/fd").iterdir()]),
            threading.active_count(),
            rows.open_rows + len(self.shared._engine.active),
            len(self.shared._claims) + len(self.shared._lock._queue),
            self.shared.prefixes.held,
        )

    def _one(self, random: Random) -> None:
        name, request = random.choice([*self._requests().items()])
        if random.random() < 0.1:
            request = Request(request.tokens, SamplingConfig(**random.choice(BAD)))
        leaves = random.randrange(1, 9) if random.random() < 0.3 else -1
        with contextlib.closing(self.shared.stream(request)) as stream:
            try:
                for number, event in enumerate(stream):
                    if number == leaves:
                        self.counts.left += 1
                        return
                    if isinstance(event, Finish):
                        self._compare(name, event.tokens)
            except PassError:
                self.counts.failed += 1
            except DllmError:
                self.counts.refused += 1

    def _compare(self, name: str, tokens: tuple[int, ...]) -> None:
        if tokens == self._known[name]:
            self.counts.right += 1
        else:
            self.counts.wrong.append(f"{name}: {tokens} for {self._known[name]}")

    def _alone(self) -> None:
        """The main thread, beside others, with interrupts at random instants."""
        threads = self._start(2)
        for _ in range(4):
            self.counts.interrupted += _interrupted(self.random, partial(self._one, self.random))
        self._join(threads)

    def _threads(self) -> None:
        self._join(self._start(6))

    def _start(self, count: int) -> list[threading.Thread]:
        threads = [
            threading.Thread(target=self._one, args=(Random(self.random.random()),), daemon=True) for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        return threads

    @staticmethod
    def _join(threads: list[threading.Thread]) -> None:
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive(), "a caller waits for ever"

    def _tasks(self) -> None:
        asyncio.run(asyncio.wait_for(self._all_tasks(), 240))

    async def _all_tasks(self) -> None:
        tasks = [asyncio.create_task(self._task(*self.random.choice([*self._requests().items()]))) for _ in range(5)]
        for task in tasks:
            if self.random.random() < 0.3:
                await asyncio.sleep(self.random.random() / 50)
                task.cancel()
        for found in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(found, asyncio.CancelledError):
                self.counts.left += 1
            elif found is not None:
                raise found

    async def _task(self, name: str, request: Request) -> None:
        try:
            async with contextlib.aclosing(self.shared.astream(request)) as stream:
                async for event in stream:
                    if isinstance(event, Finish):
                        self._compare(name, event.tokens)
        except PassError:
            self.counts.failed += 1


def _interrupted(random: Random, call: Callable[[], None]) -> bool:
    """Whether a KeyboardInterrupt at some instant reached the call before its end."""

    def interrupt(*_: object) -> None:
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    armed = [True]
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0005 + random.random() ** 2 / 10)
            call()
        finally:
            # An interrupt that comes before this line is caught below; there is none behind it.
            armed.clear()
    except KeyboardInterrupt:
        return True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return False
