"""Templates for llm: the option `suffix` of a prompt, and the gaps of `llm dllm fill`."""

from collections.abc import Generator
from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING
from typing import Any

from dllm_plugins.errors import RequestError
from llm_dllm.loading import Choice
from llm_dllm.loading import loaded_model

if TYPE_CHECKING:
    from dllm_plugins.config import SamplingConfig
    from dllm_plugins.events import Finish
    from dllm_plugins.models import Model
    from dllm_plugins.request import Request
    from dllm_plugins.template import Template


def request_before(model: "Model", chat: list[dict[str, str]], config: "SamplingConfig", suffix: str) -> "Request":
    """The request for what stands between a prompt and a suffix; the prompt is the very text.

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
    gap = Gap(max_tokens=given.pop("max_new_tokens", ROOM))
    return model.fill_request(Template(chat[0]["content"], gap, suffix), **given)


def filling(template: "Template", given: Mapping[str, Any], choice: Choice) -> Generator["str | Finish", None, None]:
    """The whole text piece by piece, and what the engine says at the end."""
    from dllm_plugins.events import Commit
    from dllm_plugins.events import Finish
    from dllm_plugins.template import Growing

    shared, growing = loaded_model(choice), Growing(template)
    with closing(shared.stream(shared.model.fill_request(template, **given))) as events:
        for event in events:
            if isinstance(event, Commit | Finish):
                new = growing.add(event.gaps) if isinstance(event, Commit) else growing.add((), done=True)
                if new:
                    yield new
            if isinstance(event, Finish):
                yield event
