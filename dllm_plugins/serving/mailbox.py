"""What waits for one client: all of it, or never more than a text, a draft and an end for each of its answers.

Passes go on whether or not a client reads. What it has not read yet is merged: texts become one, and of
drafts the last one is kept.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from dataclasses import replace
from itertools import zip_longest
from typing import Protocol

from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.events import Failure
from dllm_plugins.events import Finish


@dataclass(slots=True)
class _Slot:
    """Of one answer, in the order in which it is read."""

    commit: Commit | None = None
    draft: Draft | None = None
    end: Finish | Failure | None = None

    def pop(self) -> Event | Failure | None:
        for name in ("commit", "draft", "end"):
            found: Event | Failure | None = getattr(self, name)
            if found is not None:
                setattr(self, name, None)
                return found
        return None


def merged(one: Commit | None, other: Commit) -> Commit:
    """Two Commits of a row as one."""
    if one is None:
        return other
    gaps = tuple(before + behind for before, behind in zip_longest(one.gaps, other.gaps, fillvalue=""))
    return replace(
        other,
        tokens=one.tokens + other.tokens,
        text=one.text + other.text,
        logprobs=one.logprobs + other.logprobs,
        gaps=gaps,
        reasoning=one.reasoning + other.reasoning,
    )


class Letters(Protocol):
    """What events are put into, and read from."""

    def put(self, place: int, event: Event | Failure) -> None:
        """Add an event."""

    async def get(self) -> tuple[int, Event | Failure]:
        """The next event and its place, once there is one."""


class Queue:
    """All events, in their order: for clients of this user, whose answers bound how many there are."""

    def __init__(self) -> None:
        self._queue = asyncio.Queue[tuple[int, Event | Failure]]()

    def put(self, place: int, event: Event | Failure) -> None:
        """Add an event."""
        self._queue.put_nowait((place, event))

    async def get(self) -> tuple[int, Event | Failure]:
        """The next event and its place, once there is one."""
        return await self._queue.get()


class Mailbox:
    """Events of a request's answers, by their place; of one event loop.

    :param count: how many answers there are.
    """

    def __init__(self, count: int) -> None:
        self._slots = [_Slot() for _ in range(count)]
        # Places of answers with something to read, each once.
        self._full = deque[int]()
        self._more = asyncio.Event()

    def put(self, place: int, event: Event | Failure) -> None:
        """Add an event; a draft that text has overtaken is dropped."""
        slot = self._slots[place]
        if isinstance(event, Commit):
            slot.commit, slot.draft = merged(slot.commit, event), None
        elif isinstance(event, Draft):
            slot.draft = event
        else:
            slot.draft, slot.end = None, event
        if place not in self._full:
            self._full.append(place)
        self._more.set()

    async def get(self) -> tuple[int, Event | Failure]:
        """The next event and its place, once there is one."""
        while True:
            while self._full:
                place = self._full[0]
                event = self._slots[place].pop()
                if event is not None:
                    self._full.rotate(-1)
                    return place, event
                self._full.popleft()
            self._more.clear()
            await self._more.wait()
