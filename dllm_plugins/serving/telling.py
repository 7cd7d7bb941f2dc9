"""What the shapes of all answers share: texts and calls of events, reasons, usage, drafts, server-sent events."""

import json
import time
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from uuid import uuid4

from dllm_plugins.events import Commit
from dllm_plugins.events import Finish
from dllm_plugins.events import TokenLogprob
from dllm_plugins.serving.work import Work
from dllm_plugins.text.said import openai_shape
from dllm_plugins.tools.pieces import CallPiece
from dllm_plugins.tools.pieces import CallPieces
from dllm_plugins.tools.reading import CallReader

#: What stands for minus infinity, as elsewhere in this interface.
_LEAST = -9999.0


def new_id(kind: str) -> str:
    """A name that nothing else has."""
    return f"{kind}{uuid4().hex}"


@dataclass(frozen=True, slots=True)
class Names:
    """What an answer and its parts are called, and when it was made.

    :param new: makes a name of a kind.
    :param created: seconds since 1970.
    """

    new: Callable[[str], str] = new_id
    created: int = field(default_factory=lambda: int(time.time()))


def answer_text(event: Commit | Finish) -> str:
    """What an event says of the answer; of a template that is what stands in its gaps."""
    gaps = [gap if isinstance(gap, str) else gap.text for gap in event.gaps]
    return "".join(gaps) if gaps else event.text


class Reading:
    """What one answer says, as it comes: text, and pieces of calls.

    :param called: whether there is a whole call.
    """

    def __init__(self, work: Work) -> None:
        names = [tool.name for tool in work.tools]
        self._reader = None if work.form is None else CallReader(work.form, names)
        self._pieces = CallPieces()
        self._json = work.json
        self._said = ""
        self._last: str | CallPiece = ""
        self.called = False

    def push(self, text: str, last: bool = False) -> list[str | CallPiece]:
        """What is sure now, in its order."""
        self._said += text if self._json else ""
        if self._reader is None:
            return [text] if text else []
        told = self._pieces.told(self._reader.push(text) + (self._reader.end() if last else []))
        self.called = self.called or any(isinstance(part, CallPiece) and part.whole for part in told)
        self._last = told[-1] if told else self._last
        return told

    def cut(self, finish: Finish) -> bool:
        """Whether there was no room for the rest of an answer; none is missing of one that ends with what closes it."""
        closed = isinstance(self._last, CallPiece) and self._last.whole
        return cut(finish) and not closed and not (self._json and _is_closed(self._said))


def cut(finish: Finish) -> bool:
    """Whether there was no room for the rest of the answer."""
    return finish.reason in ("length", "context")


def _is_closed(text: str) -> bool:
    """Whether a text is JSON that nothing can follow."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return text.rstrip()[-1:] in ("}", "]", '"')


def text_in(told: Sequence[str | CallPiece]) -> str:
    """What stands outside of calls."""
    return "".join(part for part in told if isinstance(part, str))


def usage_of(finishes: Sequence[Finish], each: int) -> dict[str, Any]:
    """Token counts as the older interfaces name them.

    :param each: answers to one prompt, which counts once.
    """
    first = finishes[::each]
    prompt = sum(finish.usage.prompt_tokens for finish in first)
    answers = sum(finish.usage.useful_tokens for finish in finishes)
    found: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": answers,
        "total_tokens": prompt + answers,
        "prompt_tokens_details": {"cached_tokens": sum(finish.usage.cached_tokens for finish in first)},
    }
    thoughts = [thought for finish in finishes if (thought := finish.usage.reasoning_tokens) is not None]
    return found | ({"completion_tokens_details": {"reasoning_tokens": sum(thoughts)}} if thoughts else {})


def statistics_of(finishes: Sequence[Finish]) -> dict[str, Any]:
    """The engine's figures of each answer, for who asked with options of ours."""
    return {"statistics": [finish.usage.as_dict() | {"finish_reason": finish.reason} for finish in finishes]}


def logprobs_of(event: Commit | Finish, tokenizer: Any) -> dict[str, Any] | None:
    """Log-probabilities of an event's tokens; the token that ends an answer is none of them."""
    if not event.logprobs:
        return None
    said = [_bounded(one) for one in event.logprobs[: len(event.tokens)]]
    return openai_shape(said, tokenizer) | {"refusal": None}


def _bounded(said: TokenLogprob) -> TokenLogprob:
    """JSON has no infinity."""
    own = None if said.logprob is None else max(said.logprob, _LEAST)
    return TokenLogprob(said.token, own, tuple((token, max(logprob, _LEAST)) for token, logprob in said.top))
