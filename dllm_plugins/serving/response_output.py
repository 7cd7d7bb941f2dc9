"""What an answer of /v1/responses is made of: thoughts, messages and calls, and the events that tell of each."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import TypeAlias

from dllm_plugins.serving.telling import Names
from dllm_plugins.tools.pieces import CallPiece

#: Kind and data of an event.
Told: TypeAlias = tuple[str, dict[str, Any]]
_THOUGHT, _MESSAGE, _CALL = "reasoning", "message", "function_call"
#: What the names of items begin with, and what events call their texts.
_NAMES = {_THOUGHT: "rs_", _MESSAGE: "msg_", _CALL: "fc_"}
_TEXTS = {_THOUGHT: "reasoning_text", _MESSAGE: "output_text", _CALL: "function_call_arguments"}


@dataclass(slots=True)
class _Open:
    """The item that goes on.

    :param head: what it holds from its beginning.
    """

    head: dict[str, Any]
    text: str = ""

    @property
    def kind(self) -> str:
        return str(self.head["type"])


class Output:
    """The items of one answer, in their order.

    :param items: those that are complete.
    :param logprobs: of the message that goes on, or comes next.
    """

    def __init__(self, names: Names) -> None:
        self.items = list[dict[str, Any]]()
        self.logprobs = list[dict[str, Any]]()
        self._names = names
        self._open: _Open | None = None

    def think(self, text: str) -> list[Told]:
        """More of what is thought."""
        return self._more(_THOUGHT, text)

    def say(self, text: str) -> list[Told]:
        """More of what is said; an empty text begins a message all the same."""
        return self._more(_MESSAGE, text)

    def call(self, piece: CallPiece) -> list[Told]:
        """More of a call."""
        found = list[Told]()
        if piece.name:
            head = {"call_id": self._names.new("call_"), "name": piece.name}
            found += self.close() + self._begin(_CALL, head)
        found += self._more(_CALL, piece.arguments)
        return found if piece.whole is None else found + self.close(complete=piece.whole)

    def close(self, complete: bool = True) -> list[Told]:
        """The end of the item that goes on, if there is one."""
        if self._open is None:
            return []
        kind, text, place = self._open.kind, self._open.text, self._place()
        done = self._item(text, "completed" if complete else "incomplete")
        found = list[Told]()
        if kind == _CALL and complete:
            found.append((f"{_TEXTS[kind]}.done", {**place, "name": done["name"], "arguments": text}))
        if kind != _CALL:
            said = {"logprobs": self.logprobs} if kind == _MESSAGE else {}
            found.append((f"{_TEXTS[kind]}.done", {**place, "text": text, **said}))
            found.append(("content_part.done", {**place, "part": done["content"][0]}))
        found.append(("output_item.done", {"output_index": len(self.items), "item": done}))
        if kind == _MESSAGE:
            self.logprobs = []
        self.items.append(done)
        self._open = None
        return found

    def _more(self, kind: str, text: str) -> list[Told]:
        found = list[Told]()
        if self._open is None or self._open.kind != kind:
            found += self.close() + self._begin(kind, {})
        assert self._open is not None, "it has begun"
        self._open.text += text
        said: dict[str, Any] = {"logprobs": []} if kind == _MESSAGE else {}
        return [*found, (f"{_TEXTS[kind]}.delta", {**self._place(), "delta": text, **said})] if text else found

    def _begin(self, kind: str, head: Mapping[str, Any]) -> list[Told]:
        self._open = _Open({"id": self._names.new(_NAMES[kind]), "type": kind, **head})
        item = self._item("", "in_progress")
        if kind == _CALL:
            return [("output_item.added", {"output_index": len(self.items), "item": item})]
        begun = {"output_index": len(self.items), "item": item | {"content": []}}
        return [
            ("output_item.added", begun),
            ("content_part.added", {**self._place(), "part": _part(kind, "", [])}),
        ]

    def _item(self, text: str, status: str) -> dict[str, Any]:
        assert self._open is not None, "it has begun"
        kind, head = self._open.kind, self._open.head | {"status": status}
        if kind == _CALL:
            return head | {"arguments": text}
        more: dict[str, Any] = {"role": "assistant"} if kind == _MESSAGE else {"summary": []}
        return head | more | {"content": [_part(kind, text, self.logprobs)]}

    def _place(self) -> dict[str, Any]:
        assert self._open is not None, "it has begun"
        found: dict[str, Any] = {"item_id": self._open.head["id"], "output_index": len(self.items)}
        return found if self._open.kind == _CALL else found | {"content_index": 0}


def _part(kind: str, text: str, said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    part: dict[str, Any] = {"type": _TEXTS[kind], "text": text}
    return part | {"annotations": [], "logprobs": list(said)} if kind == _MESSAGE else part
