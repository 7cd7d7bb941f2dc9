"""What a request asks of a loaded model."""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from dllm_plugins.config import SamplingConfig
from dllm_plugins.constraints.values import JsonSchema
from dllm_plugins.models import Model
from dllm_plugins.request import Request
from dllm_plugins.serving.errors import ApiError
from dllm_plugins.tools.format import CallFormat
from dllm_plugins.tools.tool import Tool


@dataclass(frozen=True, slots=True)
class Work:
    """Requests of the engine, and how their answers are told.

    :param requests: those of one prompt stand together.
    :param each: answers to one prompt.
    :param tools: what may be called, and `form`, how the model writes that.
    :param drafts: whether drafts are told.
    :param logprobs: whether log-probabilities are.
    :param json: whether an answer is JSON that a schema allows, unless it calls.
    """

    requests: Sequence[Request]
    each: int = 1
    tools: Sequence[Tool] = ()
    form: CallFormat | None = None
    drafts: bool = False
    logprobs: bool = False
    json: bool = False


def with_drafts(config: SamplingConfig, drafts: bool) -> SamplingConfig:
    """Whoever is shown drafts is told how sure they are."""
    return config.with_options(logprobs=0) if drafts and config.logprobs is None else config


def chat_work(
    model: Model,
    chat: Sequence[dict[str, object]],
    config: SamplingConfig,
    each: int = 1,
    drafts: bool = False,
    toolkit: tuple[Sequence[Tool], str, bool | None] = ((), "auto", None),
    thinking: bool | None = None,
) -> Work:
    """The work of a chat.

    :param toolkit: tools, what is to be called, and whether several calls may be.
    :param thinking: whether the model is to think first; None leaves that to its chat template.
    :raises DllmError: for what cannot be asked of this model.
    """
    tools, choice, parallel = toolkit
    logprobs = config.logprobs is not None
    asked = model.chat_request(chat, with_drafts(config, drafts), tools, choice, parallel, thinking)
    form = model.tool_habit().form if tools else None
    requests = [replace(asked, config=own) for own in asked.config.several(each)]
    return Work(requests, each, tools, form, drafts, logprobs, json=isinstance(config.constraint, JsonSchema))


def check_length(requests: Sequence[Request], most: int | None, field: str | None = None) -> None:
    """Refuse prompts that are longer than the server takes.

    :param field: where they stand.
    :raises ApiError: naming both numbers.
    """
    for request in requests:
        length = len(request.tokens) + sum(len(part) for part in request.template if isinstance(part, Sequence))
        if most is not None and length > most:
            raise ApiError(
                400,
                f"the prompt has {length} tokens, and this server takes {most}; shorten it",
                param=field,
                code="context_length_exceeded",
            )
