"""Tools in llm: told of in prompts, called, answered round by round, from Python and on the command line."""

from collections.abc import AsyncGenerator
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import llm
import pytest
from click.testing import Result

from dllm_plugins import Commit
from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins.events import Usage
from dllm_plugins.sharing import SharedModel
from llm_dllm.loading import loaded_model

Run = Callable[..., Result]
USAGE = Usage(3, 0, 4, 4, {"predict": 4}, 12, 0.5, 0.1, "ar", "exact", "row-invariant", 0)
CODE = """
def multiply(a: int, b: int) -> int:
    "Multiply two numbers."
    return a * b

def now() -> str:
    "The time."
    return "noon"
"""
MULTIPLY = '<tool_call>{"name": "multiply", "arguments": {"a": 6, "b": 7}}</tool_call>'
NOW = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def now() -> str:
    """The time."""
    return "noon"


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Request]]:
    """Let the engine give these answers, one a request, whatever it is asked; the requests it was given."""
    asked: list[Request] = []
    answers: list[str] = []

    def events(request: Request) -> Iterator[Any]:
        asked.append(request)
        text = answers.pop(0)
        for begin in range(0, len(text), 7):
            yield Commit(1, 1, (), text[begin : begin + 7])
        yield Finish(1, 2, "eos", (), text, USAGE)

    async def aevents(_shared: SharedModel, request: Request) -> AsyncGenerator[Any, None]:
        for event in events(request):
            yield event

    def use(*texts: str) -> list[Request]:
        answers[:] = texts
        monkeypatch.setattr(SharedModel, "stream", lambda _shared, request: events(request))
        monkeypatch.setattr(SharedModel, "astream", aevents)
        return asked

    return use


def prompts(asked: list[Request]) -> list[str]:
    """The prompts as texts."""
    return [loaded_model().model.tokenizer.decode(request.tokens) for request in asked]


def test_rounds_on_the_command_line(run: Run, says: Callable[..., list[Request]]) -> None:
    """`--functions`, with `--td` to see them: two calls in one answer, then the answer."""
    asked = says(f"Let me see. {MULTIPLY}\n{NOW}", "It is 42.")
    result = run("-m", "dllm", "6 * 7, and the time?", "--functions", CODE, "--td")
    assert result.stdout == "Let me see. It is 42.\n"
    for words in ("multiply({'a': 6, 'b': 7})", "42", "now({})", "noon"):
        assert words in result.stderr
    first, second = prompts(asked)
    assert '"name": "multiply", "description": "Multiply two numbers."' in first
    assert f"<s>assistant\nLet me see.\n{MULTIPLY}\n{NOW}</s>" in second
    assert second.endswith(
        "<s>user\n<tool_response>\nmultiply: 42\n</tool_response>\n<tool_response>\nnow: noon\n</tool_response></s>\n"
        "<s>assistant\n"
    )
    assert "<s>user\n</s>" not in second


def test_chains_in_python(dllm: llm.Model, says: Callable[..., list[Request]]) -> None:
    """Calls are logged with the response, and the chain ends with the first answer that calls nothing."""
    says(MULTIPLY, NOW, "Done.")
    chain = dllm.chain("6 * 7?", tools=[multiply, now])
    assert chain.text() == "Done."
    responses = list(chain._responses)
    assert [[call.name for call in response.tool_calls()] for response in responses] == [["multiply"], ["now"], []]
    [call] = responses[0].tool_calls()
    assert call.arguments == {"a": 6, "b": 7}
    assert call.tool_call_id


def test_events_of_calls(dllm: Any, says: Callable[..., list[Request]]) -> None:
    """The name, then pieces of the arguments, under one id; the message has each call once."""
    says(f"See: {MULTIPLY}\n{NOW}")
    response = dllm.prompt("6 * 7?", tools=[multiply, now])
    events = [(event.type, event.chunk) for event in response.stream_events()]
    assert [chunk for kind, chunk in events if kind == "tool_call_name"] == ["multiply", "now"]
    pieces = [chunk for kind, chunk in events if kind == "tool_call_args"]
    assert len(pieces) > 3
    assert "".join(pieces) == '{"a": 6, "b": 7}{}'
    [message] = response.messages()
    text, *calls = message.parts
    assert text.text == "See:"
    told = [(call.name, call.arguments, call.tool_call_id) for call in calls]
    assert told == [(call.name, call.arguments, call.tool_call_id) for call in response.tool_calls()]
    assert [name for name, _, _ in told] == ["multiply", "now"]


async def test_chains_in_asyncio(says: Callable[..., list[Request]]) -> None:
    asked = says(MULTIPLY, "42.")
    chain = llm.get_async_model("dllm").chain("6 * 7?", tools=[multiply])
    assert await chain.text() == "42."
    assert "multiply: 42" in prompts(asked)[1]


def test_a_tool_that_is_not_there(dllm: llm.Model, says: Callable[..., list[Request]]) -> None:
    """llm tells the model so."""
    asked = says(NOW, "Sorry.")
    assert dllm.chain("6 * 7?", tools=[multiply]).text() == "Sorry."
    assert 'now: Error: tool "now" does not exist' in prompts(asked)[1]


def test_a_call_that_cannot_be_read(run: Run, dllm: llm.Model, says: Callable[..., list[Request]]) -> None:
    """One line that says what the model wrote and what to do."""
    says('<tool_call>{"name": "multiply", "arg')
    with pytest.raises(llm.ModelError, match=r"called a tool in a way that cannot be read .it is no JSON.*ask again"):
        dllm.chain("6 * 7?", tools=[multiply]).text()
    says("<tool_call>x</tool_call>")
    shown = run("-m", "dllm", "6 * 7?", "--functions", CODE, code=1).stderr
    assert shown.startswith("Error: the model called a tool in a way that cannot be read")


def test_without_tools_text_is_text(run: Run, says: Callable[..., list[Request]]) -> None:
    says(NOW)
    assert run("-m", "dllm", "the time?").stdout == NOW + "\n"


def test_one_answer_without_a_stream(run: Run, says: Callable[..., list[Request]]) -> None:
    """`--no-stream`: the same rounds."""
    says(f"See: {NOW}", "Noon.")
    assert "Noon." in run("-m", "dllm", "the time?", "--functions", CODE, "--no-stream").stdout


def test_later_turns_tell_of_calls(run: Run, says: Callable[..., list[Request]]) -> None:
    """`llm -c`, also without tools: what was called and returned stays in the prompt."""
    asked = says(MULTIPLY, "It is 42.", "Six.")
    run("-m", "dllm", "6 * 7?", "--functions", CODE)
    run("-c", "And 42 / 7?")
    text = prompts(asked)[-1]
    assert "multiply: 42" in text
    assert MULTIPLY in text
    assert text.endswith("<s>assistant\nIt is 42.</s>\n<s>user\nAnd 42 / 7?</s>\n<s>assistant\n")


def test_results_that_are_no_text(dllm: llm.Model, says: Callable[..., list[Request]]) -> None:
    def picture() -> llm.ToolOutput:
        """A picture."""
        return llm.ToolOutput("here", attachments=[llm.Attachment(type="image/png", content=b"x")])

    says(NOW.replace("now", "picture"))
    with pytest.raises(llm.ModelError, match="reads text only, not AttachmentPart"):
        dllm.chain("show", tools=[picture]).text()
