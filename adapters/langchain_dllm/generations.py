"""Texts to requests, and the engine's events to LangChain's generations."""

from collections.abc import Iterable
from collections.abc import Sequence
from functools import reduce
from operator import add

from langchain_core.outputs import Generation
from langchain_core.outputs import GenerationChunk
from langchain_core.outputs import LLMResult

from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Commit
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.request import Request
from dllm_plugins.warm.opening import Answering
from langchain_dllm.call import Call
from langchain_dllm.gaps import requests_for
from langchain_dllm.messages import Teller
from langchain_dllm.messages import thought_of
from langchain_dllm.messages import totals_of
from langchain_dllm.messages import usage_of


def requests_of(shared: Answering, prompt: str, call: Call) -> list[Request]:
    """The text as a user's message, or as it is if the call says `raw` or what follows; as often as answers are wanted.

    :raises OptionError: for a `thinking` that nothing can turn on or off.
    :raises RequestError: if the text is empty, or must be made a message and the model has no chat template.
    """
    filling = requests_for(shared, prompt, call)
    if filling is not None:
        return filling
    if call.raw:
        if call.thinking is not None:
            raise OptionError(f"thinking={call.thinking} has no meaning beside raw=True; leave one of the two out")
        return call.requests(shared.model.text_request(prompt, call.config, special=False))
    if not shared.model.chats:
        raise RequestError(f"{shared.model.name} has no chat template; say raw=True to go on from the very text")
    chat = [{"role": "user", "content": prompt}]
    return call.requests(shared.model.chat_request(chat, call.config, thinking=call.thinking))


def generation_of(finish: Finish, teller: Teller) -> Generation:
    """The whole answer, with statistics and token counts."""
    info = teller.metadata(finish) | {"usage": usage_of(finish)} | thought_of(finish)
    return Generation(text=finish.text, generation_info=info)


def chunk_of(event: Event, teller: Teller) -> GenerationChunk | None:
    """What an event adds to a streamed answer: committed text, or the figures at its end."""
    if isinstance(event, Commit):
        said = teller.new_logprobs(event) | thought_of(event)
        return GenerationChunk(text=event.text, generation_info=said or None) if event.text or said else None
    if isinstance(event, Finish):
        info = teller.metadata(event, streamed=True) | {"usage": usage_of(event)}
        return GenerationChunk(text="", generation_info=info)
    return None


def joined(chunks: Iterable[GenerationChunk]) -> Generation:
    """A streamed answer in one piece."""
    whole = reduce(add, chunks)
    return Generation(text=whole.text, generation_info=whole.generation_info)


def result_of(answers: Sequence[Sequence[Generation]], call: Call) -> LLMResult:
    """The answers to each prompt, and the sum of their token counts."""
    usages = [(generation.generation_info or {})["usage"] for own in answers for generation in own]
    output = {"model_name": call.model_name, "token_usage": totals_of(usages)}
    return LLMResult(generations=[list(own) for own in answers], llm_output=output)
