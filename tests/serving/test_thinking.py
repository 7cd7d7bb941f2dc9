"""Models that think first, asked by the official client: thoughts stand apart in every interface."""

from collections.abc import Iterator
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any
from typing import Literal

import llm
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from pydantic import SecretStr

from dllm_plugins import Finish
from dllm_plugins import Regex
from dllm_plugins import SamplingConfig
from dllm_plugins.serving.background import Background
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings
from dllm_plugins.sharing import SharedModel
from dllm_plugins.tools.tool import Tool

CHAT: Any = [{"role": "user", "content": "why?"}]
SCHEMA: Any = {"type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"]}
CLOCK: Any = {"type": "function", "function": {"name": "clock", "parameters": SCHEMA}}
MOST = 40


class Zone(BaseModel):
    """What an answer must be."""

    zone: Literal["UTC", "CET"]


@pytest.fixture(scope="module")
def client(thinker: Loading, held_thinker: SharedModel) -> Iterator[openai.OpenAI]:
    with (
        Background(ServerSettings(models={"thinker": thinker})) as server,
        openai.OpenAI(base_url=server.address, api_key="none", max_retries=0, timeout=120) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def expected(held_thinker: SharedModel) -> Finish:
    """What the engine alone answers, held to a word."""
    return answered(held_thinker, constraint=Regex("yes, no"))


def answered(held_thinker: SharedModel, tools: Any = (), choice: str = "auto", **options: Any) -> Finish:
    model = held_thinker.model
    request = model.chat_request(CHAT, SamplingConfig(max_new_tokens=MOST, **options), tools, choice)
    return model.engine().generate([request])[0]


def asked(client: openai.OpenAI, **more: Any) -> Any:
    own = {"extra_body": {"dllm": {"regex": "yes, no"}}}
    return client.chat.completions.create(**{"model": "thinker", "messages": CHAT, "max_tokens": MOST, **own, **more})


def test_chats(client: openai.OpenAI, expected: Finish) -> None:
    """`reasoning_content` beside `content`, whole and streamed; tokens are counted; stop strings are about the text."""
    answer = asked(client)
    message = answer.choices[0].message
    assert message.content == expected.text == "yes, no"
    assert message.reasoning_content == expected.reasoning != ""
    assert answer.usage.completion_tokens_details.reasoning_tokens == expected.usage.reasoning_tokens
    chunks = list(asked(client, stream=True, stream_options={"include_usage": True}))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    thoughts = [delta.reasoning_content for delta in deltas if hasattr(delta, "reasoning_content")]
    assert len(thoughts) > 1
    assert "".join(thoughts) == expected.reasoning
    assert "".join(delta.content or "" for delta in deltas) == "yes, no"
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == expected.usage.reasoning_tokens
    letter = next(letter for letter in expected.reasoning if letter.isascii() and letter.strip())
    cut = asked(client, stop=[", ", letter * 9])
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("yes", "stop")
    assert cut.choices[0].message.reasoning_content == expected.reasoning


def test_several_with_drafts_and_log_probabilities(client: openai.OpenAI, held_thinker: SharedModel) -> None:
    """Each as it is alone."""
    options: dict[str, Any] = {"temperature": 1.0, "seed": 3}
    own = {"dllm": {"regex": "yes, no", "mode": "diffusion", "draft_events": True}}
    chunks = list(asked(client, n=2, stream=True, logprobs=True, extra_body=own, **options))
    for place in range(2):
        alone = {**options, "seed": 3 + place, "mode": "diffusion", "constraint": Regex("yes, no"), "logprobs": 0}
        finish = answered(held_thinker, **alone)
        choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == place]
        assert "".join(getattr(choice.delta, "reasoning_content", "") for choice in choices) == finish.reasoning
        assert "".join(choice.delta.content or "" for choice in choices) == finish.text
        said = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content]
        assert len(said) == len(finish.tokens)
    drafts = [chunk.dllm["draft"] for chunk in chunks if "draft" in (getattr(chunk, "dllm", None) or {})]
    assert any(draft.get("reasoning") for draft in drafts)


def test_clients_that_do_not_look(client: openai.OpenAI, expected: Finish, llm_folder: Path) -> None:
    """Are told what is said and nothing else, and count the rest."""
    chat = ChatOpenAI(base_url=str(client.base_url), api_key=SecretStr("none"), model="thinker", max_retries=0)
    bound = chat.bind(max_tokens=MOST, extra_body={"dllm": {"regex": "yes, no"}})
    for message in (bound.invoke("why?"), reduce(add, bound.stream("why?"))):
        assert message.content == "yes, no"
    usage: Any = bound.invoke("why?").usage_metadata
    assert usage["output_token_details"]["reasoning"] == expected.usage.reasoning_tokens
    lines = ["- model_id: served", "  model_name: thinker", f'  api_base: "{client.base_url}"']
    (llm_folder / "extra-openai-models.yaml").write_text("\n".join(lines))
    response = llm.get_model("served").prompt("why?", key="none", stream=True, max_tokens=MOST)
    assert response.text() == ""
    details: Any = response.token_details
    assert details["completion_tokens_details"]["reasoning_tokens"] == MOST


