"""Clients that others wrote, against a server on loopback."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any
from typing import Literal

import llm
import openai
import pytest
from click.testing import CliRunner
from langchain_core.messages import AIMessage
from langchain_core.messages import HumanMessage
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from llm.cli import cli
from pydantic import BaseModel
from pydantic import SecretStr

from dllm_plugins import Finish
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.serving import chat as chat_requests
from dllm_plugins.serving.background import Background
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings
from dllm_plugins.sharing import SharedModel
from dllm_plugins.tools.tool import ANY

KEY = "sk-of-the-tests"
CHAT: Any = [{"role": "user", "content": "why?"}]
CLOCK: Any = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {"zone": {"enum": ["UTC"]}}}},
}


class Choice(BaseModel):
    """What an answer must be."""

    colour: Literal["red", "blue"]
    number: Literal[1, 2]


@tool
def clock(zone: Literal["UTC"]) -> str:
    """Tell the time."""
    return f"noon {zone}"


@pytest.fixture(scope="module")
def address(roomy: Loading, held_roomy: SharedModel) -> Iterator[str]:
    """Of a server that wants a key."""
    with Background(ServerSettings(models={"tiny": roomy}, keys=frozenset({KEY}))) as server:
        yield server.address


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    """The official one."""
    with openai.OpenAI(base_url=address, api_key=KEY, max_retries=0, timeout=120) as made:
        yield made


@pytest.fixture(scope="module")
def alone(held_roomy: SharedModel) -> Finish:
    """What the engine alone answers."""
    model = held_roomy.model
    return model.engine().generate([Request(model.encode_chat(CHAT), SamplingConfig(max_new_tokens=16))])[0]


def test_openai_whole_and_streamed(client: openai.OpenAI, alone: Finish) -> None:
    """Text, usage, log-probabilities, models."""
    answer = client.chat.completions.create(
        model="tiny", messages=CHAT, max_completion_tokens=16, logprobs=True, top_logprobs=1
    )
    assert answer.choices[0].message.content == alone.text
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(alone.tokens)
    assert answer.choices[0].logprobs is not None
    assert len(answer.choices[0].logprobs.content or ()) == len(alone.tokens)
    stream = client.chat.completions.create(
        model="tiny", messages=CHAT, max_tokens=16, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == alone.text
    assert chunks[-1].usage is not None
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "dllm-plugins"


def test_openai_options_of_ours(client: openai.OpenAI) -> None:
    """In extra_body; drafts do no harm to a client that does not know them."""
    own = {"mode": "diffusion", "draft_events": True}
    stream = client.chat.completions.create(
        model="tiny", messages=CHAT, max_tokens=16, stream=True, extra_body={"dllm": own}
    )
    chunks = list(stream)
    assert [chunk for chunk in chunks if "draft" in (chunk.model_extra or {}).get("dllm", {})]
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    extra = chunks[-1].model_extra or {}
    assert extra["dllm"]["statistics"][0]["mode"] == "diffusion"


def test_openai_tools_and_structured_output(client: openai.OpenAI) -> None:
    """Calls, and answers as objects, also where they are streamed."""
    answer = client.chat.completions.create(
        model="tiny", messages=CHAT, tools=[CLOCK], tool_choice="required", max_tokens=120
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    [call] = list(answer.choices[0].message.tool_calls or ())
    assert call.type == "function"
    assert json.loads(call.function.arguments) in ({}, {"zone": "UTC"})
    given: Any = {"model": "tiny", "messages": CHAT, "tools": [CLOCK], "tool_choice": "required", "max_tokens": 120}
    with client.chat.completions.stream(**given) as stream:
        kinds = [event.type for event in stream]
        [streamed] = list(stream.get_final_completion().choices[0].message.tool_calls or ())
    assert streamed.function.arguments == call.function.arguments
    assert kinds.count("tool_calls.function.arguments.delta") > 0
    assert kinds.count("tool_calls.function.arguments.done") == 1
    parsed = client.chat.completions.parse(model="tiny", messages=CHAT, response_format=Choice, max_tokens=80)
    assert isinstance(parsed.choices[0].message.parsed, Choice)
    with client.chat.completions.stream(model="tiny", messages=CHAT, response_format=Choice, max_tokens=80) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == parsed.choices[0].message.parsed


def test_openai_completions_and_responses(client: openai.OpenAI, alone: Finish, held_roomy: SharedModel) -> None:
    """The oldest and the newest interface."""
    model = held_roomy.model
    request = Request(model.encode_text("Once"), SamplingConfig(max_new_tokens=12))
    [expected] = model.engine().generate([request])
    assert client.completions.create(model="tiny", prompt="Once", max_tokens=12).choices[0].text == expected.text
    response = client.responses.create(model="tiny", input="why?", max_output_tokens=16)
    assert response.output_text == alone.text
    stream = client.responses.create(model="tiny", input="why?", max_output_tokens=16, stream=True)
    assert "".join(event.delta for event in stream if event.type == "response.output_text.delta") == alone.text
    parsed = client.responses.parse(model="tiny", input="why?", text_format=Choice, max_output_tokens=80)
    assert isinstance(parsed.output_parsed, Choice)


def test_openai_errors(client: openai.OpenAI, address: str) -> None:
    """Each is the exception that the client has for it."""
    with pytest.raises(openai.BadRequestError, match="logit_bias") as caught:
        client.chat.completions.create(model="tiny", messages=CHAT, logit_bias={"5": 1})
    assert caught.value.param == "logit_bias"
    with pytest.raises(openai.NotFoundError, match="tiny"):
        client.chat.completions.create(model="huge", messages=CHAT)
    with (
        openai.OpenAI(base_url=address, api_key="wrong", max_retries=0) as other,
        pytest.raises(openai.AuthenticationError),
    ):
        other.models.list()


async def test_openai_async(address: str, alone: Finish) -> None:
    """Several at once, and a stream that is left early."""
    async with openai.AsyncOpenAI(base_url=address, api_key=KEY, max_retries=0, timeout=120) as client:
        ask = client.chat.completions.create
        answers = await asyncio.gather(*(ask(model="tiny", messages=CHAT, max_tokens=16) for _ in range(3)))
        assert [answer.choices[0].message.content for answer in answers] == [alone.text] * 3
        stream = await ask(model="tiny", messages=CHAT, max_tokens=16, stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream if c.choices]) == alone.text
        given: Any = {"model": "tiny", "messages": CHAT, "tools": [CLOCK], "tool_choice": "required"}
        async with client.chat.completions.stream(**given, max_tokens=120) as helper:
            kinds = [event.type async for event in helper]
        assert kinds.count("tool_calls.function.arguments.done") == 1
        left = await ask(model="tiny", messages=CHAT, max_tokens=2000, stream=True, extra_body={"dllm": {"mode": "ar"}})
        async for _ in left:
            break
        await left.close()
        async with asyncio.timeout(60):
            while 'dllm_working{model="tiny"} 0.0' not in await _metrics(client):
                await asyncio.sleep(0.01)
        assert 'dllm_left_total{model="tiny"} 1.0' in await _metrics(client)


async def _metrics(client: openai.AsyncOpenAI) -> str:
    answer = await client._client.get(
        str(client.base_url).replace("/v1/", "/metrics"), headers={"Authorization": f"Bearer {KEY}"}
    )
    return str(answer.text)


def test_langchain(address: str, alone: Finish) -> None:
    """ChatOpenAI by its base_url: whole, streamed, tools and back, structured."""
    chat = ChatOpenAI(base_url=address, api_key=SecretStr(KEY), model="tiny", max_retries=0, timeout=120)
    short = chat.bind(max_tokens=16)
    message = short.invoke("why?")
    assert isinstance(message, AIMessage)
    assert message.content == alone.text
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] == len(alone.tokens)
    assert "".join(str(chunk.content) for chunk in short.stream("why?")) == alone.text
    bound = chat.bind_tools([clock], tool_choice="any").bind(max_tokens=120)
    called = bound.invoke("why?")
    assert isinstance(called, AIMessage)
    [call] = called.tool_calls
    assert call["args"] == {"zone": "UTC"}
    chunks: list[Any] = list(bound.stream("why?"))
    pieces = [piece for chunk in chunks for piece in chunk.tool_call_chunks]
    assert len(pieces) > 1
    assert json.loads("".join(piece["args"] or "" for piece in pieces)) == {"zone": "UTC"}
    cut: Any = reduce(add, bound.bind(stop=["UT"]).stream("why?"))
    assert (cut.tool_calls, len(cut.invalid_tool_calls)) == ([], 1)
    history = [HumanMessage("why?"), called, ToolMessage("noon", tool_call_id=call["id"])]
    assert isinstance(chat.bind_tools([clock]).bind(max_tokens=8).invoke(history).content, str)
    found: Any = chat.with_structured_output(Choice).with_config().invoke("why?", max_tokens=80)
    assert isinstance(found, Choice)


def test_llm(address: str, alone: Finish, llm_folder: Path) -> None:
    """As one of its extra models, streamed and whole, and by a schema."""
    lines = ["- model_id: served", "  model_name: tiny", f'  api_base: "{address}"', "  api_key_name: served"]
    more = ["  supports_schema: true", "  supports_tools: true"]
    (llm_folder / "extra-openai-models.yaml").write_text("\n".join([*lines, *more]))
    (llm_folder / "keys.json").write_text(json.dumps({"served": KEY}))
    for own in ([], ["--no-stream"]):
        result = CliRunner().invoke(cli, ["-m", "served", "why?", "-o", "max_tokens", "16", *own])
        assert result.exit_code == 0, result.output
        assert result.output.rstrip("\n") == alone.text.rstrip("\n")
    result = CliRunner().invoke(
        cli, ["-m", "served", "why?", "-o", "max_tokens", "80", "--schema", json.dumps(Choice.model_json_schema())]
    )
    assert result.exit_code == 0, result.output
    assert Choice.model_validate_json(result.output)


def _noon(zone: str) -> str:
    """Tell the time."""
    return f"noon {zone}"


def test_llm_calls(address: str, llm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamed and whole; the model has no choice, as one of random weights would choose not to."""
    monkeypatch.setattr(chat_requests, "choice_of", lambda _given, _tools: ANY)
    lines = ["- model_id: served", "  model_name: tiny", f'  api_base: "{address}"', "  api_key_name: served"]
    (llm_folder / "extra-openai-models.yaml").write_text("\n".join([*lines, "  supports_tools: true"]))
    (llm_folder / "keys.json").write_text(json.dumps({"served": KEY}))
    for streams in (True, False):
        response = llm.get_model("served").prompt("why?", tools=[_noon], stream=streams, max_tokens=120)
        [call] = response.tool_calls()
        assert (call.name, set(call.arguments)) == ("_noon", {"zone"})


