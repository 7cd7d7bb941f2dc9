"""`llm dllm batch` and `python -m dllm_plugins batch`."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from llm.cli import cli

from dllm_plugins.__main__ import main
from dllm_plugins.jobs import JobOptions
from dllm_plugins.jobs import progress
from dllm_plugins.jobs import run_job
from dllm_plugins.jobs.spread import own_device

from .conftest import Load


def test_both_commands_run_the_same_job(
    source: Path, load: Load, expected: bytes, tmp_path: Path, llm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the ids, which say whose job it is."""
    for name in ("base", "denoiser", "dtype", "device"):
        monkeypatch.setenv(f"DLLM_{name.upper()}", load[name])
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    given = ["batch", str(source), str(one), "-o", "draft_length", "2", "-o", "max_tokens", "7"]
    result = CliRunner().invoke(cli, ["dllm", *given])
    assert (result.exit_code, result.stdout) == (0, f"{one}: 10 rows, 3 failed.\n"), result.output
    assert result.stderr == ""
    assert one.read_bytes() == expected
    loading = [text for name, value in load.items() for text in ("--load", name, value)]
    own = ["batch", str(source), str(two), "-o", "draft_length", "2", "-o", "max_new_tokens", "7", *loading]
    result = CliRunner().invoke(main, own)
    assert (result.exit_code, result.stdout) == (0, f"{two}: 10 rows, 3 failed.\n"), result.output
    assert two.read_bytes() == expected
    result = CliRunner().invoke(main, own)
    assert (result.exit_code, result.stdout) == (0, f"{two} is there.\n")


def test_errors_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('"x"')
    files = [str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")]
    for more, told in (
        (["-o", "colour", "red"], "colour"),
        (["-o", "rule_options", "{1"], "option rule_options={1: it is no JSON"),
    ):
        result = CliRunner().invoke(main, ["batch", *files, *more])
        assert result.exit_code == 1
        assert told in result.output and "Traceback" not in result.output
    assert not (tmp_path / "out.jsonl.job").exists()


def test_options_of_all_rows_hold_where_a_row_says_nothing(load: Load, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('"x"\n{"prompt": "x", "max_tokens": 3}')
    run_job(tmp_path / "in.jsonl", tmp_path / "out.jsonl", JobOptions(load=load, system="short"))
    first, second = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    usage = [line["response"]["body"]["usage"] for line in (first, second)]
    assert [used["completion_tokens"] for used in usage] == [256, 3]
    assert usage[0]["prompt_tokens"] > len("system short user x")


def test_a_process_of_several_takes_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_device({}) == {}
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert own_device({"dtype": "float32"}) == {"device": "cuda:1"}
    assert own_device({"device": "cpu"}) == {}
    monkeypatch.delenv("LOCAL_RANK")
    assert own_device({}) == {}


def test_a_terminal_sees_rows_rate_and_time_left(
    source: Path,
    options: JobOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Others see nothing."""
    run_job(source, tmp_path / "quiet.jsonl", options, progress=progress.bar)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    run_job(source, tmp_path / "told.jsonl", options, progress=progress.bar)
    told = capsys.readouterr().err
    assert "10/10" in told and "left" in told and "tokens/s" in told
