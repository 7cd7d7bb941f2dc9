"""/v1/chat/completions: every answer is the engine's own, whole and streamed; what cannot be honoured is refused."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from dllm_plugins import Finish

from .asking import CHAT
from .asking import asked
from .asking import body
from .asking import refused
from .asking import streamed
from .asking import text_of


async def test_whole_and_streamed_answers_are_the_engine_s(
    client: httpx.AsyncClient, alone: Callable[..., Finish]
) -> None:
    """With its text, its figures and the reason of its end."""
    expected = alone("why?")
    answer = await asked(client)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == "tiny"
    [choice] = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": expected.text, "refusal": None}
    assert choice["finish_reason"] == {"length": "length", "eos": "stop"}[expected.reason]
    usage = answer["usage"]
    assert usage["completion_tokens"] == len(expected.tokens)
    assert usage["prompt_tokens"] == expected.usage.prompt_tokens
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    found = await streamed(client, stream_options={"include_usage": True})
    assert text_of(found) == expected.text
    assert found[0][1]["choices"][0]["delta"]["role"] == "assistant"
    assert found[-1] == ("", "[DONE]")
    assert found[-2][1]["choices"] == []
    assert found[-2][1]["usage"]["completion_tokens"] == usage["completion_tokens"]
    assert found[-3][1]["choices"][0]["finish_reason"] == choice["finish_reason"]
    assert len({data["id"] for _, data in found[:-1]}) == 1
    assert all("usage" not in data for _, data in (await streamed(client))[:-1])


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"temperature": 0.9, "seed": 5}, {"temperature": 0.9, "seed": 5}),
        ({"temperature": 0.9, "seed": 5, "top_p": 0.5}, {"temperature": 0.9, "seed": 5, "top_p": 0.5}),
        ({"top_p": 0.5, "seed": 5}, {"temperature": 1.0, "seed": 5, "top_p": 0.5}),
        ({"temperature": 0, "top_p": 0.5}, {}),
        ({"max_tokens": None, "max_completion_tokens": 7}, {"max_new_tokens": 7}),
        ({"dllm": {"mode": "ar", "repetition_penalty": 1.5}}, {"mode": "ar", "repetition_penalty": 1.5}),
        ({"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "store": False, "n": 1}, {}),
        ({"logprobs": None, "tools": None, "user": None}, {}),
    ],
)
async def test_options(
    client: httpx.AsyncClient, alone: Callable[..., Finish], given: dict[str, Any], options: dict[str, Any]
) -> None:
    """Each is the engine's option, and what asks for nothing changes nothing."""
    answer = await asked(client, **given)
    assert answer["choices"][0]["message"]["content"] == alone("why?", **options).text


async def test_stop_strings(client: httpx.AsyncClient, alone: Callable[..., Finish]) -> None:
    """They end the answer and are no part of it."""
    whole = alone("why?").text
    stop = whole[5:7]
    for given in (stop, [stop, "never there"]):
        [choice] = (await asked(client, stop=given))["choices"]
        assert choice["finish_reason"] == "stop"
        assert choice["message"]["content"] == whole[: whole.index(stop)]
        assert text_of(await streamed(client, stop=given)) == whole[: whole.index(stop)]


async def test_several_answers(client: httpx.AsyncClient, alone: Callable[..., Finish]) -> None:
    """The first has the seed, the next that and one; the prompt counts once."""
    options: dict[str, Any] = {"temperature": 1.0, "seed": 7}
    expected = [alone("why?", **{**options, "seed": 7 + place}) for place in range(3)]
    answer = await asked(client, n=3, **options)
    assert [choice["message"]["content"] for choice in answer["choices"]] == [finish.text for finish in expected]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert answer["usage"]["prompt_tokens"] == expected[0].usage.prompt_tokens
    assert answer["usage"]["completion_tokens"] == sum(len(finish.tokens) for finish in expected)
    found = await streamed(client, n=3, **options)
    assert [text_of(found, place) for place in range(3)] == [finish.text for finish in expected]


