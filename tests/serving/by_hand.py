"""A client that speaks ASGI itself: one that reads when it likes, and leaves when it likes."""

import asyncio
import json
from typing import Any

from fastapi import FastAPI


class Caller:
    """One request, and what has come of it.

    :param slow: what is sent waits until it is let in.
    """

    def __init__(
        self, app: FastAPI, body: dict[str, Any], path: str = "/v1/chat/completions", slow: bool = False
    ) -> None:
        self.status: int | None = None
        self.text = ""
        self.open = asyncio.Event()
        self.arrived = asyncio.Event()
        self._gone = asyncio.Event()
        self._body = json.dumps(body).encode()
        self._asked = False
        if not slow:
            self.open.set()
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/chat/completions",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": headers,
            "server": ("localhost", 80),
            "client": ("127.0.0.1", 1),
        }
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    def leave(self) -> None:
        """Hang up."""
        self._gone.set()

    async def _receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        await self.open.wait()
        self.text += message.get("body", b"").decode()
        self.arrived.set()
