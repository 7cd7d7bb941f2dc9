"""ChatDLLM and DLLM with a server: the same answers, options, errors and statistics."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage

from dllm_plugins import Regex
from dllm_plugins.errors import DllmError
from dllm_plugins.serving.settings import Loading
from dllm_plugins.sharing import SharedModel
from dllm_plugins.warm.place import VARIABLE
from langchain_dllm import DLLM
from langchain_dllm import ChatDLLM

from .conftest import Serve
from .test_server import nobody_left
from .test_server import slow

__all__ = ["slow"]
Ask = Callable[[dict[str, Any]], Any]


class Drafts(BaseCallbackHandler):
    """Keeps what callbacks are told."""

    def __init__(self) -> None:
        self.told = list[Any]()

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        """A draft."""
        self.told.append((name, data))


def figures(message: Any) -> Any:
    """What a message holds, without seconds and names that are drawn."""
    held = dict(getattr(message, "response_metadata", None) or getattr(message, "generation_info", None) or {})
    statistics = {name: value for name, value in held.pop("statistics", {}).items() if "seconds" not in name}
    usage = getattr(message, "usage_metadata", None)
    calls = [(call["name"], call["args"]) for call in getattr(message, "tool_calls", ())]
    return getattr(message, "content", None) or getattr(message, "text", None), held, statistics, usage, calls


def streamed(options: dict[str, Any]) -> Any:
    """A stream, its drafts and its figures."""
    drafts = Drafts()
    model = ChatDLLM(**options, mode="diffusion", logprobs=True, top_logprobs=1)
    chunks = [figures(chunk) for chunk in model.stream("why?", config={"callbacks": [drafts]})]
    return chunks, drafts.told


def in_asyncio(options: dict[str, Any]) -> Any:
    """Several at once."""

    async def ask() -> Any:
        model = ChatDLLM(**options, temperature=0.9, seed=2)
        answers = await asyncio.gather(*(model.ainvoke(question) for question in ("why?", "how?")))
        stream = [figures(chunk) async for chunk in model.astream("why?")]
        return [figures(answer)[0] for answer in answers], [chunk[0] for chunk in stream]

    return asyncio.run(ask())


def called(options: dict[str, Any]) -> Any:
    """A call of a tool that is asked for."""
    tool = {"name": "add", "description": "adds", "parameters": {"type": "object", "properties": {"a": {"enum": [1]}}}}
    model = ChatDLLM(**options | {"max_tokens": 90}).bind_tools([tool], tool_choice="add")
    return figures(model.invoke("add"))[0], figures(model.invoke("add"))[4]


@pytest.mark.parametrize(
    "ask",
    [
        lambda options: figures(ChatDLLM(**options, temperature=0.7, seed=3).invoke("why?")),
        streamed,
        in_asyncio,
        called,
        lambda options: [figures(one)[0] for one in ChatDLLM(**options).batch(["why?", "how?", "who?"])],
        lambda options: [
            one.text
            for one in ChatDLLM(**options, n=3, temperature=1.0, seed=1).generate([[HumanMessage("a")]]).generations[0]
        ],
        lambda options: figures(ChatDLLM(**options, suffix=" not.", mode="diffusion").invoke("It is")),
        lambda options: ChatDLLM(**options).with_structured_output({"title": "A", "enum": [1, 2]}).invoke("why?"),
        lambda options: DLLM(**options, constraint=Regex("[0-9]{4}")).invoke("why?"),
        lambda options: DLLM(**options, raw=True, n=2).generate(["why?", "how?"]).generations[1][0].text,
        lambda options: DLLM(**options, gap="_", mode="diffusion").invoke("It _ or _."),
        lambda options: list(DLLM(**options, gap="_", mode="diffusion").stream("It _ or _.")),
        lambda options: DLLM(**options).get_num_tokens("why?"),
        lambda options: ChatDLLM(**options).get_num_tokens_from_messages([HumanMessage("why?")]),
        lambda options: _profile(ChatDLLM(**options)),
    ],
)
def test_answers(serve: Serve, loading: Loading, held: SharedModel, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a server, where nothing can be loaded, and without one."""
    serve()
    options = {**loading.options, "max_tokens": 8}
    held.prefixes.clear()
    with monkeypatch.context() as patch:
        patch.setattr("dllm_plugins.sharing.shared_model", lambda *_, **__: pytest.fail("the model was loaded here"))
        found = ask(options)
    held.prefixes.clear()
    monkeypatch.delenv(VARIABLE)
    assert found == ask(options)


def _profile(model: ChatDLLM) -> Any:
    model.invoke("why?")
    return model.profile


@pytest.mark.parametrize(
    "given",
    [
        {"mode": "none-such"},
        {"top_k": 3},
        {"thinking": True},
        {"mode": "ar", "suffix": "a"},
        {"constraint": Regex("(")},
    ],
)
def test_errors(serve: Serve, loading: Loading, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """In LangChain's words."""
    serve()
    errors = list[DllmError]()
    for _ in range(2):
        with pytest.raises(DllmError) as raised:
            ChatDLLM(**loading.options, **given).invoke("why?")
        errors.append(raised.value)
        monkeypatch.delenv(VARIABLE, raising=False)
    assert type(errors[0]) is type(errors[1])
    assert str(errors[0]) == str(errors[1])


def test_leaving_frees_the_rows(serve: Serve, loading: Loading, held: SharedModel, slow: None) -> None:
    """A stream that is closed, an answer that takes too long, a batch of which one fails."""
    serve()
    model = ChatDLLM(**loading.options, max_tokens=2000, mode="ar", min_new_tokens=2000)
    stream = model.stream("why?")
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert nobody_left(held)
    with pytest.raises(DllmError, match=r"timeout=0\.05"):
        model.invoke("why?", timeout=0.05)
    assert nobody_left(held)
    with pytest.raises(DllmError, match="empty"):
        model.batch(["why?", ""])
    assert nobody_left(held)
