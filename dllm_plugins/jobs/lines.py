"""Lines of the input: what each row asks for, in OpenAI's batch format or as a plain prompt."""

import json
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import BinaryIO

from dllm_plugins.messages import shown

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
RESPONSES = "/v1/responses"
#: What a line of OpenAI's batch format holds.
_ENVELOPE = frozenset(("custom_id", "method", "url", "body"))
_FORMATS = (
    'a line is an object with "custom_id", "method", "url" and "body", or a plain prompt: a JSON string, '
    '{"prompt": "..."} or {"messages": [...]}'
)


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the input.

    :param place: among the rows, from 0; blank lines are no rows.
    :param number: of its line in the file, from 1.
    :param offset: where that line begins, in bytes.
    :param first: the first row of the same `custom_id`, if that is another one.
    """

    place: int
    number: int
    offset: int
    text: bytes
    first: int | None = None


@dataclass(frozen=True, slots=True)
class AskedRow:
    """What a row asks for.

    :param url: the endpoint; None for a plain prompt, a chat where the model has a chat template, else a text.
    """

    custom_id: str | None
    url: str | None
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a row cannot be answered."""

    custom_id: str | None
    message: str
    code: str | None = None


def lines_of(file: BinaryIO, place: int = 0, number: int = 1, offset: int = 0) -> Iterator[Line]:
    """The rows from here on.

    :param place: of the first.
    :param number: of the line that the file stands at, and `offset` where that is.
    """
    for text in file:
        # A byte order mark may begin the file.
        bare = (text.removeprefix(b"\xef\xbb\xbf") if number == 1 else text).strip(b" \t\r\n")
        if bare:
            yield Line(place, number, offset, bare)
            place += 1
        number, offset = number + 1, offset + len(text)


def asked(line: Line, plain: bool) -> AskedRow | Refused:
    """What a row asks for, or why that cannot be read.

    :param plain: whether the line itself is the prompt.
    """
    try:
        text = line.text.decode()
        read = text if plain else json.loads(text)
    except (ValueError, RecursionError) as error:
        return Refused(None, f"line {line.number} is no JSON in UTF-8 ({error}); {_FORMATS}", "invalid_json_line")
    if isinstance(read, str):
        return AskedRow(f"row-{line.place + 1}", None, {"prompt": read})
    if not isinstance(read, dict):
        return Refused(None, f"line {line.number} is {shown(read)}; {_FORMATS}", "invalid_json_line")
    found = _envelope(read) if (_ENVELOPE - {"custom_id"}) & read.keys() else _plain(read, line)
    return found if line.first is None else _doubled(found.custom_id, line.first)


def _doubled(name: str | None, first: int) -> Refused:
    told = f"custom_id={shown(name)} is that of row {first + 1} already; give each row its own"
    return Refused(name, told, "duplicate_custom_id")


def _plain(found: dict[str, Any], line: Line) -> AskedRow | Refused:
    name = found.pop("custom_id", f"row-{line.place + 1}")
    if not isinstance(name, str):
        return Refused(None, f"custom_id={shown(name)}: give a text", "invalid_custom_id")
    if ("prompt" in found) == ("messages" in found):
        return Refused(name, f"line {line.number} has {shown(sorted(found))}; {_FORMATS}", "invalid_json_line")
    # With a text behind the gap it is no chat, nor with spans that are written anew.
    own = found.get("dllm")
    text = "suffix" in found or (isinstance(own, dict) and "spans" in own)
    url = CHAT if "messages" in found else TEXT if text else None
    return AskedRow(name, url, found)


def _envelope(found: dict[str, Any]) -> AskedRow | Refused:
    name, method, url = found.get("custom_id"), found.get("method", "POST"), found.get("url")
    if not isinstance(name, str) or not name:
        return Refused(None, f"custom_id={shown(name)}: give a text that names the row", "missing_custom_id")
    if unknown := sorted(found.keys() - _ENVELOPE):
        return Refused(name, f"unknown field {unknown[0]!r}; a line has {', '.join(sorted(_ENVELOPE))}")
    if method != "POST":
        return Refused(name, f"method={shown(method)}: it is always POST", "invalid_method")
    if url not in (CHAT, TEXT, RESPONSES):
        return Refused(name, f"url={shown(url)}: use {CHAT}, {TEXT} or {RESPONSES}", "invalid_url")
    body = found.get("body")
    if not isinstance(body, dict):
        return Refused(name, f"body={shown(body)}: give an object, as the endpoint {url} takes it")
    return AskedRow(name, url, body)
