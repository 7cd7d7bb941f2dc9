"""`transformers serve` with a registered model: an OpenAI-like server over the engine."""

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
from transformers import PreTrainedTokenizerBase

import dllm_transformers  # noqa: F401  registers the Auto classes


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