#: In a process of its own: it warns of what it imports, and changes other clients of the process.
LITELLM = """
import sys
import litellm

litellm.suppress_debug_info = True
asked = {"model": "openai/tiny", "messages": [{"role": "user", "content": "why?"}], "max_tokens": 16}
asked |= {"api_base": sys.argv[1], "api_key": sys.argv[2], "num_retries": 0}
whole = litellm.completion(**asked)
pieces = litellm.completion(**asked, stream=True, stream_options={"include_usage": True})
streamed = "".join(choice.delta.content or "" for piece in pieces for choice in piece.choices)
assert streamed == whole.choices[0].message.content, (streamed, whole)
try:
    litellm.completion(**asked | {"api_key": "wrong"})
except litellm.AuthenticationError:
    print(whole.choices[0].message.content, whole.usage.completion_tokens, end="")
"""


@pytest.mark.slow
def test_litellm(address: str, alone: Finish) -> None:
    """Whole, streamed, refused."""
    offline = os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [sys.executable, "-c", LITELLM, address, KEY]
    found = subprocess.run(command, capture_output=True, check=False, timeout=300, env=offline)
    assert found.returncode == 0, found.stderr.decode()
    assert found.stdout.decode() == f"{alone.text} {len(alone.tokens)}"


def test_curl(address: str, alone: Finish) -> None:
    """Whole and streamed."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    body: dict[str, Any] = {"model": "tiny", "messages": CHAT, "max_tokens": 16}
    common = ["curl", "-sS", f"{address}/chat/completions", "-H", f"Authorization: Bearer {KEY}"]
    common += ["-H", "Content-Type: application/json", "-d"]
    whole = subprocess.run([*common, json.dumps(body)], capture_output=True, check=True, timeout=120)
    assert json.loads(whole.stdout)["choices"][0]["message"]["content"] == alone.text
    streamed = subprocess.run(
        [*common, json.dumps(body | {"stream": True})], capture_output=True, check=True, timeout=120
    )
    assert streamed.stdout.endswith(b"data: [DONE]\n\n")
