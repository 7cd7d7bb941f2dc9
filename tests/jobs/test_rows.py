"""What rows may be, and what becomes of each."""

import json
import re
import shutil
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.constraints.values import Regex
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.jobs import JobOptions
from dllm_plugins.jobs import run_job

from ..conftest import CONFIG
from ..conftest import make_tokenizer
from .conftest import Load

Run = Callable[..., list[Any]]


def _text(line: Any) -> str:
    choice = line["response"]["body"]["choices"][0]
    found: str = choice["message"]["content"] if "message" in choice else choice["text"]
    return found


def _alone(model: Model, tokens: list[int], **options: Any) -> str:
    return model.engine().generate([Request(tokens, SamplingConfig(**options))])[0].text


def test_the_output_of_a_job(expected: bytes, tiny: Model) -> None:
    """In the order of the input, each row as if it were alone; those that failed stand beside the others."""
    lines = [json.loads(line) for line in expected.splitlines()]
    names = ["chat", "row-2", "text", None, "row-5", "text", "lost", "row-8", "row-9", "row-10"]
    assert [line["custom_id"] for line in lines] == names
    assert len({line["id"] for line in lines}) == 10
    status = [line["response"]["status_code"] for line in lines]
    assert status == [200, 200, 200, 400, 200, 400, 400, 200, 200, 200]
    assert [line["error"] is None for line in lines] == [one == 200 for one in status]
    codes = [line["error"]["code"] for line in lines if line["error"]]
    assert codes == ["invalid_json_line", "duplicate_custom_id", "invalid_url"]

    def chat(text: str) -> list[int]:
        return tiny.encode_chat([{"role": "user", "content": text}])

    assert _text(lines[1]) == _alone(tiny, chat("a plain prompt"), max_new_tokens=7)
    assert _text(lines[2]) == _alone(tiny, tiny.encode_text("ab"), max_new_tokens=5)
    seeded = _alone(tiny, chat("with options"), max_new_tokens=12, temperature=1.0, seed=7)
    assert _text(lines[4]) == seeded
    # Rows with the same prompt sample each for itself, and so do the answers of one row.
    assert _text(lines[7]) != _text(lines[8])
    first, second = lines[0]["response"]["body"]["choices"]
    assert first["message"]["content"] != second["message"]["content"]
    body = lines[2]["response"]["body"]
    assert (body["object"], body["model"], body["usage"]["completion_tokens"]) == ("text_completion", "dllm", 5)
    assert body["usage"]["prompt_tokens"] == len(tiny.encode_text("ab"))


