"""Calls as clients are told of them: in pieces, each of a call with a number."""

from collections.abc import Iterable
from dataclasses import dataclass

from dllm_plugins.tools.calls import Began
from dllm_plugins.tools.calls import Call
from dllm_plugins.tools.calls import Malformed
from dllm_plugins.tools.calls import Piece
from dllm_plugins.tools.growing import GrowingObject
from dllm_plugins.tools.reading import Part


@dataclass(frozen=True, slots=True)
class CallPiece:
    """More of a call.

    :param number: of the call in its answer, counted from 0.
    :param name: of the tool, in the first piece; "" in all others.
    :param arguments: what its arguments go on with, as JSON.
    :param whole: True in the last piece of a call, False in that of what turned out to be none; None before that.
    """

    number: int
    name: str = ""
    arguments: str = ""
    whole: bool | None = None


class CallPieces:
    """Turns the parts of one answer into text and pieces of calls, in their order.

    What began like a call and is none ends in a bracket that does not fit, as many clients complete arguments that
    were cut, and would call the tool. What is no call from its beginning is text.
    """

    def __init__(self) -> None:
        self._count = 0
        self._growing: GrowingObject | None = None

    def told(self, parts: Iterable[Part]) -> list[str | CallPiece]:
        """What further parts tell."""
        return [told for part in parts if (told := self._told(part)) is not None]

    def _told(self, part: Part) -> str | CallPiece | None:
        if isinstance(part, str):
            return part
        if isinstance(part, Began):
            self._growing = GrowingObject()
            return CallPiece(self._count, part.name)
        growing = self._growing
        if growing is None:
            return self._at_once(part)
        if isinstance(part, Piece):
            more = growing.take(part.text)
            return CallPiece(self._count, arguments=more) if more else None
        whole = isinstance(part, Call)
        return self._ended(CallPiece(self._count, arguments="" if whole else growing.breaking(), whole=whole))

    def _at_once(self, part: Piece | Call | Malformed) -> str | CallPiece:
        """What was not told of before it was complete."""
        if isinstance(part, Call):
            return self._ended(CallPiece(self._count, part.name, part.written(), whole=True))
        return part.text

    def _ended(self, last: CallPiece) -> CallPiece:
        self._count, self._growing = self._count + 1, None
        return last
