"""What rows may be, and what becomes of each."""

import json
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.jobs import JobOptions
from dllm_plugins.jobs import run_job

from ..conftest import make_tokenizer

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
        ('{"custom_id": "a", "url": "/v1/completions", "body": []}', "invalid_request", "body=[]"),
        ('{"custom_id": "a", "url": "/v1/completions"}', "invalid_request", "body=None"),
        ('{"url": "/v1/completions", "body": {"prompt": "x"}}', "missing_custom_id", "custom_id=None"),
        ('{"custom_id": 5, "url": "/v1/completions", "body": {"prompt": "x"}}', "missing_custom_id", "custom_id=5"),
        ('{"custom_id": "a", "method": "GET", "url": "/v1/completions", "body": {}}', "invalid_method", "'GET'"),
        ('{"custom_id": "a", "url": "/v1/completions", "body": {}, "note": 1}', "invalid_request", "'note'"),
        ('{"custom_id": "a", "url": "/v1/completions", "body": {"prompt": 5}}', "invalid_request", "prompt"),
        ('{"prompt": "x", "messages": []}', "invalid_json_line", "messages"),
        ('{"prompt": "x", "model": "other"}', None, "--alias other"),
        ('{"prompt": "x", "max_tokens": 0}', None, "max_tokens"),
        ('{"prompt": "x", "colour": "red"}', None, "colour"),
        ('{"prompt": "%s"}' % ("x" * 600), None, "512"),
        ('{"prompt": ""}', None, "empty"),
    ],
)
def test_rows_that_fail(run: Run, line: str, code: str | None, told: str) -> None:
    """Each says why, and the next one is answered all the same."""
    failed, answered = run(line, '"x"')
    assert failed["response"]["status_code"] in (400, 404)
    assert failed["error"]["code"] == code or code is None
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


def test_rows_may_name_the_model_by_an_alias(options: JobOptions, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "x", "model": "gpt-4o"}')
    named = JobOptions(load=options.load, config=options.config, aliases=("gpt-4o",))
    assert run_job(tmp_path / "in.jsonl", tmp_path / "out.jsonl", named).failed == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["response"]["body"]["model"] == "dllm"
