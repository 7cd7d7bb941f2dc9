"""Thinking in llm: events of their own, shown, logged, and in the next prompt."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llm
import pytest
from click.testing import Result
from llm.parts import ReasoningPart
from llm.parts import TextPart

from llm_dllm.loading import loaded_model
from llm_dllm.model import chat_of

from ..text.thinking_templates import BEGUN
from ..text.thinking_templates import BRACKETS
from ..thoughtful import thoughtful

Run = Callable[..., Result]
YES: dict[str, Any] = {"regex": "yes", "max_tokens": 30}


@pytest.fixture
def thinker(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a model that thinks in the default one's place."""

    def make(template: str) -> None:
        monkeypatch.setenv("DLLM_BASE", str(thoughtful(tiny_folder, tmp_path / "base", template)))

    return make


async def test_events(thinker: Callable[[str], None], dllm: Any) -> None:
    """Streamed and whole, in asyncio too: thinking is no text, and the message has both parts."""
    thinker(BEGUN)
    kinds = []
    for stream in (True, False):
        response = dllm.prompt("why?", stream=stream, **YES)
        events = list(response.stream_events())
        kinds.append([event.type for event in events])
        assert response.text() == "yes"
        [message] = response.messages()
        thought, said = message.parts
        assert isinstance(thought, ReasoningPart)
        assert isinstance(said, TextPart)
        assert thought.text == "".join(event.chunk for event in events if event.type == "reasoning") != ""
        assert said.text == "yes"
        details: Any = response.token_details
        assert details["reasoning_tokens"] == (response.output_tokens or 0) - len("yes")
    assert kinds[0].count("reasoning") > 1
    assert kinds[1] == ["reasoning", "text"]
    later: Any = llm.get_async_model("dllm").prompt("why?", **YES)
    assert [event.type async for event in later.astream_events()] == kinds[0]
    assert await later.text() == "yes"


def test_shown_and_logged(thinker: Callable[[str], None], run: Run) -> None:
    """On stderr, unless it is hidden; in the log as reasoning, apart from the answer."""
    thinker(BEGUN)
    ask = ("-m", "dllm", "why?", "-o", "regex", "yes", "-o", "max_tokens", "30")
    shown, hidden = run(*ask), run(*ask, "-R")
    assert shown.stdout.strip() == hidden.stdout.strip() == "yes"
    [entry] = json.loads(run("logs", "--json", "-n", "1").stdout)
    thought = entry["reasoning"]
    assert thought
    assert entry["response"] == "yes"
    assert thought in shown.stderr
    assert thought not in hidden.stderr
    watched = run("dllm", "watch", *ask[2:])
    assert watched.stdout.startswith("yes\n")
    assert thought in watched.stderr


def test_conversations(thinker: Callable[[str], None], dllm: llm.Model) -> None:
    """The next prompt has what was thought where the template wants it."""
    thinker(BRACKETS)
    conversation = dllm.conversation()
    first = conversation.prompt("why?", thinking=True, **YES)
    assert first.text() == "yes"
    [message] = first.messages()
    thought = message.parts[0].text
    second = conversation.prompt("how?", **YES)
    chat = chat_of(second.prompt)
    assert chat[1] == {"role": "assistant", "content": "yes", "reasoning_content": thought}
    assert second.text() == "yes"
    model = loaded_model().model
    assert f"[THINK]{thought}[/THINK]yes[/assistant]" in model.tokenizer.decode(model.encode_chat(chat))


def test_the_switch(thinker: Callable[[str], None], run: Run) -> None:
    """An option; refused where the template has none, and where there is no answer to think about."""
    thinker(BRACKETS)
    ask = ("-m", "dllm", "why?", "-o", "max_tokens", "8")
    on, off = run(*ask, "-o", "thinking", "true"), run(*ask, "-o", "thinking", "false")
    assert on.stdout.strip() == ""
    assert off.stdout.strip()
    assert (
        "no meaning beside -o thinking true" in run(*ask, "-o", "suffix", "a", "-o", "thinking", "true", code=1).output
    )
    assert "about answers" in run("dllm", "fill", "a<fill>b", "-o", "thinking", "true", code=1).output


def test_no_switch(run: Run) -> None:
    result = run("-m", "dllm", "why?", "-o", "thinking", "false", code=1)
    assert "no switch" in result.output
