"""Bodies by the thousand, most of them wrong: each is answered, or refused by a 400 that names a field; never a 500."""

import asyncio
import json
import os
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies

from dllm_plugins.serving.app import create_app
from dllm_plugins.serving.chat import ChatRequest
from dllm_plugins.serving.completions import CompletionRequest
from dllm_plugins.serving.errors import OURS
from dllm_plugins.serving.fields import RequestFields
from dllm_plugins.serving.responses import ResponseRequest
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings

from .asking import CHAT
from .asking import events

#: Of each endpoint; more where somebody asks for them, and others each time.
EXAMPLES = int(os.environ.get("DLLM_FUZZ_BODIES", "120"))
SHORT: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "why?"}], "max_tokens": 1},
    "/v1/completions": {"prompt": "why?", "max_tokens": 1},
    "/v1/responses": {"input": "why?", "max_output_tokens": 1},
}
SHAPES: dict[str, type[RequestFields]] = {
    CHAT: ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponseRequest,
}
#: What clients send that know other servers.
FOREIGN = ("top_k", "logit_bias", "best_of", "echo", "functions", "user", "min_p", "previous_response_id", "")
LEAVES = (
    strategies.none()
    | strategies.booleans()
    | strategies.integers(-(2**70), 2**70)
    | strategies.floats(allow_nan=False, allow_infinity=False)
    | strategies.text(max_size=8)
    | strategies.sampled_from(["auto", "none", "required", "user", "function", "text", "json_object", "json_schema"])
)
WORDS = ("type", "role", "content", "name", "function", "json_schema", "schema", "strict", "text", "arguments", "id")
NAMES = strategies.sampled_from(WORDS) | strategies.text(max_size=4)
VALUES = strategies.recursive(
    LEAVES,
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
#: These decide how long an answer takes: what may be honoured is small.
FEW = LEAVES.filter(lambda value: not isinstance(value, int) or value < 3)


def changes(path: str) -> strategies.SearchStrategy[dict[str, Any]]:
    """Up to four fields and what becomes of them."""
    known = [name for name in SHAPES[path].model_fields if "tokens" not in name and name not in ("n", "model", "dllm")]
    few = [name for name in SHAPES[path].model_fields if "tokens" in name or name == "n"]
    own = strategies.dictionaries(strategies.sampled_from(sorted(OURS)), VALUES, max_size=2)
    fields = strategies.dictionaries(strategies.sampled_from([*known, *FOREIGN]), VALUES, max_size=3)
    return strategies.builds(
        lambda fields, few, own: fields | few | own,
        fields,
        strategies.dictionaries(strategies.sampled_from(few), FEW, max_size=1),
        strategies.just({}) | strategies.builds(lambda value: {"dllm": value}, own | VALUES),
    )


Post = Callable[[str, Any], httpx.Response]


@pytest.fixture(scope="module")
def post(loading: Loading) -> Iterator[Post]:
    """Sends a body to a server that serves all tests of this file."""
    app: FastAPI = create_app(ServerSettings(models={"tiny": loading}))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60)

    with asyncio.Runner() as runner:
        yield lambda path, body: runner.run(client.post(path, json=body))
        runner.run(client.aclose())
        runner.run(app.state.service.models.close())


def refused_well(answer: httpx.Response) -> None:
    """The error has OpenAI's shape, and says something."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"] == "invalid_request_error"


def answered_well(answer: httpx.Response, path: str) -> None:
    """A whole answer, or a stream that ends as it should."""
    if answer.headers["content-type"].startswith("text/event-stream"):
        name, data = events(answer.text)[-1]
        assert data == "[DONE]" or name in ("response.completed", "response.incomplete"), (name, data)
    else:
        assert "output" in answer.json() if path == "/v1/responses" else answer.json()["choices"]


@pytest.mark.slow
@pytest.mark.parametrize("path", SHORT)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="DLLM_FUZZ_BODIES" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=strategies.data())
def test_bodies(post: Post, path: str, data: strategies.DataObject) -> None:
    """Whatever is said of whichever fields."""
    body = {"model": "tiny", **SHORT[path], **data.draw(changes(path))}
    answer = post(path, body)
    told = f"{json.dumps(body)} -> {answer.status_code} {answer.text[:500]}"
    assert answer.status_code in (200, 400), told
    if answer.status_code == 400:
        refused_well(answer)
    else:
        answered_well(answer, path)


@pytest.mark.parametrize("path", SHORT)
@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(body=VALUES)
def test_anything_else_is_refused(post: Post, path: str, body: Any) -> None:
    """What is no request at all."""
    answer = post(path, body)
    assert answer.status_code == 400, (body, answer.text)
    refused_well(answer)
