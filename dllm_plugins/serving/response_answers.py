"""Answers of /v1/responses, whole and streamed."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.serving.drafts import Drafts
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.responses import ResponseRequest
from dllm_plugins.serving.telling import Names
from dllm_plugins.serving.telling import Reading
from dllm_plugins.serving.telling import answer_text
from dllm_plugins.serving.telling import cut
from dllm_plugins.serving.telling import logprobs_of
from dllm_plugins.serving.telling import sse
from dllm_plugins.serving.telling import statistics_of
from dllm_plugins.serving.telling import usage_of
from dllm_plugins.serving.work import Work
from dllm_plugins.tools.calls import Call


class ResponseAnswers:
    """Tells of the answer to one request: a message, and behind it calls.

    :param tokenizer: the model's own.
    """

    def __init__(self, asked: ResponseRequest, work: Work, tokenizer: Any, names: Names | None = None) -> None:
        self._asked = asked
        self._work = work
        self._tokenizer = tokenizer
        self._drafts = Drafts(tokenizer)
        self._names = names or Names()
        self._reading = Reading(work)
        self._said = list[dict[str, Any]]()
        self._text = ""
        self._items = list[dict[str, Any]]()
        self._open: dict[str, Any] | None = None
        self._number = -1
        self._id, self._created = self._names.new("resp_"), self._names.created

    def whole(self, finishes: Sequence[Finish]) -> dict[str, Any]:
        """The answer at once."""
        [finish] = finishes
        text, calls = self._reading.push(answer_text(finish), last=True)
        self._note_logprobs(finish)
        message = self._message(text, "completed")
        self._items = ([message] if text or not calls else []) + [_called(call, self._names) for call in calls]
        return self._response(finish)

    def opening(self) -> list[str]:
        """A stream begins with the answer that is to come."""
        shown = self._response(None)
        return [self._event("response.created", response=shown), self._event("response.in_progress", response=shown)]

    def more(self, place: int, event: Event) -> list[str]:
        """What an event adds to a stream."""
        draft = self._drafts.take(place, event)
        if isinstance(event, Draft):
            told = {"type": "dllm.draft", "sequence_number": self._next(), "dllm": {"draft": draft}}
            return [sse(told, "draft")]
        last = isinstance(event, Finish)
        text, calls = self._reading.push("" if last else answer_text(event), last)
        if not last or (self._asked.dllm and self._asked.dllm.get("logprobs_at") == "final"):
            self._note_logprobs(event)
        found = self._texts(text) if text else []
        if last and not self._text and not self._reading.calls:
            # An answer of no text is a message all the same.
            found += self._texts("")
        if last or calls:
            found += self._close()
        for call in calls:
            found += self._call(call)
        return found

    def closing(self, finishes: Sequence[Finish]) -> list[str]:
        """A stream ends with the whole answer."""
        shown = self._response(finishes[0])
        return [self._event(f"response.{shown['status']}", response=shown)]

    def failed(self, error: ApiError) -> list[str]:
        """What a stream that fails ends with."""
        told = {"code": error.code or "server_error", "message": str(error)}
        return [self._event("response.failed", response=self._response(None) | {"status": "failed", "error": told})]

    def _texts(self, text: str) -> list[str]:
        found = list[str]()
        if self._open is None:
            self._open = self._message("", "in_progress") | {"content": []}
            found.append(self._event("response.output_item.added", output_index=len(self._items), item=self._open))
            found.append(self._event("response.content_part.added", **self._place(), part=_part("", [])))
        self._text += text
        if text:
            found.append(self._event("response.output_text.delta", **self._place(), delta=text, logprobs=[]))
        return found

    def _close(self) -> list[str]:
        if self._open is None:
            return []
        place, text = self._place(), self._text
        done = self._message(text, "completed") | {"id": self._open["id"]}
        found = [
            self._event("response.output_text.done", **place, text=text, logprobs=self._said),
            self._event("response.content_part.done", **place, part=_part(text, self._said)),
            self._event("response.output_item.done", output_index=len(self._items), item=done),
        ]
        self._items.append(done)
        self._open, self._text, self._said = None, "", []
        return found

    def _call(self, call: Call) -> list[str]:
        done, index = _called(call, self._names), len(self._items)
        begun = done | {"arguments": "", "status": "in_progress"}
        place: dict[str, Any] = {"item_id": done["id"], "output_index": index}
        self._items.append(done)
        written = done["arguments"]
        return [
            self._event("response.output_item.added", output_index=index, item=begun),
            self._event("response.function_call_arguments.delta", **place, delta=written),
            self._event("response.function_call_arguments.done", **place, name=call.name, arguments=written),
            self._event("response.output_item.done", output_index=index, item=done),
        ]

    def _place(self) -> dict[str, Any]:
        assert self._open is not None, "a message has begun"
        return {"item_id": self._open["id"], "output_index": len(self._items), "content_index": 0}

    def _event(self, kind: str, **data: Any) -> str:
        return sse({"type": kind, "sequence_number": self._next(), **data}, kind)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _note_logprobs(self, event: Any) -> None:
        said = logprobs_of(event, self._tokenizer) if self._work.logprobs else None
        self._said += [] if said is None else said["content"]

    def _message(self, text: str, status: str) -> dict[str, Any]:
        content = [_part(text, self._said)]
        return {
            "id": self._names.new("msg_"),
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _response(self, finish: Finish | None) -> dict[str, Any]:
        """The answer as it stands; None before its end."""
        asked = self._asked
        short = finish is not None and cut(finish)
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
            "output": list(self._items),
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


def _part(text: str, said: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(said)}


def _called(call: Call, names: Names) -> dict[str, Any]:
    return {
        "id": names.new("fc_"),
        "type": "function_call",
        "call_id": names.new("call_"),
        "name": call.name,
        "arguments": call.written(),
        "status": "completed",
    }


def _usage(counts: Mapping[str, Any]) -> dict[str, Any]:
    """Token counts as this interface names them."""
    return {
        "input_tokens": counts["prompt_tokens"],
        # Nobody pays for what is kept.
        "input_tokens_details": counts["prompt_tokens_details"] | {"cache_write_tokens": 0},
        "output_tokens": counts["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counts["total_tokens"],
    }
