"""Drafts of a request's answers as JSON."""

from itertools import zip_longest
from typing import Any

from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.traces.frames import Cell
from dllm_plugins.traces.pieces import TokenTexts
from dllm_plugins.traces.run import Run


class Drafts:
    """Tells of drafts; it is given every event, as what a token reads depends on those before it.

    :param tokenizer: the model's own.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._pieces = TokenTexts(tokenizer)
        self._before: dict[int, int] = {}
        self._done: dict[int, int] = {}

    def take(self, place: int, event: Event) -> dict[str, Any] | None:
        """The draft, if the event is one: what stands behind the committed text, token by token."""
        if isinstance(event, Commit) and event.tokens:
            self._before[place] = event.tokens[-1]
            self._done[place] = self._done.get(place, 0) + len(event.tokens)
        if not isinstance(event, Draft):
            return None
        run = Run(self._pieces, self._before.get(place))
        run.note(0, event.tokens, event.confidences, event.step)
        cells = run.cells(tuple(zip_longest(event.guesses or event.tokens, event.confidences)))
        found = {
            "index": place,
            "pass": event.step,
            "done": self._done.get(place, 0),
            "committed": event.committed,
            "text": event.text,
            "tokens": [_told(cell) for cell in cells],
        }
        return found | ({"reasoning": event.reasoning} if event.reasoning else {})


def _told(cell: Cell) -> dict[str, Any]:
    sure = None if cell.confidence is None else round(cell.confidence, 4)
    found = {"text": cell.text, "state": cell.state, "confidence": sure}
    return found | ({"special": True} if cell.special else {})
