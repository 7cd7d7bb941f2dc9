"""Requests, and streams that are read."""

import json
from typing import Any

import httpx

CHAT = "/v1/chat/completions"


def body(question: str = "why?", **more: Any) -> dict[str, Any]:
    """A request for sixteen tokens."""
    return {"model": "tiny", "messages": [{"role": "user", "content": question}], "max_tokens": 16, **more}


async def asked(client: httpx.AsyncClient, question: str = "why?", **more: Any) -> Any:
    """The whole answer."""
    answer = await client.post(CHAT, json=body(question, **more))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(client: httpx.AsyncClient, path: str = CHAT, **given: Any) -> tuple[int, dict[str, Any]]:
    """Status and error of a request that is not answered."""
    answer = await client.post(path, **given)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error


def events(text: str) -> list[tuple[str, Any]]:
    """The server-sent events of a stream: name, data."""
    found = list[tuple[str, Any]]()
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        data = fields["data"]
        found.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


async def streamed(client: httpx.AsyncClient, question: str = "why?", **more: Any) -> list[tuple[str, Any]]:
    """All events of a stream."""
    answer = await client.post(CHAT, json=body(question, stream=True, **more))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return events(answer.text)


def text_of(found: list[tuple[str, Any]], index: int = 0) -> str:
    """The text of one choice of a stream."""
    choices = [choice for name, data in found if not name and data != "[DONE]" for choice in data["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices if choice["index"] == index)
