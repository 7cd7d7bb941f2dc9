"""Answers of /v1/responses, whole and streamed."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.serving.drafts import Drafts
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.response_output import Output
from dllm_plugins.serving.response_output import Told
from dllm_plugins.serving.responses import ResponseRequest
from dllm_plugins.serving.sending import sse
from dllm_plugins.serving.telling import Names
from dllm_plugins.serving.telling import Reading
from dllm_plugins.serving.telling import answer_text
from dllm_plugins.serving.telling import logprobs_of
from dllm_plugins.serving.telling import statistics_of
from dllm_plugins.serving.telling import usage_of
from dllm_plugins.serving.work import Work
from dllm_plugins.tools.pieces import CallPiece


class ResponseAnswers:
    """Tells of the answer to one request: what is thought, a message, calls.

    :param tokenizer: the model's own.
    """

    def __init__(self, asked: ResponseRequest, work: Work, tokenizer: Any, names: Names | None = None) -> None:
        self._asked = asked
        self._work = work
        self._tokenizer = tokenizer
        self._drafts = Drafts(tokenizer)
        self._names = names or Names()
        self._reading = Reading(work)
        self._output = Output(self._names)
        self._at_the_end = bool(asked.dllm and asked.dllm.get("logprobs_at") == "final")
        self._number = -1
        self._id, self._created = self._names.new("resp_"), self._names.created

    def whole(self, finishes: Sequence[Finish]) -> dict[str, Any]:
        """The answer at once."""
        [finish] = finishes
        self._note_logprobs(finish)
        self._take(finish.reasoning, answer_text(finish), finish)
        return self._response(finish)

    def opening(self) -> list[str]:
        """A stream begins with the answer that is to come."""
        shown = self._response(None)
        return [self._event("created", {"response": shown}), self._event("in_progress", {"response": shown})]

    def more(self, place: int, event: Event) -> list[str]:
        """What an event adds to a stream."""
        draft = self._drafts.take(place, event)
        if isinstance(event, Draft):
            told = {"type": "dllm.draft", "sequence_number": self._next(), "dllm": {"draft": draft}}
            return [sse(told, "draft")]
        if isinstance(event, Finish) == self._at_the_end:
            self._note_logprobs(event)
        # A Finish tells the whole answer once more.
        if isinstance(event, Finish):
            found = self._take("", "", event)
        else:
            found = self._take(event.reasoning, answer_text(event))
        return [self._event(kind, data) for kind, data in found]

    def _take(self, thought: str, said: str, end: Finish | None = None) -> list[Told]:
        """Put what is new into the items of the answer.

        :param end: of the answer, if it has ended.
        """
        output = self._output
        found = output.think(thought) if thought else []
        for part in self._reading.push(said, last=end is not None):
            found += output.call(part) if isinstance(part, CallPiece) else output.say(part)
        if end is None:
            return found
        whole = not self._reading.cut(end)
        found += output.close(complete=whole)
        # An answer of nothing is a message all the same.
        return found if output.items else output.say("") + output.close(complete=whole)

    def closing(self, finishes: Sequence[Finish]) -> list[str]:
        """A stream ends with the whole answer."""
        shown = self._response(finishes[0])
        return [self._event(shown["status"], {"response": shown})]

    def failed(self, error: ApiError) -> list[str]:
        """What a stream that fails ends with."""
        told = {"code": error.code or "server_error", "message": str(error)}
        return [self._event("failed", {"response": self._response(None) | {"status": "failed", "error": told}})]

    def _event(self, kind: str, data: Mapping[str, Any]) -> str:
        named = f"response.{kind}"
        return sse({"type": named, "sequence_number": self._next(), **data}, named)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _note_logprobs(self, event: Commit | Finish) -> None:
        said = logprobs_of(event, self._tokenizer) if self._work.logprobs else None
        self._output.logprobs += [] if said is None else said["content"]

    def _response(self, finish: Finish | None) -> dict[str, Any]:
        """The answer as it stands; None before its end."""
        asked = self._asked
        short = finish is not None and self._reading.cut(finish)
        status = "in_progress" if finish is None else "incomplete" if short else "completed"
        tools = [tool.model_dump(exclude_none=True) for tool in asked.tools or ()]
        found: dict[str, Any] = {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if short else None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": asked.model,
            "output": list(self._output.items),
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "store": False,
            "temperature": asked.temperature,
            "text": {"format": (asked.text and asked.text.format) or {"type": "text"}},
            "tool_choice": asked.tool_choice or "auto",
            "tools": tools,
            "top_p": asked.top_p,
            "truncation": "disabled",
            "usage": None if finish is None else _usage(usage_of([finish], 1)),
        }
        if asked.dllm is not None and finish is not None:
            found["dllm"] = statistics_of([finish])
        return found


def _usage(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Token counts as this interface names them."""
    return {
        "input_tokens": counts["prompt_tokens"],
        # Nobody pays for what is kept.
        "input_tokens_details": counts["prompt_tokens_details"] | {"cache_write_tokens": 0},
        "output_tokens": counts["completion_tokens"],
        "output_tokens_details": counts.get("completion_tokens_details", {"reasoning_tokens": 0}),
        "total_tokens": counts["total_tokens"],
    }
