"""Answers of /v1/chat/completions, whole and streamed."""

from collections.abc import Sequence
from typing import Any

from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.serving.chat import ChatRequest
from dllm_plugins.serving.older_answers import OlderAnswers
from dllm_plugins.serving.telling import Names
from dllm_plugins.serving.telling import Reading
from dllm_plugins.serving.telling import answer_text
from dllm_plugins.serving.telling import cut
from dllm_plugins.serving.telling import logprobs_of
from dllm_plugins.serving.telling import sse
from dllm_plugins.serving.telling import usage_of
from dllm_plugins.serving.work import Work
from dllm_plugins.tools.calls import Call


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
        reading = self._readings[place]
        text, _ = reading.push(answer_text(finish), last=True)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if reading.calls:
            message["content"] = text or None
            message["tool_calls"] = [_call(call, self._names) for call in reading.calls]
        said = logprobs_of(finish, self._tokenizer) if self._work.logprobs else None
        return {"index": place, "message": message, "logprobs": said, "finish_reason": self._reason(place, finish)}

    def _reason(self, place: int, finish: Finish) -> str:
        return "length" if cut(finish) else "tool_calls" if self._readings[place].calls else "stop"

    def opening(self) -> list[str]:
        """What a stream begins with: who speaks."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [self._chunk(place, delta) for place in range(len(self._work.requests))]

    def more(self, place: int, event: Event) -> list[str]:
        """What an event adds to a stream."""
        draft = self._drafts.take(place, event)
        if isinstance(event, Draft):
            return [sse(self._same | {"choices": [], "dllm": {"draft": draft}}, "draft")]
        reading, last = self._readings[place], isinstance(event, Finish)
        known = len(reading.calls)
        # A Finish tells the whole text once more.
        text, calls = reading.push("" if last else answer_text(event), last)
        said = logprobs_of(event, self._tokenizer) if self._work.logprobs and last == self._at_the_end else None
        found = [self._chunk(place, {"content": text}, said)] if text or said else []
        for number, call in enumerate(calls, known):
            found.append(self._chunk(place, {"tool_calls": [{"index": number, **_call(call, self._names)}]}))
        if isinstance(event, Finish):
            found.append(self._chunk(place, {}, reason=self._reason(place, event)))
        return found

    def _chunk(
        self, place: int, delta: dict[str, Any], said: dict[str, Any] | None = None, reason: str | None = None
    ) -> str:
        choice = {"index": place, "delta": delta, "logprobs": said, "finish_reason": reason}
        return sse(self._same | {"choices": [choice]})


def _call(call: Call, names: Names) -> dict[str, Any]:
    """A call with a name of its own."""
    function = {"name": call.name, "arguments": call.written()}
    return {"id": names.new("call_"), "type": "function", "function": function}
