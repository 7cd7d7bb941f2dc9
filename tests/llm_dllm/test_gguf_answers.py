"""Answers of llm through llama.cpp, from files named by path and by registered name; killed half way."""

import hashlib
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import llm
import pytest
from click.testing import Result

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from llm_dllm.registry import registry_file

from ..forked import start

pytest.importorskip("llama_cpp", reason="needs the extra gguf")

Run = Callable[..., Result]
ASK = [{"role": "user", "content": "how?"}]
OPTIONS: dict[str, Any] = {"max_new_tokens": 12, "block_length": 4, "steps": 2}
GIVEN = ["-o", "max_tokens", "12", "-o", "block_length", "4", "-o", "steps", "2"]


def load(path: Path) -> Model:
    """A file on llama.cpp, as the environment asks for."""
    return load_model(str(path), backend="llama_cpp")


@pytest.fixture(autouse=True)
def llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is faster on this machine."""
    monkeypatch.setenv("DLLM_BACKEND", "llama_cpp")


def engine_text(model: Model, chat: list[dict[str, str]], **options: Any) -> str:
    """What the engine itself answers."""
    request = Request(model.encode_chat(chat), SamplingConfig(**(OPTIONS | options)))
    return model.engine().generate([request])[0].text


def same(shown: str, text: str) -> bool:
    """Against the engine's text; random bytes may not be printable."""
    return shown.encode(errors="replace").decode() == text.encode(errors="replace").decode() + "\n"