def test_the_switch(client: openai.OpenAI, held_thinker: SharedModel) -> None:
    """An option of ours; other names of it are refused with ours."""
    for wanted in (True, False):
        answer = asked(client, max_tokens=4, extra_body={"dllm": {"thinking": wanted}})
        assert answer.usage.prompt_tokens == len(held_thinker.model.encode_chat(CHAT, thinking=wanted))
        message = answer.choices[0].message
        assert (hasattr(message, "reasoning_content"), bool(message.content)) == (wanted, not wanted)
    with pytest.raises(openai.BadRequestError, match=r"dllm.*thinking"):
        asked(client, reasoning_effort="high")
    with pytest.raises(openai.BadRequestError, match=r"dllm\.thinking.*true or false"):
        asked(client, extra_body={"dllm": {"thinking": "yes"}})
    with pytest.raises(openai.BadRequestError, match=r"dllm\.thinking is about chats"):
        client.completions.create(model="thinker", prompt="a", extra_body={"dllm": {"thinking": True}})


def test_calls_behind_thoughts(client: openai.OpenAI, held_thinker: SharedModel) -> None:
    """By the client's helper for streams, too; and a round is told the thought before its call."""
    given: dict[str, Any] = {"tools": [CLOCK], "tool_choice": "required", "max_tokens": 110}
    message: Any = client.chat.completions.create(model="thinker", messages=CHAT, **given).choices[0].message
    with client.chat.completions.stream(model="thinker", messages=CHAT, **given) as stream:
        kinds = [event.type for event in stream]
        streamed: Any = stream.get_final_completion().choices[0]
    assert kinds.count("tool_calls.function.arguments.delta") > 0
    assert kinds.count("tool_calls.function.arguments.done") == 1
    [one], [other] = message.tool_calls, streamed.message.tool_calls
    assert one.function.arguments == other.function.arguments
    assert streamed.message.reasoning_content == message.reasoning_content != ""
    # Random weights think until there is room for nothing but the call, and that is whole.
    assert streamed.finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": one.id, "content": "noon"}
    again = client.chat.completions.create(
        model="thinker", messages=[*CHAT, message.to_dict(), result], tools=[CLOCK], max_tokens=20
    )
    call = {"function": {"name": "clock", "arguments": one.function.arguments}}
    thought = message.reasoning_content
    turn = {"role": "assistant", "content": "", "reasoning_content": thought, "tool_calls": [call]}
    history = [*CHAT, turn, {"role": "tool", "content": "noon"}]
    prompt = held_thinker.model.encode_chat(history, [Tool("clock", "", SCHEMA)])
    assert again.usage is not None
    assert again.usage.prompt_tokens == len(prompt)


def test_structured_output(client: openai.OpenAI) -> None:
    """Behind thoughts that have used all the room but for it."""
    given: dict[str, Any] = {"model": "thinker", "messages": CHAT, "response_format": Zone, "max_tokens": MOST + 10}
    choice = client.chat.completions.parse(**given).choices[0]
    assert choice.finish_reason == "stop"
    assert isinstance(choice.message.parsed, Zone)
    parsed = client.responses.parse(model="thinker", input="why?", text_format=Zone, max_output_tokens=MOST + 10)
    assert (parsed.status, parsed.output_parsed) == ("completed", choice.message.parsed)


def test_responses(client: openai.OpenAI, held_thinker: SharedModel, expected: Finish) -> None:
    """An item of thinking before the message, whole and by the helper for streams; both go back into a prompt."""
    own: dict[str, Any] = {"max_output_tokens": MOST, "extra_body": {"dllm": {"regex": "yes, no"}}}
    answer = client.responses.create(model="thinker", input="why?", **own)
    thought, said = answer.output
    assert (thought.type, said.type) == ("reasoning", "message")
    assert thought.type == "reasoning" and thought.content
    assert thought.content[0].text == expected.reasoning
    assert answer.output_text == "yes, no"
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens == expected.usage.reasoning_tokens
    with client.responses.stream(model="thinker", input="why?", **own) as stream:
        found: list[Any] = list(stream)
    final = found[-1].response
    assert (
        "".join(event.delta for event in found if event.type == "response.reasoning_text.delta") == expected.reasoning
    )
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.output_text == "yes, no"
    history: Any = [*CHAT, *(item.to_dict() for item in answer.output), {"role": "user", "content": "how?"}]
    again = client.responses.create(model="thinker", input=history, max_output_tokens=4)
    turn = {"role": "assistant", "content": "yes, no", "reasoning_content": expected.reasoning}
    assert again.usage is not None
    prompt = held_thinker.model.encode_chat([*CHAT, turn, {"role": "user", "content": "how?"}])
    assert again.usage.input_tokens == len(prompt)
