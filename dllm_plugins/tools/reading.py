"""Answers read for calls, whole or as they arrive."""

import json
import re
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from typing import NoReturn
from typing import TypeAlias

from dllm_plugins.text.answer import longest_held
from dllm_plugins.tools.calls import Began
from dllm_plugins.tools.calls import Call
from dllm_plugins.tools.calls import Malformed
from dllm_plugins.tools.calls import Piece
from dllm_plugins.tools.format import CallFormat
from dllm_plugins.tools.growing import GrowingObject
from dllm_plugins.tools.tool import NAME

#: Text, calls and what is none, in the order in which they stand in the answer.
Part: TypeAlias = str | Began | Piece | Call | Malformed


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, sorted: what stands outside calls, without the white space beside them, and the calls."""

    text: str
    calls: tuple[Call, ...] = ()
    malformed: tuple[Malformed, ...] = ()


def read(text: str, form: CallFormat, names: Collection[str] | None) -> Reply:
    """A whole answer.

    :param names: of the tools there are; None to leave that to who carries calls out.
    """
    reader = CallReader(form, names)
    return reply_of((*reader.push(text), *reader.end()))


def reply_of(parts: Iterable[Part]) -> Reply:
    """All parts of an answer, sorted."""
    found = tuple(parts)
    return Reply(
        "".join(part for part in found if isinstance(part, str)),
        tuple(part for part in found if isinstance(part, Call)),
        tuple(part for part in found if isinstance(part, Malformed)),
    )


class CallReader:
    """Takes the text of an answer as it arrives, and gives what is sure of it.

    Of a call that names its tool first, the arguments come in pieces; that it is one is said when it is whole, as
    nobody knows how an object that has only begun will end. Text is held back while it may be the beginning of one.

    :param names: of the tools there are; None to leave that to who carries calls out.
    """

    def __init__(self, form: CallFormat, names: Collection[str] | None) -> None:
        self._form = form
        self._names = names
        self._held = self._space = ""
        self._last = self._beside = False
        self._step: Callable[[], list[Part] | None] = self._text if form.marker else self._beginning
        self._end = form.after.strip()
        # What separates objects that stand between the same two marks, as in a list.
        between = (form.between or "").strip()
        self._separator = "" if form.marker and form.marker in between else between
        name, arguments = (re.escape(key) for key in form.keys)
        self._head = re.compile(rf'\s*\{{\s*"{name}"\s*:\s*"({NAME})"\s*,\s*"{arguments}"\s*:\s*(?=\{{)')
        self._growing: GrowingObject | None = None
        self._name = ""

    def push(self, text: str) -> list[Part]:
        """What is sure now that more of the text is there."""
        self._held += text
        return self._advance()

    def end(self) -> list[Part]:
        """What is left when the answer has ended."""
        self._last = True
        return self._advance() + ([] if self._beside or not self._space else [self._space])

    def _advance(self) -> list[Part]:
        found: list[Part] = []
        # Each step takes something away from what is held, or says what comes next; None waits for more.
        while (parts := self._step()) is not None:
            found += parts
        return found

    def _text(self) -> list[Part] | None:
        """Outside of calls, up to the mark of one."""
        held, marker = self._held, self._form.marker
        place = held.find(marker) if marker else -1
        if place >= 0:
            self._held, self._step = held[place + len(marker) :], self._object
            return self._said(held[:place])
        sure = len(held) - (0 if self._last or not marker else longest_held(held, (marker,)))
        self._held = held[sure:]
        return self._said(held[:sure]) if sure else None

    def _beginning(self) -> list[Part] | None:
        """Without a mark an answer is made of calls if it begins with an object."""
        if not self._held.lstrip() and not self._last:
            return None
        self._step = self._object if self._held.lstrip().startswith("{") else self._text
        return []

    def _object(self) -> list[Part] | None:
        """Where an object should stand."""
        begin = len(self._held) - len(self._held.lstrip())
        try:
            value, end = _DECODER.raw_decode(self._held, begin)
        except (ValueError, RecursionError) as error:
            return self._broken(f"it is no JSON: {error}") if self._last else self._pieces(self._held) or None
        written, self._held, self._step = self._held[:end], self._held[end:], self._behind
        return self._pieces(written) + self._judged(value, written)

    def _pieces(self, held: str) -> list[Part]:
        """What is new of an object that may yet be a call."""
        head, found = self._head.match(held), list[Part]()
        if head is None or (self._names is not None and head[1] not in self._names):
            return found
        if self._growing is None:
            self._growing, self._name = GrowingObject(), head[1]
            found.append(Began(self._name))
        new = self._growing.take(held[head.end() + len(self._growing.text) :])
        return [*found, Piece(new)] if new else found

    def _behind(self) -> list[Part] | None:
        """Behind an object: what ends the call, or another object."""
        held = self._held.lstrip()
        for mark, step in ((self._end, self._text), (self._separator, self._object)):
            if mark and held.startswith(mark):
                self._held, self._step = held[len(mark) :], step
                return []
        waits = any(mark.startswith(held) for mark in (self._end, self._separator, "{"))
        if waits and not self._last:
            return None
        self._held, self._step = held, self._object if held.startswith("{") else self._text
        return []

    def _said(self, text: str) -> list[Part]:
        """Text is given without the white space that may turn out to stand beside a call."""
        text = self._space + (text.lstrip() if self._beside else text)
        shown = text.rstrip()
        self._space = text[len(shown) :]
        self._beside = self._beside and not shown
        return [shown] if shown else []

    def _judged(self, value: Any, written: str) -> list[Part]:
        name_key, arguments_key = self._form.keys
        named = isinstance(value, dict) and isinstance(value.get(name_key), str)
        if not self._form.marker and self._growing is None and not (named and arguments_key in value):
            # An object like any other, and so no answer of calls.
            self._step = self._text
            return self._said(written)
        self._space, self._beside = "", True
        growing, self._growing = self._growing, None
        whole = f"{self._form.marker}{written}{self._form.after}"
        if not named:
            return [Malformed(whole, None, f"it has no {name_key!r}")]
        name, arguments = value[name_key], _unquoted(value.get(arguments_key, {}))
        if self._names is not None and name not in self._names:
            known = ", ".join(sorted(self._names)) or "none"
            return [Malformed(whole, name, f"there is no tool {name!r}; the tools are: {known}")]
        if growing is not None and (name, arguments) != (self._name, json.loads(growing.text)):
            return [Malformed(whole, self._name, f"it has {name_key!r} or {arguments_key!r} twice")]
        if not isinstance(arguments, dict):
            return [Malformed(whole, name, f"its {arguments_key!r} are no object")]
        return [Call(name, arguments)]

    def _broken(self, error: str) -> list[Part]:
        """The answer has ended, and no object came of it."""
        place = self._held.find(self._end) if self._end else -1
        stop = len(self._held) if place < 0 else place + len(self._end)
        text, self._held, self._step = self._held[:stop], self._held[stop:], self._text
        if not self._form.marker and self._growing is None:
            return self._said(text)
        name, self._growing = None if self._growing is None else self._name, None
        self._space, self._beside = "", True
        return [Malformed(f"{self._form.marker}{text}", name, error)]


def _unquoted(arguments: Any) -> Any:
    """Some models write the object as a text."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return arguments


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
