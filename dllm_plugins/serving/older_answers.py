"""What answers of the two older interfaces share: how a stream ends, and what stands beside it."""

from collections.abc import Sequence
from typing import Any

from dllm_plugins.events import Finish
from dllm_plugins.serving.drafts import Drafts
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.fields import Sampled
from dllm_plugins.serving.sending import DONE
from dllm_plugins.serving.sending import sse
from dllm_plugins.serving.telling import Names
from dllm_plugins.serving.telling import statistics_of
from dllm_plugins.serving.telling import usage_of
from dllm_plugins.serving.work import Work


class OlderAnswers:
    """Tells of the answers to one request.

    :param tokenizer: the model's own.
    :param kind: what the names of answers begin with.
    :param streamed: what a part of a stream is called.
    """

    def __init__(
        self, asked: Sampled, work: Work, tokenizer: Any, names: Names | None, *, kind: str, streamed: str
    ) -> None:
        self._asked = asked
        self._work = work
        self._tokenizer = tokenizer
        self._drafts = Drafts(tokenizer)
        self._names = names or Names()
        self._at_the_end = bool(asked.dllm and asked.dllm.get("logprobs_at") == "final")
        self._same: dict[str, Any] = {
            "id": self._names.new(kind),
            "object": streamed,
            "created": self._names.created,
            "model": asked.model,
        }

    def closing(self, finishes: Sequence[Finish]) -> list[str]:
        """What a stream ends with."""
        told = self._same | {"choices": []} | self._figures(finishes)
        options = self._asked.stream_options
        if options is not None and options.include_usage:
            told["usage"] = usage_of(finishes, self._work.each)
        return [*([sse(told)] if "usage" in told or "dllm" in told else []), DONE]

    def failed(self, error: ApiError) -> list[str]:
        """What a stream that fails ends with."""
        return [sse(error.body()), DONE]

    def _figures(self, finishes: Sequence[Finish]) -> dict[str, Any]:
        return {} if self._asked.dllm is None else {"dllm": statistics_of(finishes)}