async def test_many_at_once_are_answered_as_alone(client: httpx.AsyncClient, alone: Callable[..., Finish]) -> None:
    """Questions of unequal length, greedy and sampled."""
    questions = ["why?" + " or how?" * number for number in range(6)]
    options = [{"temperature": 0.8, "seed": number} if number % 2 else {} for number in range(6)]
    answers = await asyncio.gather(
        *(asked(client, question, **own) for question, own in zip(questions, options, strict=True))
    )
    expected = [alone(question, **own).text for question, own in zip(questions, options, strict=True)]
    assert [answer["choices"][0]["message"]["content"] for answer in answers] == expected


async def test_log_probabilities(client: httpx.AsyncClient, alone: Callable[..., Finish]) -> None:
    """Of each token, with alternatives, whole and streamed."""
    expected = alone("why?", logprobs=2)
    assert expected.logprobs is not None
    values = [said.logprob for said in expected.logprobs[: len(expected.tokens)]]
    [choice] = (await asked(client, logprobs=True, top_logprobs=2))["choices"]
    content = choice["logprobs"]["content"]
    assert [entry["logprob"] for entry in content] == values
    assert all(len(entry["top_logprobs"]) == 2 for entry in content)
    found = await streamed(client, logprobs=True, top_logprobs=2)
    chunks = [data["choices"][0]["logprobs"] for _, data in found[:-1] if data["choices"]]
    assert [entry["logprob"] for said in chunks if said for entry in said["content"]] == values
    [plain] = (await asked(client))["choices"]
    assert plain["logprobs"] is None


async def test_drafts_are_events_of_their_own(client: httpx.AsyncClient, alone: Callable[..., Finish]) -> None:
    """Only where they are asked for; texts are the same; every draft says what stands where, and how sure it is."""
    own = {"mode": "diffusion", "steps": 8, "block_length": 8}
    expected = alone("why?", **own).text
    found = await streamed(client, dllm={**own, "draft_events": True})
    drafts = [data for name, data in found if name == "draft"]
    assert drafts
    assert text_of(found) == expected
    for data in drafts:
        assert data["choices"] == []
        told = data["dllm"]["draft"]
        assert expected.startswith(told["committed"])
        assert all(cell["text"] == "" for cell in told["tokens"] if cell["state"] == "open")
        settled = [cell["text"] for cell in told["tokens"] if not cell.get("special")]
        assert "".join(settled).strip("\ufffd") in told["text"].replace("·", "")
    cells = [cell for data in drafts for cell in data["dllm"]["draft"]["tokens"]]
    assert {cell["state"] for cell in cells} & {"guess", "committed"}
    assert any(cell["confidence"] is not None and 0 < cell["confidence"] <= 1 for cell in cells)
    assert {name for name, _ in await streamed(client, dllm=own)} == {""}
    [statistics] = found[-2][1]["dllm"]["statistics"]
    assert statistics["mode"] == "diffusion"
    assert statistics["total_passes"] > 0


