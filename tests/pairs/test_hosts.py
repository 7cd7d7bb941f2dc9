"""Both models of a pair through the server, batch jobs and LangChain: what the engine says, and the same figures."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.jobs import JobOptions
from dllm_plugins.jobs import run_job
from dllm_plugins.pairs import named
from dllm_plugins.pairs.model import PairModel
from dllm_plugins.serving.app import create_app
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings
from dllm_plugins.sharing import shared_model
from langchain_dllm import ChatDLLM

PLANS: list[dict[str, Any]] = [
    {"mode": "alternating", "preset_options": {"plan": [["ar", 4], ["diffusion", 5]]}},
    {"mode": "diffusion"},
    {"mode": "pair"},
]


@pytest.fixture
def pair(tiny_folder: Path, foreign_folder: Path, own_pairs: None) -> PairModel:
    """Of two tokenizers, under the name `both`."""
    named.add("both", named.Pair(str(tiny_folder), str(foreign_folder)))
    found = shared_model("both", dtype="float32", device="cpu").model
    assert isinstance(found, PairModel)
    return found


def wanted(pair: PairModel, number: int) -> Any:
    """What the engine answers to a text, alone."""
    config = SamplingConfig(max_new_tokens=12, **PLANS[number % 3])
    return pair.engine().generate([pair.text_request(f"row {number}", config)])[0]


async def test_the_server(pair: PairModel) -> None:
    """Nine at once, in three modes; statistics name the models."""
    app = create_app(ServerSettings(models={"both": Loading("both", {"dtype": "float32", "device": "cpu"})}))
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:

            async def asked(number: int) -> Any:
                body = {"model": "both", "prompt": f"row {number}", "max_tokens": 12, "dllm": PLANS[number % 3]}
                answer = await client.post("/v1/completions", json=body, timeout=60)
                assert answer.status_code == 200, answer.text
                return answer.json()

            found = await asyncio.gather(*map(asked, range(9)))
    finally:
        await app.state.service.models.close()
    for number, one in enumerate(found):
        expected = wanted(pair, number)
        [told] = one["dllm"]["statistics"]
        assert one["choices"][0]["text"] == expected.text
        assert told["model"] == expected.usage.model
        assert told["mode"] == PLANS[number % 3]["mode"]
        stretches = [part["mode"] for part in told.get("stretches", ())]
        assert stretches == [part.mode for part in expected.usage.stretches or ()]


def test_batch_jobs(pair: PairModel, tmp_path: Path) -> None:
    """Each row as the engine answers it."""
    bodies = [{"prompt": f"row {number}", "max_tokens": 12, "dllm": PLANS[number % 3]} for number in range(3)]
    rows = [
        {"custom_id": str(number), "method": "POST", "url": "/v1/completions", "body": body}
        for number, body in enumerate(bodies)
    ]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    run_job(source, out, JobOptions("both", load={"dtype": "float32", "device": "cpu"}))
    found = [json.loads(line)["response"]["body"]["choices"][0]["text"] for line in out.read_text().splitlines()]
    assert found == [wanted(pair, number).text for number in range(3)]


def test_langchain(pair: PairModel) -> None:
    """A chat in turns; and of the other model, which has no template and reads what the first one's makes."""
    for given in PLANS[:2]:
        chat = ChatDLLM(model="both", max_tokens=12, dtype="float32", device="cpu", **given)
        answer = chat.invoke("how?")
        config = SamplingConfig(max_new_tokens=12, **given)
        request: Request = pair.chat_request([{"role": "user", "content": "how?"}], config)
        [expected] = pair.engine().generate([request])
        assert answer.text == expected.text
        assert answer.response_metadata["statistics"]["model"] == expected.usage.model
