"""Texts to requests, and the engine's events to LangChain's generations."""

from collections.abc import Sequence
from typing import Any

from langchain_core.outputs import Generation
from langchain_core.outputs import GenerationChunk
from langchain_core.outputs import LLMResult

from dllm_plugins.errors import RequestError
from dllm_plugins.events import Commit
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.request import Request
from dllm_plugins.sharing import SharedModel
from langchain_dllm.call import Call
from langchain_dllm.messages import metadata_of
from langchain_dllm.messages import usage_of


def request_of(shared: SharedModel, prompt: str, call: Call) -> Request:
    """The text as a user's message, or as it is if the call says `raw`.

    :raises RequestError: if the text is empty, or must be made a message and the model has no chat template.
    """
    if call.raw:
        return Request(shared.model.encode_text(prompt, special=False), call.config)
    if not shared.model.tokenizer.chat_template:
        raise RequestError(f"{shared.model.name} has no chat template; say raw=True to go on from the very text")
    return Request(shared.model.encode_chat([{"role": "user", "content": prompt}]), call.config)


def info_of(finish: Finish, call: Call) -> dict[str, Any]:
    """Statistics and token counts."""
    return metadata_of(finish, call.model_name) | {"usage": usage_of(finish)}


def generation_of(finish: Finish, call: Call) -> Generation:
    """The whole answer."""
    return Generation(text=finish.text, generation_info=info_of(finish, call))


def chunk_of(event: Event, call: Call) -> GenerationChunk | None:
    """What an event adds to a streamed answer: committed text, or the figures at its end."""
    if isinstance(event, Commit) and event.text:
        return GenerationChunk(text=event.text)
    if isinstance(event, Finish):
        return GenerationChunk(text="", generation_info=info_of(event, call))
    return None


def joined(chunks: Sequence[GenerationChunk]) -> Generation:
    """A streamed answer in one piece."""
    return Generation(text="".join(chunk.text for chunk in chunks), generation_info=chunks[-1].generation_info)


def result_of(generations: Sequence[Generation], call: Call) -> LLMResult:
    """One answer for each prompt, and the sum of their token counts."""
    usages = [(generation.generation_info or {})["usage"] for generation in generations]
    names = ("input_tokens", "output_tokens", "total_tokens")
    totals = {name: sum(usage[name] for usage in usages) for name in names}
    output = {"model_name": call.model_name, "token_usage": totals}
    return LLMResult(generations=[[generation] for generation in generations], llm_output=output)
