"""Requests to /v1/completions: texts to go on from, and gaps to fill."""

from collections.abc import Sequence
from typing import Any
from typing import ClassVar

from pydantic import Field
from pydantic import field_validator

from dllm_plugins.config import MOST_ALTERNATIVES
from dllm_plugins.config import SamplingConfig
from dllm_plugins.edits import Edit
from dllm_plugins.errors import RequestError
from dllm_plugins.models import Model
from dllm_plugins.request import Request
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.serving.fields import Sampled
from dllm_plugins.serving.work import Work
from dllm_plugins.serving.work import with_drafts
from dllm_plugins.template import ROOM
from dllm_plugins.template import Gap
from dllm_plugins.template import Template

#: Prompts of one request.
_MOST = 128


class CompletionRequest(Sampled):
    """A request to /v1/completions; each prompt is a text or token ids."""

    field: ClassVar[str] = "prompt"
    more: ClassVar[tuple[str, ...]] = (*Sampled.more, "spans")

    prompt: str | list[str] | list[int] | list[list[int]]
    suffix: str | None = None
    logprobs: int | None = Field(default=None, ge=0, le=MOST_ALTERNATIVES)

    @field_validator("prompt")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if not value or (isinstance(value, list) and not isinstance(value[0], int) and not all(value)):
            raise ValueError("a prompt is empty; give a text, or token ids")
        if isinstance(value, list) and not isinstance(value[0], int) and len(value) > _MOST:
            raise ValueError(f"{len(value)} prompts in a request; {_MOST} at most")
        return value

    @property
    def _prompts(self) -> Sequence[str | list[int]]:
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = [token for token in self.prompt if isinstance(token, int)]
        return [ids] if ids else [part for part in self.prompt if not isinstance(part, int)]

    def work(self, model: Model) -> Work:
        """What is asked of a model.

        :raises DllmError: for what cannot be asked of it.
        """
        if self.thinking is not None:
            raise ApiError(400, "dllm.thinking is about chats, and this is a text; leave it out", param="dllm.thinking")
        # How long a gap may get is said by the gap.
        length = self.max_tokens if self.suffix is None and self.spans is None else None
        config = self.sampling(max_new_tokens=length, seed=self.seed, stop=self.stops, logprobs=self.logprobs)
        held, each = with_drafts(config, self.draft_events), self.n or 1
        requests = [self._request(model, prompt, own) for prompt in self._prompts for own in held.several(each)]
        return Work(requests, each, drafts=self.draft_events, logprobs=self.logprobs is not None)

    @property
    def spans(self) -> Any:
        """The spans of the prompt that are written anew, as they were given; None if it is gone on from."""
        return (self.dllm or {}).get("spans")

    def edit(self, config: SamplingConfig | None = None) -> Edit | None:
        """What is to be written anew; None where nothing is.

        :raises ApiError: for what spans do not go with, and for those that are none.
        """
        if self.spans is None:
            return None
        if not isinstance(self.prompt, str):
            raise ApiError(400, "dllm.spans are of one text; give the prompt as one", param="dllm.spans")
        for name, value in (("suffix", self.suffix), ("logprobs", self.logprobs)):
            if value is not None:
                raise ApiError(400, f"{name} has no meaning beside dllm.spans; leave it out", param=name)
        constraint = None if config is None else config.constraint
        try:
            return Edit(self.prompt, self.spans, self.max_tokens, constraint)
        except RequestError as error:
            raise ApiError(400, f"dllm.spans: {error}", param="dllm.spans") from error

    def _request(self, model: Model, prompt: str | list[int], config: SamplingConfig) -> Request:
        edit, given = self.edit(config), config.given()
        if edit is not None:
            return model.edit_request(edit, **{name: given[name] for name in given if name != "constraint"})
        if self.suffix is None:
            return Request(model.encode_text(prompt) if isinstance(prompt, str) else prompt, config)
        if not isinstance(prompt, str):
            raise ApiError(400, "a suffix stands behind a text; give the prompt as one", param="suffix")
        options = config.given()
        room, constraint = ROOM if self.max_tokens is None else self.max_tokens, options.pop("constraint", None)
        gap = Gap(max_tokens=room, constraint=constraint)
        return model.fill_request(Template(prompt, gap, self.suffix), **options)
