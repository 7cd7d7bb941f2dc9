"""Answers of /v1/chat/completions, whole and streamed."""

from collections.abc import Sequence
from typing import Any

from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.serving.chat import ChatRequest
from dllm_plugins.serving.older_answers import OlderAnswers
from dllm_plugins.serving.sending import sse
from dllm_plugins.serving.telling import Names
from dllm_plugins.serving.telling import Reading
from dllm_plugins.serving.telling import answer_text
from dllm_plugins.serving.telling import logprobs_of
from dllm_plugins.serving.telling import text_in
from dllm_plugins.serving.telling import usage_of
from dllm_plugins.serving.work import Work
from dllm_plugins.text.marks import FIELD as THOUGHT
from dllm_plugins.tools.pieces import CallPiece


class ChatAnswers(OlderAnswers):
    """Tells of the answers to one request.

    :param tokenizer: the model's own.
    """

    def __init__(self, asked: ChatRequest, work: Work, tokenizer: Any, names: Names | None = None) -> None:
        super().__init__(asked, work, tokenizer, names, kind="chatcmpl-", streamed="chat.completion.chunk")
        self._readings = [Reading(work) for _ in work.requests]

    def whole(self, finishes: Sequence[Finish]) -> dict[str, Any]:
        """All answers at once."""
        choices = [self._choice(place, finish) for place, finish in enumerate(finishes)]
        told = {"object": "chat.completion", "choices": choices, "usage": usage_of(finishes, self._work.each)}
        return self._same | told | self._figures(finishes)

    def _choice(self, place: int, finish: Finish) -> dict[str, Any]:
        told = self._readings[place].push(answer_text(finish), last=True)
        text, calls = text_in(told), self._calls(told)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if finish.reasoning:
            message[THOUGHT] = finish.reasoning
        if calls:
            message |= {"content": text or None, "tool_calls": calls}
        said = logprobs_of(finish, self._tokenizer) if self._work.logprobs else None
        return {"index": place, "message": message, "logprobs": said, "finish_reason": self._reason(place, finish)}

    def _calls(self, told: Sequence[str | CallPiece]) -> list[dict[str, Any]]:
        """Pieces put together."""
        found = list[dict[str, Any]]()
        for piece in told:
            if isinstance(piece, CallPiece):
                if piece.name:
                    found.append(self._begun(piece))
                found[-1]["function"]["arguments"] += piece.arguments
        return found

    def _begun(self, piece: CallPiece) -> dict[str, Any]:
        """The beginning of a call, which has its name and an id."""
        return {
            "id": self._names.new("call_"),
            "type": "function",
            "function": {"name": piece.name, "arguments": ""},
        }

    def _reason(self, place: int, finish: Finish) -> str:
        reading = self._readings[place]
        return "length" if reading.cut(finish) else "tool_calls" if reading.called else "stop"

    def opening(self) -> list[str]:
        """What a stream begins with: who speaks."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [self._chunk(place, delta) for place in range(len(self._work.requests))]

    def more(self, place: int, event: Event) -> list[str]:
        """What an event adds to a stream."""
        draft = self._drafts.take(place, event)
        if isinstance(event, Draft):
            return [sse(self._same | {"choices": [], "dllm": {"draft": draft}}, "draft")]
        last = isinstance(event, Finish)
        # A Finish tells the whole answer once more.
        thought, said = ("", "") if last else (event.reasoning, answer_text(event))
        told = self._readings[place].push(said, last)
        logprobs = logprobs_of(event, self._tokenizer) if self._work.logprobs and last == self._at_the_end else None
        found = [self._chunk(place, {THOUGHT: thought})] if thought else []
        if (text := text_in(told)) or logprobs:
            found.append(self._chunk(place, {"content": text}, logprobs))
        for piece in told:
            found += self._of_call(place, piece) if isinstance(piece, CallPiece) else []
        if isinstance(event, Finish):
            found.append(self._chunk(place, {}, reason=self._reason(place, event)))
        return found

    def _of_call(self, place: int, piece: CallPiece) -> list[str]:
        """Chunks of a call: its beginning is one of its own, as clients expect it."""
        deltas = [self._begun(piece)] if piece.name else []
        if piece.arguments:
            deltas.append({"function": {"arguments": piece.arguments}})
        return [self._chunk(place, {"tool_calls": [{"index": piece.number, **delta}]}) for delta in deltas]

    def _chunk(
        self, place: int, delta: dict[str, Any], said: dict[str, Any] | None = None, reason: str | None = None
    ) -> str:
        choice = {"index": place, "delta": delta, "logprobs": said, "finish_reason": reason}
        return sse(self._same | {"choices": [choice]})
