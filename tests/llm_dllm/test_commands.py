"""`llm dllm setup`, `watch` and `info`."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from click.testing import Result
from rich.console import Console

from dllm_kernels import build
from dllm_kernels.compiled import library
from dllm_plugins import SamplingConfig
from dllm_plugins.__main__ import main
from dllm_plugins.commands import setup as setup_command
from dllm_plugins.default_model import base_model
from dllm_plugins.engine.profile import PARTS
from dllm_plugins.errors import DownloadError
from dllm_plugins.files.progress import Progress
from llm_dllm import watch_command
from llm_dllm.model import events

Run = Callable[..., Result]
Answer = Callable[..., str]
ASK = [{"role": "user", "content": "why?"}]


def test_watch_streams_plainly_into_a_pipe(run: Run, answer: Answer) -> None:
    """Text, then one line: tokens, passes, tokens per pass, rows per token, seconds, mode, cache."""
    shown = run("dllm", "watch", "why?", "-o", "max_tokens", "20").stdout
    *text, statistics = shown.rstrip("\n").split("\n")
    expected = answer(ASK, max_new_tokens=20).encode(errors="replace").decode()
    assert "\n".join(text) == expected
    for words in ("20 tokens", "passes", "tokens/pass", "rows/token", " s ", "mode speculative", "exact cache"):
        assert words in statistics
    assert "\x1b" not in shown


def test_watch_draws_drafts_in_place(answer: Answer) -> None:
    """On a terminal: cursor movements, drafts, and in the end the answer."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=400)
    config = SamplingConfig(max_new_tokens=20, mode="diffusion", threshold=0.99)
    finish = watch_command._watch_live(events(ASK, config), console)
    assert finish.text == answer(ASK, max_new_tokens=20, mode="diffusion", threshold=0.99)
    assert "\x1b[2K" in file.getvalue()
    assert "·" in file.getvalue()


def test_watch_takes_a_system_prompt(run: Run, answer: Answer) -> None:
    """Like `llm -s`."""
    shown = run("dllm", "watch", "why?", "-s", "be brief", "-o", "max_tokens", "8").stdout
    text = answer([{"role": "system", "content": "be brief"}, *ASK], max_new_tokens=8)
    assert shown.startswith(text.encode(errors="replace").decode())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "mode", "telepathy"], "telepathy"),
        (["-o", "telepathy", "1"], "max_tokens"),
        (["-o", "threshold", "2"], "less than or equal to 1"),
        (["-o", "steps", "many"], "steps"),
    ],
)
def test_watch_refuses_bad_options(run: Run, options: list[str], words: str) -> None:
    """One line."""
    result = run("dllm", "watch", "why?", *options, code=1)
    assert words in result.output
    assert "Traceback" not in result.output


def test_watch_shows_times_by_part(run: Run) -> None:
    """Behind the line of statistics, where they were asked for."""
    shown = run("dllm", "watch", "why?", "-o", "max_tokens", "8", "-o", "stats", "true").stdout
    lines = shown.splitlines()
    begin = max(place for place, line in enumerate(lines) if line.startswith("part"))
    assert parts_of(lines[begin:]) == ["part", *PARTS, "all"]


def parts_of(lines: list[str]) -> list[str]:
    """First words, without what the denoiser can tell of its forward on this machine."""
    return [word for word in (line.split()[0] for line in lines) if word not in ("linear", "attention", "other")]


def test_bench_prints_a_table(run: Run) -> None:
    """The answer's figures, its speed, and every part with its share; the prompt may be left out."""
    shown = run("dllm", "bench", "-o", "max_tokens", "8", "-o", "mode", "ar", "-n", "2").stdout.splitlines()
    assert "8 tokens" in shown[0]
    assert "mode ar" in shown[0]
    assert shown[1].endswith("in 2 answers")
    assert parts_of(shown[3:]) == ["part", *PARTS, "all"]
    assert shown[-1].endswith("100.0%")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "telepathy", "1"], "max_tokens"),
        (["-o", "steps", "3"], "no effect in mode 'speculative'"),
        (["-n", "0"], "0"),
        (["-m", "gpt-4o"], "not a diffusion model"),
    ],
)
def test_bench_refuses_bad_options(run: Run, arguments: list[str], words: str) -> None:
    """One line."""
    result = run("dllm", "bench", *arguments, code=2 if "-n" in arguments else 1)
    assert words in result.output
    assert "Traceback" not in result.output


