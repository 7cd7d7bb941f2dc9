"""The option `suffix` of a prompt: what stands between it and the prompt is filled."""

from typing import TYPE_CHECKING

from dllm_plugins.errors import RequestError

if TYPE_CHECKING:
    from dllm_plugins.config import SamplingConfig
    from dllm_plugins.models import Model
    from dllm_plugins.request import Request
    from dllm_plugins.warm.model import WarmModel


def request_before(
    model: "Model | WarmModel", chat: list[dict[str, str]], config: "SamplingConfig", suffix: str
) -> "Request":
    """The request for what stands between a prompt and a suffix; the prompt is the very text.

    What the answer must be is what the gap must be.

    :raises RequestError: for a conversation.
    """
    from dllm_plugins.template import ROOM
    from dllm_plugins.template import Gap
    from dllm_plugins.template import Template

    if [message["role"] for message in chat] != ["user"]:
        raise RequestError(
            "with the option suffix the prompt is the text before a gap, so there is no system prompt and no history; "
            "leave them out, or use `llm dllm fill`, which has --prompt and --system"
        )
    given = config.given()
    gap = Gap(max_tokens=given.pop("max_new_tokens", ROOM), constraint=given.pop("constraint", None))
    return model.fill_request(Template(chat[0]["content"], gap, suffix), **given)
