"""What llm's users do around a prompt: templates, fragments, chats with tools, asyncio."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import llm
from click.testing import Result

from dllm_plugins import Request

from .test_tools import CODE
from .test_tools import MULTIPLY
from .test_tools import multiply
from .test_tools import prompts
from .test_tools import says

Run = Callable[..., Result]
Says = Callable[..., list[Request]]
__all__ = ["says"]


def test_templates(run: Run, says: Says) -> None:
    """System prompt, parameters, options of ours, tools and a schema, kept under a name and used again."""
    asked = says("one", "two")
    given = ("-o", "max_tokens", "9", "-o", "mode", "diffusion", "-o", "stop", "END")
    run("-m", "dllm", "-s", "Answer $how.", "Why is $input?", *given, "--save", "why")
    assert run("-t", "why", "-p", "how", "briefly", "the sky").stdout == "one\n"
    assert run("-t", "why", "-p", "how", "at length", "-o", "max_tokens", "7", "the sea").stdout == "two\n"
    first, second = prompts(asked)
    assert first == "<s>system\nAnswer briefly.</s>\n<s>user\nWhy is the sky?</s>\n<s>assistant\n"
    assert "at length" in second
    assert [request.config.max_new_tokens for request in asked] == [9, 7]
    assert {(request.config.mode, request.config.stop) for request in asked} == {("diffusion", ("END",))}


def test_templates_with_options_that_are_wrong(run: Run) -> None:
    """One line, as for `-o`."""
    run("-m", "dllm", "-s", "Be brief.", "-o", "temperature", "900", "--save", "hot", code=1)
    result = run("-m", "dllm", "-t", "none-such", "why?", code=1)
    assert "none-such" in result.output


def test_fragments(run: Run, says: Says, tmp_path: Path) -> None:
    """Texts before the prompt and in the system prompt."""
    asked = says("one")
    (tmp_path / "text").write_text("The sky is blue.")
    (tmp_path / "rule").write_text("Be brief.")
    assert run("-m", "dllm", "-f", str(tmp_path / "text"), "--sf", str(tmp_path / "rule"), "Why?").stdout == "one\n"
    [prompt] = prompts(asked)
    assert prompt.startswith("<s>system\nBe brief.</s>")
    assert prompt.index("The sky is blue.") < prompt.index("Why?")


def test_a_chat_with_tools(run: Run, says: Says, tmp_path: Path) -> None:
    """Rounds within each turn, options and system prompt in every one; fragments by `!fragment`."""
    asked = says(MULTIPLY, "It is 42.", "Six.")
    (tmp_path / "text").write_text("Seven.")
    turns = f"6 * 7?\n!multi\nAnd\n!fragment {tmp_path / 'text'}\n!end\nquit\n"
    shown = run("chat", "-m", "dllm", "--functions", CODE, "-s", "Count.", "-o", "max_tokens", "9", input=turns).stdout
    assert "It is 42." in shown
    assert "Six." in shown
    texts = prompts(asked)
    assert len(texts) == 3
    assert all("Count." in text for text in texts)
    assert "multiply: 42" in texts[2]
    assert "Seven." in texts[2]
    assert {request.config.max_new_tokens for request in asked} == {9}


def test_a_schema_beside_tools(run: Run, says: Says) -> None:
    """A call, or what the schema allows."""
    asked = says(MULTIPLY, '{"answer": 42}')
    result = run("-m", "dllm", "6 * 7?", "--functions", CODE, "--schema", "answer int", "-o", "max_tokens", "90")
    assert result.stdout.strip() == '{"answer": 42}'
    assert all(request.config.constraint is not None for request in asked)


async def test_conversations_in_asyncio(says: Says) -> None:
    """History, tools, system prompt and events in asynchronous models."""
    asked = says("Hi.", MULTIPLY, "42.")
    conversation: Any = llm.get_async_model("dllm").conversation()
    assert await conversation.prompt("Hello?", system="Be brief.").text() == "Hi."
    chain = conversation.chain("6 * 7?", tools=[multiply])
    assert "".join([chunk async for chunk in chain]) == "42."
    last = prompts(asked)[-1]
    assert last.count("Be brief.") == 1
    assert "<s>assistant\nHi.</s>" in last
    assert last.endswith("multiply: 42\n</tool_response></s>\n<s>assistant\n")


def test_options_for_good(run: Run, says: Says) -> None:
    """`llm models options set` takes ours."""
    asked = says("one")
    run("models", "options", "set", "dllm", "max_tokens", "11")
    run("-m", "dllm", "why?")
    assert asked[0].config.max_new_tokens == 11
    assert "unknown option" in run("models", "options", "set", "dllm", "telepathy", "1", code=1).output