@pytest.fixture
def say(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call `llm` as from a shell: llm looks at the program's own arguments for files."""

    def call(*arguments: str, **options: Any) -> Result:
        monkeypatch.setattr(sys, "argv", ["llm", *arguments])
        return run(*arguments, **options)

    return call


def test_a_file_answers_by_its_path(sdar: Path, say: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Streamed, at once, watched, timed and logged; float32 files give the checkpoint's own text."""
    text = engine_text(load_model(str(tmp_path / "sdar"), dtype="float32", backend="torch"), ASK)
    assert text
    assert engine_text(load(sdar), ASK) == text
    monkeypatch.chdir(tmp_path)
    assert same(say("-m", "./sdar.gguf", "how?", *GIVEN).stdout, text)
    assert same(say("-msdar.gguf", "how?", *GIVEN, "--no-stream").stdout, text)
    shown = say("dllm", "watch", "-m", "sdar.gguf", "how?", *GIVEN).stdout
    assert shown.startswith(text.encode(errors="replace").decode() + "\n")
    assert "tokens/s: median" in say("dllm", "bench", "-m", "sdar.gguf", "how?", *GIVEN, "-n", "1").stdout
    logged = json.loads(say("logs", "--json", "-n", "1").stdout)[0]
    assert logged["model"] == str(sdar.resolve())
    assert logged["response_json"]["numerics"] == "approximate"
    assert logged["response_json"]["cache"] == "exact"
    assert logged["response_json"]["passes"]["freeze"] > 0


def test_a_conversation_goes_on_from_anywhere(
    sdar: Path, say: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`-c` and `--cid` find the file that the log names; an alias and the default model are files, too."""
    monkeypatch.chdir(tmp_path)
    first = say("-m", "sdar.gguf", "how?", *GIVEN, "--no-stream").stdout.removesuffix("\n")
    monkeypatch.chdir("/")
    chat = [*ASK, {"role": "assistant", "content": first}, {"role": "user", "content": "so?"}]
    model = load(sdar)
    assert same(say("-c", "so?", *GIVEN).stdout, engine_text(model, chat))
    say("aliases", "set", "short", str(sdar))
    assert same(say("-m", "short", "how?", *GIVEN).stdout, engine_text(model, ASK))
    say("models", "default", "short")
    assert same(say("how?", *GIVEN).stdout, engine_text(model, ASK))
    sdar.unlink()
    assert f"there is no '{sdar}'" in say("-m", str(sdar), "how?", code=1).output


async def test_a_registered_file_answers_by_its_name(sdar: Path, run: Run) -> None:
    """Sync and async, wherever llm is called from; `info` tells the backend."""
    run("dllm", "add", str(sdar), "mine")
    text = engine_text(load(sdar), ASK)
    assert same(run("-m", "mine", "how?", *GIVEN).stdout, text)
    response = llm.get_async_model("mine").prompt("how?", max_tokens=12, block_length=4, steps=2)
    assert await response.text() == text
    shown = run("dllm", "info", "-m", "mine").stdout
    assert "backend   llama_cpp: as asked for" in shown
    assert "llama.cpp llama-cpp-python 0.3." in shown
    assert str(sdar) in shown


def test_what_cannot_be_done_is_one_line(sdar: Path, say: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the engine as with any model; a dtype that keys cannot have names those they can."""
    for more, words in (
        (["-o", "mode", "luck"], "unknown mode 'luck'"),
        (["-o", "approximate_cache", "dual"], "approximate_cache"),
    ):
        output = say("-m", str(sdar), "how?", *GIVEN, *more, code=1).output
        assert words in output
        assert "Traceback" not in output
    plain = sdar.with_name("plain.gguf")
    plain.write_bytes(sdar.read_bytes().replace(b"dllm.config", b"none.config"))
    assert f"llm dllm add {plain}" in say("-m", str(plain), "how?", code=1).output
    say("dllm", "add", str(plain), "plain", "--family", "sdar")
    assert say("-m", "plain", "how?", *GIVEN).stdout == say("-m", str(sdar), "how?", *GIVEN).stdout
    monkeypatch.setenv("DLLM_DTYPE", "bfloat16")
    assert "'float16' or 'float32'" in say("-m", str(sdar), "how?", *GIVEN, code=1).output


def digest(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


#: llm in a folder, that heeds Ctrl-C, which processes in the background inherit as ignored.
LLM = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); os.chdir(sys.argv.pop(1)); "
    "from llm.cli import cli; cli(prog_name='llm')"
)


def asked(words: list[str], folder: Path, number: int | None = None) -> tuple[int | None, bytes, bytes]:
    """Exit code, what was shown and errors of a process, which may get a signal once it answers."""
    with TemporaryDirectory() as out:
        process = start(LLM, str(folder), *words, out=out)
        shown, errors = Path(out) / "stdout", Path(out) / "stderr"
        while number is not None and process.is_alive() and not (shown.exists() and shown.stat().st_size):
            time.sleep(0.005)
        if number is not None and process.is_alive():
            assert process.pid is not None
            os.kill(process.pid, number)
        process.join()
        return process.exitcode, shown.read_bytes(), errors.read_bytes()


@pytest.mark.slow
def test_killed_half_way(sdar: Path, run: Run, tmp_path: Path) -> None:
    """Ctrl-C and kill -9 in mid-answer: file, registry and log are whole, and the next answer is the same."""
    run("dllm", "add", str(sdar), "mine")
    words = ["how?", "-o", "max_tokens", "240", "-o", "block_length", "4", "-o", "steps", "4"]
    command = ["-m", "./sdar.gguf", *words]
    whole = run("-m", "mine", *words).stdout_bytes
    folder = registry_file().parent
    before = {path.name: digest(path) for path in (sdar, registry_file())}
    logged = 1
    for number, code in ((signal.SIGINT, 1), (signal.SIGKILL, -signal.SIGKILL)):
        # On a busy machine the answer may be there before the signal is.
        for _ in range(10):
            found, shown, errors = asked(command, tmp_path, number)
            if found:
                break
            logged += 1
        assert found == code, errors
        assert shown
        assert whole.startswith(shown.rstrip(b"\n"))
        assert len(shown) < len(whole)
        assert b"Traceback" not in errors
        assert {path.name: digest(path) for path in (sdar, registry_file())} == before
        with sqlite3.connect(folder / "logs.db") as log:
            assert log.execute("pragma integrity_check").fetchall() == [("ok",)]
        assert len(json.loads(run("logs", "--json", "-n", "0").stdout)) == logged
    assert asked(command, tmp_path)[:2] == (0, whole)
    assert len(json.loads(run("logs", "--json", "-n", "0").stdout)) == logged + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llm", "sdar", "sdar.gguf"]