def test_info_names_what_would_be_loaded(run: Run, tiny_folder: Path) -> None:
    """Base, denoiser, device, what is installed, and the modes of this model, no others."""
    shown = run("dllm", "info").stdout
    for words in (str(tiny_folder), "float32", "torch", "DLLM_CACHE", "llm dllm rules"):
        assert words in shown
    assert "modes     speculative, diffusion, ar, repair, alternating\n" in shown


@pytest.fixture
def everywhere(run: Run) -> Run:
    """A command as `llm dllm` has it and as every installation has it: they say the same."""

    def call(*arguments: str, code: int = 0) -> Result:
        theirs, ours = run("dllm", *arguments, code=code), CliRunner().invoke(main, arguments)
        assert (ours.exit_code, ours.stdout, ours.stderr) == (theirs.exit_code, theirs.stdout, theirs.stderr)
        return ours

    return call


def test_setup_says_when_all_is_there(everywhere: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No second download; the kernels are looked after, too."""
    monkeypatch.setattr(base_model, "is_ready", lambda: True)
    monkeypatch.setattr(build, "build", lambda _target: None)
    shown = everywhere("setup").stdout
    assert "The base model is ready in" in shown
    assert "kernel" in shown


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_setup_goes_on_without_kernels(
    everywhere: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiler: str
) -> None:
    """Where they cannot be built: one line that says why, and success; `info` says it too."""
    monkeypatch.setattr(base_model, "is_ready", lambda: True)
    monkeypatch.setenv("DLLM_KERNELS", str(tmp_path))
    monkeypatch.setenv("CXX", compiler)
    library.load.cache_clear()
    *_, last = everywhere("setup").stdout.splitlines()
    assert last.startswith("Answers come slower than they could: the compiled kernel library was not built: ")
    assert "no-such-compiler" in last or "dllm_kernels.build" in last
    shown = run_info().splitlines()
    assert any(line.startswith("faster ") and "run `python -m dllm_plugins setup`" in line for line in shown)
    library.load.cache_clear()


def run_info() -> str:
    """What every installation says of the default model, whose base may be missing."""
    return CliRunner().invoke(main, ["info"]).stdout


def test_setup_says_that_kernels_are_switched_off(everywhere: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nothing is built."""
    monkeypatch.setattr(base_model, "is_ready", lambda: True)
    monkeypatch.setenv("DLLM_KERNELS", "")
    assert "switched off by DLLM_KERNELS=''" in everywhere("setup").stdout


def test_setup_reports_stages(everywhere: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal one line a stage; `--force` is passed on."""
    forced: list[bool] = []

    def fake(progress: Progress, force: bool) -> None:
        forced.append(force)
        for stage in setup_command.STAGES:
            progress(stage, 1, 2)
            progress(stage, 2, 2)

    monkeypatch.setattr(base_model, "setup", fake)
    monkeypatch.setattr(setup_command, "build_kernels", lambda _progress: "built")
    shown = everywhere("setup", "--force")
    assert [shown.stderr.count(title) for title in setup_command.STAGES.values()] == [1] * len(setup_command.STAGES)
    assert forced == [True] * 2
    assert shown.stdout.endswith("built\n")


def test_setup_without_network_is_one_clear_line(everywhere: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the download reaches the user whole."""

    def fail(progress: Progress, force: bool) -> None:
        raise DownloadError("no network; try again, or use --hub")

    monkeypatch.setattr(base_model, "setup", fail)
    result = everywhere("setup", "--force", code=1)
    assert "no network; try again, or use --hub" in result.output
