"""/v1/completions: texts that are gone on from, and gaps that are filled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from dllm_plugins import Edit
from dllm_plugins import Finish
from dllm_plugins import Gap
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import Template

from .asking import events
from .asking import refused

PATH = "/v1/completions"


def body(prompt: Any = "Once", **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "prompt": prompt, "max_tokens": 12, **more}


async def answered(client: httpx.AsyncClient, **given: Any) -> Any:
    answer = await client.post(PATH, json=body(**given))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def streamed(client: httpx.AsyncClient, **given: Any) -> list[Any]:
    answer = await client.post(PATH, json=body(stream=True, **given))
    assert answer.status_code == 200, answer.text
    found = events(answer.text)
    assert found[-1] == ("", "[DONE]")
    return [data for _, data in found[:-1]]


@pytest.fixture
def going_on(tiny: Model) -> Callable[..., Finish]:
    """What the engine alone makes of a text."""

    def answer(prompt: str, **options: Any) -> Finish:
        config = SamplingConfig(**{"max_new_tokens": 12, **options})
        return tiny.engine().generate([Request(tiny.encode_text(prompt), config)])[0]

    return answer


async def test_prompts(client: httpx.AsyncClient, going_on: Callable[..., Finish], tiny: Model) -> None:
    """Texts and token ids, one and several, whole and streamed."""
    one, other = going_on("Once"), going_on("Twice or more")
    answer = await answered(client)
    assert answer["object"] == "text_completion"
    reason = "length" if one.reason == "length" else "stop"
    assert answer["choices"] == [{"index": 0, "text": one.text, "logprobs": None, "finish_reason": reason}]
    assert answer["usage"]["completion_tokens"] == len(one.tokens)
    ids = tiny.encode_text("Once")
    for given in (ids, [ids], ["Once"]):
        assert (await answered(client, prompt=given))["choices"] == answer["choices"]
    several = await answered(client, prompt=["Once", "Twice or more"])
    assert [choice["text"] for choice in several["choices"]] == [one.text, other.text]
    assert several["usage"]["prompt_tokens"] == one.usage.prompt_tokens + other.usage.prompt_tokens
    chunks = await streamed(client, stream_options={"include_usage": True})
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == one.text
    assert chunks[-2]["choices"][0]["finish_reason"] == reason
    assert chunks[-1]["usage"]["completion_tokens"] == len(one.tokens)


async def test_a_suffix_is_what_a_gap_stands_before(client: httpx.AsyncClient, tiny: Model) -> None:
    """The answer is the text of the gap."""
    found = tiny.fill(Template("once", Gap(max_tokens=12), " upon"))
    answer = await answered(client, prompt="once", suffix=" upon")
    assert answer["choices"][0]["text"] == found.gaps[0]
    assert answer["choices"][0]["finish_reason"] == ("length" if found.reasons[0] == "length" else "stop")
    chunks = await streamed(client, prompt="once", suffix=" upon")
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == found.gaps[0]
    answer = await answered(client, prompt="once", suffix=" upon", dllm={"regex": "[0-9]{2}"})
    assert answer["choices"][0]["text"].isdecimal()
    status, error = await refused(client, PATH, json=body(suffix=" upon", dllm={"mode": "ar"}))
    assert status == 400
    assert "diffusion" in error["message"]


async def test_log_probabilities(client: httpx.AsyncClient, going_on: Callable[..., Finish]) -> None:
    """In four lists, whose texts add up to the answer."""
    expected = going_on("Once", logprobs=2)
    assert expected.logprobs is not None
    [choice] = (await answered(client, logprobs=2))["choices"]
    told = choice["logprobs"]
    assert told["token_logprobs"] == [said.logprob for said in expected.logprobs[: len(expected.tokens)]]
    assert all(len(others) <= 2 for others in told["top_logprobs"])
    assert told["text_offset"][0] == 0
    assert len(told["tokens"]) == len(told["text_offset"]) == len(told["top_logprobs"])
    chunks = [c["choices"][0]["logprobs"] for c in await streamed(client, logprobs=2) if c["choices"]]
    for name in told:
        assert [item for chunk in chunks if chunk for item in chunk[name]] == told[name]


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [5], "suffix": "x"}, "suffix"),
        ({"echo": True}, "echo"),
        ({"best_of": 2}, "best_of"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"messages": []}, "messages"),
    ],
)
async def test_what_is_refused(client: httpx.AsyncClient, given: dict[str, Any], param: str) -> None:
    """By the field's name."""
    status, error = await refused(client, PATH, json=body(**given))
    assert status == 400
    assert error["param"].startswith(param)


async def test_a_mode_is_chosen(
    client: httpx.AsyncClient, going_on: Callable[..., Finish], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the router, whose choice no text shows; statistics say why."""
    monkeypatch.setenv("DLLM_CACHE", str(tmp_path))
    monkeypatch.setenv("DLLM_CONFIG", str(tmp_path))
    expected = going_on("Once").text
    for _ in range(2):
        answer = await answered(client, dllm={"mode": "auto"})
        assert answer["choices"][0]["text"] == expected
        [told] = answer["dllm"]["statistics"]
        assert f"; {told['mode']}: " in told["route"]


async def test_spans_are_written_anew(client: httpx.AsyncClient, tiny: Model) -> None:
    """The answer is the whole text, and what became of each span stands beside it, streamed or not."""
    edit = Edit("once upon a time", [(5, 9)], 12)
    found = tiny.edit(edit)
    given = {"prompt": edit.text, "dllm": {"spans": [[5, 9]]}}
    answer = await answered(client, **given)
    assert answer["choices"][0]["text"] == found.text
    [[told]] = answer["dllm"]["edits"]
    assert told == {**found.changes[0].as_dict(), "span": [5, 9], "at": list(found.changes[0].at)}
    chunks = await streamed(client, **given)
    assert "".join(choice["text"] for chunk in chunks for choice in chunk["choices"]) == found.text
    assert chunks[-1]["dllm"]["edits"] == answer["dllm"]["edits"]
    for wrong, param in (
        ({"dllm": {"spans": [[5, 99]]}}, "dllm.spans"),
        ({"prompt": ["a", "b"]}, "dllm.spans"),
        ({"suffix": "x"}, "suffix"),
        ({"logprobs": 1}, "logprobs"),
    ):
        status, error = await refused(client, PATH, json=body(**given | wrong))
        assert (status, error["param"]) == (400, param)
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "why?"}], "dllm": {"spans": [[5, 9]]}}
    status, error = await refused(client, json=chat)
    assert (status, error["param"]) == (400, "dllm.spans")