async def test_json(client: httpx.AsyncClient) -> None:
    """An answer that is held to a schema, to any object, to a regular expression."""
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    described = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    text = text_of(await streamed(client, response_format=described, max_tokens=64))
    assert json.loads(text)["a"] in (1, 2)
    [choice] = (await asked(client, response_format=described, max_tokens=64))["choices"]
    assert choice["message"]["content"] == text
    [choice] = (await asked(client, response_format={"type": "json_object"}, max_tokens=64))["choices"]
    assert choice["message"]["content"].startswith("{")
    [choice] = (await asked(client, dllm={"regex": "(yes|no)"}))["choices"]
    assert choice["message"]["content"] in ("yes", "no")
    [choice] = (await asked(client, dllm={"grammar": 'start: "yes" | "no"'}))["choices"]
    assert choice["message"]["content"] in ("yes", "no")
    [choice] = (await asked(client, response_format={"type": "text"}))["choices"]
    assert choice["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"frequency_penalty": 0.5}, "frequency_penalty", "frequency_penalty"),
        ({"user": "somebody"}, "user", "user"),
        ({"top_k": 5}, "top_k", '"dllm"'),
        ({"temperature": 3}, "temperature", "3"),
        ({"temperature": "hot"}, "temperature", "hot"),
        ({"n": 0}, "n", "0"),
        ({"seed": -1}, "seed", "-1"),
        ({"stop": [""]}, "stop", "empty"),
        ({"messages": []}, "messages", "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages", "empty"),
        ({"messages": [{"role": "user", "content": "x" * 9999}]}, "messages", "shorten"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "robot"),
        ({"messages": [{"role": "user", "content": "x", "colour": 1}]}, "messages.0.colour", "colour"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content", "text only"),
        ({"model": None}, "model", "missing"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "say stream"),
        ({"dllm": {"colour": 1}}, "dllm.colour", "block_length"),
        ({"dllm": {"max_new_tokens": 1}}, "dllm.max_new_tokens", "max_tokens"),
        ({"dllm": {"block_length": -1}}, "dllm.block_length", "-1"),
        ({"dllm": {"draft_events": True}}, "dllm.draft_events", "stream"),
        ({"dllm": {"mode": "fast"}}, "dllm.mode", "speculative"),
        ({"dllm": {"mode": "ar", "steps": 3}}, "dllm.steps", "steps"),
        ({"response_format": {"type": "xml"}}, "response_format", "xml"),
        ({"max_completion_tokens": 5}, "max_tokens", "contradicts"),
        ({"tool_choice": "required"}, "tool_choice", "no tools"),
    ],
)
async def test_what_is_refused(client: httpx.AsyncClient, given: dict[str, Any], param: str | None, words: str) -> None:
    """By 400, naming the field and what mends it; nothing is ignored."""
    status, error = await refused(client, json=body(**given))
    assert status == 400
    assert error["type"] == "invalid_request_error"
    assert words in error["message"]
    assert error["param"] == param


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"{", "no JSON"), (b"[1]", "JSON object"), (b"7", "JSON object"), (b'"\xff"', "JSON"), (b"", "JSON")],
)
async def test_bodies_that_are_none(client: httpx.AsyncClient, content: bytes, words: str) -> None:
    """Also what is JSON, but no object."""
    status, error = await refused(client, content=content, headers={"Content-Type": "application/json"})
    assert status == 400
    assert words in error["message"]


async def test_half_a_character_is_refused_and_told(client: httpx.AsyncClient) -> None:
    """Half a surrogate pair is no text, neither in a prompt nor in what is said of it."""
    headers = {"Content-Type": "application/json"}
    for text in ('{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', '{"model": "\\ud800"}'):
        status, _ = await refused(client, content=text.encode(), headers=headers)
        assert status == 400


async def test_what_is_no_address(client: httpx.AsyncClient) -> None:
    """However long, it is named shortly; where it takes other methods, they are told."""
    answer = await client.get(f"/v1/{'x' * 50_000}")
    assert answer.status_code == 404 and len(answer.content) < 300
    answer = await client.get(CHAT)
    assert answer.status_code == 405 and answer.headers["Allow"] == "POST"


async def test_models(client: httpx.AsyncClient) -> None:
    """They are listed, and others are not there."""
    listed = (await client.get("/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["tiny"]
    assert (await client.get("/v1/models/tiny")).json() == listed["data"][0]
    for answer in (await client.get("/v1/models/big"), await client.post(CHAT, json=body(model="big"))):
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
        assert "tiny" in answer.json()["error"]["message"]
    answer = await client.get("/v2/nothing")
    assert answer.status_code == 404
    assert "/v2/nothing" in answer.json()["error"]["message"]


async def test_health_and_metrics(client: httpx.AsyncClient) -> None:
    """What was done is counted."""
    assert (await client.get("/health")).json() == {"status": "ok"}
    answer = await asked(client)
    await refused(client, json=body(n=0))
    text = (await client.get("/metrics")).text
    assert 'dllm_requests_total{endpoint="chat",model="tiny",status="200"} 1.0' in text
    assert 'dllm_requests_total{endpoint="chat",model="",status="400"} 1.0' in text
    tokens = float(answer["usage"]["completion_tokens"])
    assert f'dllm_tokens_total{{kind="answer",model="tiny"}} {tokens}' in text
    assert 'dllm_first_text_seconds_count{model="tiny"} 1.0' in text
    assert 'dllm_working{model="tiny"} 0.0' in text