def test_modes_that_are_chosen_leave_the_output_as_it_is(
    options: JobOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was measured: the text of `ar`, and statistics that do not tell one time from another."""
    monkeypatch.setenv("DLLM_ROUTES", str(tmp_path / "routes.json"))
    body = {"prompt": "of two", "max_tokens": 40, "dllm": {"stats": True}}
    rows = [{"custom_id": name, "url": "/v1/completions", "method": "POST", "body": body} for name in "abc"]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = {}
    for mode, together in (("ar", 1), ("auto", 1), ("auto", 3)):
        target = tmp_path / f"{mode}-{together}.jsonl"
        job = JobOptions(load=options.load, config=SamplingConfig(mode=mode))
        run_job(tmp_path / "in.jsonl", target, job, together=together)
        found[mode, together] = [json.loads(line) for line in target.read_text().splitlines()]
    lines = found["auto", 1]
    assert [line["response"]["body"]["dllm"]["statistics"][0]["mode"] for line in lines] == ["auto"] * 3
    assert [_text(line) for line in lines] == [_text(line) for line in found["ar", 1]]
    assert (tmp_path / "auto-1.jsonl").read_bytes() == (tmp_path / "auto-3.jsonl").read_bytes()


def test_other_seeds_sample_otherwise(source: Path, options: JobOptions, expected: bytes, tmp_path: Path) -> None:
    other = JobOptions(load=options.load, config=options.config, seed=1)
    run_job(source, tmp_path / "out.jsonl", other)
    before, now = (
        [json.loads(line) for line in text.splitlines()] for text in (expected, (tmp_path / "out.jsonl").read_bytes())
    )
    assert [_text(one) == _text(two) for one, two in zip(before[7:], now[7:], strict=True)] == [False, False, True]
    assert _text(before[4]) == _text(now[4])


@pytest.mark.parametrize("together", [1, 2, 5])
def test_company_changes_nothing(
    source: Path, options: JobOptions, expected: bytes, together: int, tmp_path: Path
) -> None:
    run_job(source, tmp_path / "out.jsonl", options, together=together)
    assert (tmp_path / "out.jsonl").read_bytes() == expected


def test_every_line_of_a_text_is_a_prompt(run: Run, tmp_path: Path) -> None:
    """Whatever it looks like; blank lines are no rows."""
    told = run('{"prompt": "x"}', "", "  two  ", name="in.txt")
    assert [line["custom_id"] for line in told] == ["row-1", "row-2"]
    (tmp_path / "out.jsonl").unlink()
    assert _text(told[0]) == _text(run(json.dumps('{"prompt": "x"}'))[0])


def test_a_byte_order_mark_and_windows_ends(run: Run) -> None:
    assert [_text(line) != "" for line in run('\ufeff"one"\r', '"two"\r', "\r")] == [True, True]


def test_an_empty_input(run: Run) -> None:
    assert run() == []
    # Whose output is known again.
    assert run() == []


def test_texts_are_whole_lines_to_every_reader(run: Run) -> None:
    """Some end lines at more characters than JSON does, and half a surrogate pair is no UTF-8."""
    [line] = run(r'{"custom_id": "a\u2028b\u0085\ud800", "prompt": "x"}')
    assert line["custom_id"] == "a\u2028b\x85\ud800"


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("[1]", "invalid_json_line", "[1]"),
        ('{"custom_id": "a", "url": "/v1/completions", "body": []}', "invalid_request_error", "body=[]"),
        ('{"custom_id": "a", "url": "/v1/completions"}', "invalid_request_error", "body=None"),
        ('{"url": "/v1/completions", "body": {"prompt": "x"}}', "missing_custom_id", "custom_id=None"),
        ('{"custom_id": 5, "url": "/v1/completions", "body": {"prompt": "x"}}', "missing_custom_id", "custom_id=5"),
        ('{"custom_id": "a", "method": "GET", "url": "/v1/completions", "body": {}}', "invalid_method", "'GET'"),
        ('{"custom_id": "a", "url": "/v1/completions", "body": {}, "note": 1}', "invalid_request_error", "'note'"),
        ('{"custom_id": "a", "url": "/v1/completions", "body": {"prompt": 5}}', "invalid_request_error", "prompt"),
        ('{"prompt": "x", "messages": []}', "invalid_json_line", "messages"),
        ('{"prompt": "x", "model": "other"}', "model_not_found", "--alias other"),
        ('{"prompt": "x", "max_tokens": 0}', "invalid_request_error", "max_tokens=0"),
        ('{"prompt": "x", "colour": "red"}', "unknown_parameter", "colour"),
        ('{"prompt": "x", "stream": true}', "invalid_request_error", "stream"),
        ('{"prompt": "x", "dllm": 5}', "invalid_request_error", "dllm=5"),
        ('{"prompt": "%s"}' % ("x" * 600), "invalid_request_error", "512"),
        ('{"prompt": ""}', "invalid_request_error", "empty"),
    ],
)
def test_rows_that_fail(run: Run, line: str, code: str, told: str) -> None:
    """Each says why, and the next one is answered all the same."""
    failed, answered = run(line, '"x"')
    assert failed["response"]["status_code"] in (400, 404)
    assert failed["error"]["code"] == code
    assert told in failed["error"]["message"] == failed["response"]["body"]["error"]["message"]
    assert _text(answered)


def test_a_row_that_breaks_a_pass_fails_alone(
    run: Run, tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that shared the pass are answered as if it had not been there."""
    forward = type(tiny.denoiser).forward

    def breaking(self: Denoiser, segments: Sequence[Segment]) -> Any:
        if any(list(segment.tokens).count(poison) > 4 for segment in segments):
            raise RuntimeError("out of memory")
        return forward(self, segments)

    [poison] = make_tokenizer().encode("~", add_special_tokens=False)
    lines = ['"one"', '"two"', '"~~~~~~"', '"three"', '"four"']
    before = run(*lines)
    (tmp_path / "out.jsonl").unlink()
    monkeypatch.setattr(type(tiny.denoiser), "forward", breaking)
    told = run(*lines)
    failed = told.pop(2)
    assert told == before[:2] + before[3:]
    assert failed["response"]["status_code"] == 500
    assert failed["error"]["message"].startswith("a pass over 1 rows failed: RuntimeError: out of memory")


def _row(url: str, **body: Any) -> str:
    return json.dumps({"custom_id": f"{url} {sorted(body)}", "method": "POST", "url": url, "body": body})


def test_the_official_client_reads_all_answers(tiny_folder: Path, load: Load, tmp_path: Path) -> None:
    """Of every endpoint, with all that a server could be asked."""
    base = shutil.copytree(tiny_folder, tmp_path / "base")
    (base / "config.json").write_text(json.dumps(CONFIG | {"max_position_embeddings": 2048}))
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    lines = [
        _row("/v1/chat/completions", **chat, logprobs=True, top_logprobs=2, stop=["q"]),
        _row("/v1/chat/completions", **chat | {"max_tokens": 200}, tools=[tool], tool_choice="required"),
        _row("/v1/chat/completions", **chat, dllm={"mode": "ar", "regex": "(yes|no)"}),
        _row("/v1/completions", prompt=["a", "b"], max_tokens=9, logprobs=1, temperature=1.0, n=2),
        _row("/v1/completions", prompt="a", suffix="b", max_tokens=3),
        _row("/v1/responses", input="hi", instructions="short", max_output_tokens=3),
        json.dumps({"prompt": "a bad c", "dllm": {"spans": [[2, 5]]}}),
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    run_job(tmp_path / "in.jsonl", tmp_path / "out.jsonl", JobOptions(load=load | {"base": str(base)}))
    told = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["error"] for line in told] == [None] * 7
    bodies = [line["response"]["body"] for line in told]
    chats = [ChatCompletion.model_validate(body) for body in bodies[:3]]
    assert len(chats[0].choices[0].logprobs.content) == 4
    assert [call.function.name for call in chats[1].choices[0].message.tool_calls] == ["look"]
    assert chats[2].choices[0].message.content in ("yes", "no")
    assert bodies[2]["dllm"]["statistics"][0]["mode"] == "ar"
    texts = [Completion.model_validate(body) for body in bodies[3:5]]
    assert [len(choice.logprobs.tokens) for choice in texts[0].choices] == [9] * 4
    # Each answer to each prompt has random numbers of its own.
    assert len({tuple(choice.logprobs.token_logprobs) for choice in texts[0].choices}) == 4
    assert Response.construct(**bodies[5]).status == "incomplete"
    edited = bodies[6]["choices"][0]["text"]
    assert edited.startswith("a ")
    assert edited.endswith(" c")
    assert [change["before"] for [change] in bodies[6]["dllm"]["edits"]] == ["bad"]


def test_options_of_the_job_hold_where_rows_say_nothing(load: Load, tmp_path: Path) -> None:
    config = SamplingConfig(max_new_tokens=3, logprobs=1, mode="ar", constraint=Regex("[ab]{3}"))
    lines = [
        '"x"',
        '{"prompt": "x", "max_completion_tokens": 5}',
        '{"prompt": "x", "dllm": {"regex": "[cd]+"}}',
        '{"prompt": "x", "logprobs": false}',
        _row("/v1/completions", prompt="x"),
        _row("/v1/responses", input="x"),
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    run_job(tmp_path / "in.jsonl", tmp_path / "out.jsonl", JobOptions(load=load, config=config))
    bodies = [json.loads(line)["response"]["body"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    texts = [body["choices"][0]["message"]["content"] for body in bodies[:4]]
    texts += [bodies[4]["choices"][0]["text"], bodies[5]["output"][0]["content"][0]["text"]]
    for text, pattern in zip(texts, ("[ab]{3}", "[ab]{3}", "[cd]{1,3}", "[ab]{3}", "[ab]{3}", "[ab]{3}"), strict=True):
        assert re.fullmatch(pattern, text)
    said = [body["choices"][0]["logprobs"] for body in bodies[:5]]
    assert [one is None for one in said] == [False, False, False, True, False]


def test_rows_may_name_the_model_by_an_alias(options: JobOptions, tmp_path: Path) -> None:
    """Or as it is loaded; the output always calls it the same."""
    names = ("gpt-4o", "dllm", "mine", "other")
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"prompt": "x", "model": name}) for name in names))
    named = JobOptions(load=options.load, config=options.config, aliases=("gpt-4o",), name="mine")
    assert run_job(tmp_path / "in.jsonl", tmp_path / "out.jsonl", named).failed == 1
    bodies = [json.loads(line)["response"]["body"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [body.get("model") for body in bodies] == ["mine", "mine", "mine", None]
