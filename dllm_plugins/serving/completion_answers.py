"""Answers of /v1/completions, whole and streamed."""

from collections.abc import Sequence
from typing import Any

from dllm_plugins.edits import changes_of
from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.serving.completions import CompletionRequest
from dllm_plugins.serving.older_answers import OlderAnswers
from dllm_plugins.serving.sending import sse
from dllm_plugins.serving.telling import Names
from dllm_plugins.serving.telling import answer_text
from dllm_plugins.serving.telling import cut
from dllm_plugins.serving.telling import logprobs_of
from dllm_plugins.serving.telling import usage_of
from dllm_plugins.serving.work import Work
from dllm_plugins.template import Growing


class CompletionAnswers(OlderAnswers):
    """Tells of the answers to one request.

    :param tokenizer: the model's own.
    """

    def __init__(self, asked: CompletionRequest, work: Work, tokenizer: Any, names: Names | None = None) -> None:
        super().__init__(asked, work, tokenizer, names, kind="cmpl-", streamed="text_completion")
        # Characters of each answer that log-probabilities have told of.
        self._offsets = [0] * len(work.requests)
        edit = asked.edit()
        # An edited text is told whole.
        self._edited = None if edit is None else edit.template
        self._spans = () if edit is None else edit.spans
        self._growing = [None if edit is None else Growing(edit.template) for _ in work.requests]

    def whole(self, finishes: Sequence[Finish]) -> dict[str, Any]:
        """All answers at once."""
        choices = [
            self._choice(place, self._text(finish), self._logprobs(place, finish), _reason(finish))
            for place, finish in enumerate(finishes)
        ]
        return self._same | {"choices": choices, "usage": usage_of(finishes, self._work.each)} | self._figures(finishes)

    def opening(self) -> list[str]:
        """A stream begins with its first text."""
        return []

    def more(self, place: int, event: Event) -> list[str]:
        """What an event adds to a stream."""
        draft = self._drafts.take(place, event)
        if isinstance(event, Draft):
            return [sse(self._same | {"choices": [], "dllm": {"draft": draft}}, "draft")]
        last = isinstance(event, Finish)
        said = self._logprobs(place, event) if last == self._at_the_end else None
        growing = self._growing[place]
        text = answer_text(event) if growing is None else growing.of(event)
        if isinstance(event, Finish):
            return [self._chunk(place, text if growing is not None else "", said, _reason(event))]
        return [self._chunk(place, text, said)] if text or said else []

    def _text(self, finish: Finish) -> str:
        return answer_text(finish) if self._edited is None else self._edited.filled([gap.text for gap in finish.gaps])

    def _figures(self, finishes: Sequence[Finish]) -> dict[str, Any]:
        found = super()._figures(finishes)
        if self._edited is not None:
            edits = [[change.as_dict() for change in changes_of(self._spans, one.gaps)] for one in finishes]
            found["dllm"]["edits"] = edits
        return found

    def _chunk(self, place: int, text: str, said: dict[str, Any] | None, reason: str | None = None) -> str:
        return sse(self._same | {"choices": [self._choice(place, text, said, reason)]})

    def _choice(self, place: int, text: str, said: dict[str, Any] | None, reason: str | None) -> dict[str, Any]:
        return {"index": place, "text": text, "logprobs": said, "finish_reason": reason}

    def _logprobs(self, place: int, event: Commit | Finish) -> dict[str, Any] | None:
        """In the four lists of this interface."""
        said = logprobs_of(event, self._tokenizer) if self._work.logprobs else None
        if said is None:
            return None
        offsets = list[int]()
        for entry in said["content"]:
            offsets.append(self._offsets[place])
            self._offsets[place] += len(entry["token"])
        return {
            "tokens": [entry["token"] for entry in said["content"]],
            "token_logprobs": [entry["logprob"] for entry in said["content"]],
            "top_logprobs": [
                {other["token"]: other["logprob"] for other in entry["top_logprobs"]} for entry in said["content"]
            ],
            "text_offset": offsets,
        }


def _reason(finish: Finish) -> str:
    return "length" if cut(finish) else "stop"
