"""`transformers serve` with a registered model: an OpenAI-like server over the engine."""

import inspect
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers import GenerationConfig
from transformers import PreTrainedTokenizerBase
from transformers.cli.serving import server as server_module
from transformers.cli.serving import utils
from transformers.cli.serving.chat_completion import ChatCompletionHandler
from transformers.cli.serving.completion import CompletionHandler
from transformers.cli.serving.model_manager import ModelManager
from transformers.cli.serving.response import ResponseHandler

import dllm_transformers  # noqa: F401  registers the Auto classes
from dllm_plugins.errors import CheckpointError
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import PassError
from dllm_plugins.errors import RequestError
from dllm_transformers import serving


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers of this process are changed until the test ends."""
    for name in ("generate_streaming", "generate_non_streaming"):
        monkeypatch.setattr(utils.GenerateManager, name, getattr(utils.GenerateManager, name))
    monkeypatch.setattr(server_module, "build_server", server_module.build_server)
    serving.prepare()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of `python -m dllm_transformers serve`."""
    port = free_port()
    command = [sys.executable, "-m", "dllm_transformers", "serve", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with (tmp_path / "log").open("wb") as log:
        arguments = [*command, "--device", "cpu", "--dtype", "float32"]
        process = subprocess.Popen(arguments, stdout=log, stderr=log, env=environment)
        try:
            address = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 120
            while True:
                try:
                    httpx.get(f"{address}/health", timeout=2).raise_for_status()
                    break
                except httpx.HTTPError:
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                    time.sleep(0.2)
            yield address
        finally:
            process.terminate()
            process.wait(30)


def text_of(lines: Iterator[str]) -> str:
    """The text of a stream of server-sent events."""
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: ") and line != "data: [DONE]"]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@pytest.mark.slow
def test_chat_completions(server: str, checkpoint: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Whole and streamed, the text that `generate` of the same checkpoint gives."""
    chat = [{"role": "user", "content": "why?"}]
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    ids: Any = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=16, do_sample=False)[0, ids["input_ids"].shape[1] :]
    expected = str(tokenizer.decode(answer, skip_special_tokens=True))
    body = {"model": str(checkpoint), "messages": chat, "max_tokens": 16, "temperature": 0}
    with httpx.Client(base_url=server, timeout=120) as client:
        whole = client.post("/v1/chat/completions", json=body).raise_for_status().json()
        assert whole["choices"][0]["message"]["content"] == expected
        with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as stream:
            # transformers' incremental decoder holds back half a character for good.
            assert text_of(stream.iter_lines()) == expected.rstrip("\ufffd")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RequestError("the prompt is empty"), 400),
        (OptionError("option seed"), 400),
        (CheckpointError("no such model"), 404),
        (OSError("someone/nothing is not a local folder"), 404),
        (PassError("a pass failed"), 500),
    ],
)
@pytest.mark.usefixtures("prepared")
async def test_what_is_raised_is_answered(error: Exception, status: int) -> None:
    """With a status that says whose fault it is, and the reason."""

    class Handler:
        async def handle_request(self, *_given: Any) -> None:
            raise error

    names = list(inspect.signature(server_module.build_server).parameters)
    handlers: dict[str, Any] = {name: Handler() for name in names if name != "enable_cors"}
    app = server_module.build_server(**handlers)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, False), base_url="http://here") as client:
        answer = await client.post("/v1/chat/completions", json={"model": "someone/nothing"})
    assert answer.status_code == status
    assert answer.json()["error"]["message"] == str(error)


def test_the_server_asks_for_no_more_than_the_context_holds(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it says `length` where the context ends an answer."""
    for name in ("generate_streaming", "generate_non_streaming"):
        monkeypatch.setattr(utils.GenerateManager, name, lambda *given: given[4].max_new_tokens)
    monkeypatch.setattr(server_module, "build_server", server_module.build_server)
    serving.prepare()
    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint)
    generate: Any = utils.GenerateManager.generate_streaming
    for asked, room in ((1024, 12), (5, 5), (None, None)):
        config = GenerationConfig(max_new_tokens=asked)
        assert generate(None, model, None, {"input_ids": torch.zeros(1, 500)}, config) == room


@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
@pytest.mark.usefixtures("prepared")
async def test_a_stream_that_cannot_begin_is_an_error(path: str, checkpoint: Path) -> None:
    """With its status, as long as nothing was sent; one that can begin is a stream."""
    models: Any = ModelManager(device="cpu", dtype="float32")
    state = utils.GenerationState()
    given: dict[str, Any] = {"model_manager": models, "generation_state": state}
    handlers: dict[str, Any] = {
        "chat_handler": ChatCompletionHandler(**given),
        "completion_handler": CompletionHandler(**given),
        "response_handler": ResponseHandler(**given),
    }
    others = inspect.signature(server_module.build_server).parameters.keys() - handlers.keys() - given.keys()
    missing: dict[str, Any] = dict.fromkeys(others)
    app = server_module.build_server(**given, **handlers, **missing)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app, False), base_url="http://here") as client:
        for text, status in (("x" * 600, 400), ("why?", 200)):
            chat = [{"role": "user", "content": text}]
            asked = (
                {"prompt": text} if path == "completions" else {"input" if path == "responses" else "messages": chat}
            )
            body = {"model": str(checkpoint), "stream": True, "temperature": 0, **asked}
            limit = "max_output_tokens" if path == "responses" else "max_tokens"
            answer = await client.post(f"/v1/{path}", json={**body, limit: 4})
            assert answer.status_code == status, answer.text
            if status == 400:
                assert "shorten" in answer.json()["error"]["message"]
            else:
                assert answer.headers["content-type"].startswith("text/event-stream")
                assert '"error"' not in answer.text
