"""Clients that stream chat completions of a server on this machine, some number of them at once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

#: A request is given up after so many seconds without a byte.
PATIENCE = 600.0


@dataclass(frozen=True, slots=True)
class Told:
    """What one stream said.

    :param first: seconds to the first text; None if there was none.
    :param seconds: to the end.
    :param error: what the server, or the connection, said instead of ending well; "" if nothing.
    :param left: the client left before the end.
    """

    number: int
    text: str
    first: float | None
    seconds: float
    error: str = ""
    left: bool = False


@dataclass(frozen=True, slots=True)
class Crowd:
    """All streams of some clients, and how long they took together."""

    told: tuple[Told, ...]
    seconds: float


def chat(model: str, prompt: str, tokens: int, **more: Any) -> dict[str, Any]:
    """The body of a greedy request."""
    messages = [{"role": "user", "content": prompt}]
    return {
        "model": model,
        "messages": messages,
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
        **more,
    }


async def streamed(
    client: httpx.AsyncClient, number: int, body: Mapping[str, Any], leave: Callable[[str], bool] = lambda _text: False
) -> Told:
    """Ask, and read to the end.

    :param leave: told the text so far after each piece; true to leave.
    """
    began, first, text, error = time.perf_counter(), None, "", ""
    try:
        async with client.stream("POST", "/chat/completions", json=dict(body)) as answer:
            if answer.status_code != 200:
                error = f"{answer.status_code}: {(await answer.aread()).decode(errors='replace')[:200]}"
            else:
                async for piece in pieces(answer):
                    error = error or piece.error
                    text += piece.text
                    if piece.text and first is None:
                        first = time.perf_counter() - began
                    if leave(text):
                        return Told(number, text, first, time.perf_counter() - began, left=True)
    except httpx.HTTPError as failure:
        error = f"{type(failure).__name__}: {failure}"
    return Told(number, text, first, time.perf_counter() - began, error)


@dataclass(frozen=True, slots=True)
class Piece:
    """Of a stream: text, or an error."""

    text: str = ""
    error: str = ""


async def pieces(answer: httpx.Response) -> AsyncIterator[Piece]:
    """What the server-sent events say; an end that is not told, by its reason or by a last event, is an error."""
    has_ended = False
    async for line in answer.aiter_lines():
        name, _, data = line.partition(":")
        if name != "data":
            continue
        if data.strip() == "[DONE]":
            return
        chunk = json.loads(data)
        if "error" in chunk:
            yield Piece(error=str(chunk["error"]))
        for choice in chunk.get("choices", ()):
            has_ended = has_ended or choice.get("finish_reason") is not None
            yield Piece(choice["delta"].get("content") or "")
    if not has_ended:
        yield Piece(error="the stream ended without saying so")


async def _each(address: str, bodies: Iterable[Mapping[str, Any]], clients: int) -> list[Told]:
    waiting, found = iter(enumerate(bodies)), list[Told]()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)

    async with httpx.AsyncClient(base_url=address, timeout=PATIENCE, limits=limits) as client:

        async def one() -> None:
            for number, body in waiting:
                found.append(await streamed(client, number, body))

        await asyncio.gather(*(one() for _ in range(clients)))
    return sorted(found, key=lambda told: told.number)


def crowd(address: str, bodies: Sequence[Mapping[str, Any]], clients: int) -> Crowd:
    """Every client asks one request after another until all are answered; answers in the order of `bodies`."""
    began = time.perf_counter()
    told = asyncio.run(_each(address, bodies, clients))
    return Crowd(tuple(told), time.perf_counter() - began)
