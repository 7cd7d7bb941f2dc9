"""A headless Chromium, driven over its debugging pipe: JSON messages, each ended by a zero byte."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: Seconds until a browser that says nothing is given up; long, as machines are busy.
PATIENCE = 120.0
_KEYS = {" ": ("Space", 32), "Tab": ("Tab", 9), "Enter": ("Enter", 13), "Escape": ("Escape", 27)}
_KEYS |= {"Home": ("Home", 36), "End": ("End", 35)}
_KEYS |= {f"Arrow{way}": (f"Arrow{way}", code) for way, code in (("Left", 37), ("Up", 38), ("Right", 39), ("Down", 40))}


def found() -> str | None:
    """The browser's path; `DLLM_BROWSER` names another than those on the PATH."""
    return os.environ.get("DLLM_BROWSER") or next((path for name in NAMES if (path := shutil.which(name))), None)


#: JavaScript that measures colours as the page shows them: `luminance(value(colour))` and `contrast(one, other)`.
COLOURS = """
const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
const luminance = (colour) => {
  context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
  const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map(
    (v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const probe = document.createElement('p'); document.body.append(probe);
const value = (colour) => { probe.style.color = colour; return getComputedStyle(probe).color; };
const contrast = (a, b) => {
  const [x, y] = [luminance(value(a)), luminance(value(b))].sort((p, q) => q - p);
  return (x + 0.05) / (y + 0.05);
};
"""


class Browser:
    """One page of a running browser."""

    def __init__(self, told: int, heard: int) -> None:
        self._told, self._heard = told, heard
        self._number, self._left = 0, b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol, and its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._told, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def _message(self) -> dict[str, Any]:
        """The next message; events are kept, too."""
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._heard], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser says nothing"
            more = os.read(self._heard, 1 << 16)
            assert more, "the browser has ended"
            self._left += more
        text, _, self._left = self._left.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a file and wait until it is there."""
        self.events.clear()
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=page.as_uri() + fragment)
        while self.evaluate("location.protocol + document.readyState") != "file:complete":
            time.sleep(0.02)

    def visit(self, address: str) -> None:
        """Load a page of a server and wait until it is there."""
        self.events.clear()
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        while self.evaluate("location.protocol + document.readyState") != "http:complete":
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until an expression holds."""
        until = time.monotonic() + PATIENCE
        while not self.evaluate(expression):
            assert time.monotonic() < until, f"never so: {expression}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Press a key and let it go, as a person does."""
        code, number = _KEYS[key]
        event: dict[str, Any] = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        if key == " ":
            event["text"] = " "
        self.call("Input.dispatchKeyEvent", type="keyDown", **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def prefer(self, scheme: str) -> None:
        """Light or dark."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """The size of the window in CSS pixels."""
        scale = 2 if mobile else 1
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile
        )

    def picture(self) -> bytes:
        """What is on the screen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextmanager
def running(program: str, folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in `folder`, ended with the block."""
    to_read, told = os.pipe()
    heard, to_write = os.pipe()
    # The protocol reads its commands from 3 and answers on 4.
    shell = f'exec 3<&{to_read} 4>&{to_write}; exec "$0" "$@"'
    arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    arguments += ["--remote-debugging-pipe", f"--user-data-dir={folder}", "--disable-background-networking"]
    process = subprocess.Popen(
        ["/bin/bash", "-c", shell, program, *arguments],
        pass_fds=(to_read, to_write),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(to_write)
    try:
        yield Browser(told, heard)
    finally:
        process.terminate()
        process.wait()
        os.close(told)
        os.close(heard)
