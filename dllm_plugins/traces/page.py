"""A trace as one HTML page, which replays it without loading anything.

Texts of users and models are data of the page's script, which shows them as text: never as HTML. The page's
security policy allows its own script and style only, by their hashes.
"""

import json
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from dllm_plugins.traces.frames import Cell
from dllm_plugins.traces.frames import Trace

_STATES = ("open", "guess", "committed", "final", "fixed")
#: What could end the element that holds the data, or begin another.
_ESCAPED = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"}
_TITLES = {"system": "System", "user": "Question", "assistant": "Answer", "tool": "Tool"}


def page(trace: Trace) -> str:
    """The page, which is ASCII but for its own signs; write it in UTF-8."""
    style, script = _part("page.css"), _part("page.js")
    data = json.dumps(_data(trace), separators=(",", ":")).translate(_ESCAPED)
    policy = f"default-src 'none'; style-src '{source_of(style)}'; script-src '{source_of(script)}'; base-uri 'none'"
    parts = {"policy": policy, "style": style, "script": script, "trace": data}
    # One after another would look for names in what was put in before.
    pieces = _part("page.html").split("{")
    found = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}")
        found += [parts[name], rest]
    return "".join(found)


@cache
def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def source_of(text: str) -> str:
    """A script or a style as a content security policy names it."""
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def _data(trace: Trace) -> dict[str, Any]:
    """What the page's script reads: texts once each, and of every frame what differs from the one before."""
    texts: dict[str, int] = {}
    frames: list[Any] = []
    before: tuple[Cell, ...] = ()
    for frame in trace.frames:
        changes = [
            _written(place, cell, texts)
            for place, cell in enumerate(frame.cells)
            if place >= len(before) or before[place] != cell
        ]
        frames.append([len(frame.cells), changes])
        before = frame.cells
    return {"facts": _facts(trace), "texts": list(texts), "frames": frames}


def _written(place: int, cell: Cell, texts: dict[str, int]) -> list[int | None]:
    sure = None if cell.confidence is None else round(100 * cell.confidence)
    text = texts.setdefault(cell.text, len(texts))
    return [place, text, _STATES.index(cell.state), sure, cell.settled, int(cell.special)]


def _facts(trace: Trace) -> list[tuple[str, str]]:
    """What is said above the answer, each with its title."""
    said = [(_TITLES.get(message["role"], message["role"]), message["content"]) for message in trace.chat]
    figures = [] if trace.usage is None else [("Figures", trace.usage.summary())]
    return [("Model", trace.model), *said, *figures]
