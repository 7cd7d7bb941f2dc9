"""`llm -m dllm`, `llm dllm watch` and `llm dllm fill` with a server: the same text, options, errors and statistics."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llm
import pytest
from click.testing import CliRunner
from click.testing import Result
from llm.cli import cli

from dllm_plugins.serving.settings import Loading
from dllm_plugins.sharing import SharedModel
from dllm_plugins.warm.place import VARIABLE
from llm_dllm import loading as loadings

from .conftest import Serve
from .conftest import untimed
from .test_server import nobody_left
from .test_server import slow

__all__ = ["slow"]
#: What each is asked, with a server and without.
ASKED = (
    ("-m", "dllm", "why?", "-o", "max_tokens", "9"),
    ("-m", "dllm", "why?", "-s", "Be brief.", "-o", "temperature", "0.9", "-o", "seed", "4", "-o", "max_tokens", "9"),
    ("-m", "dllm", "why?", "--schema", '{"enum": ["a", "b"]}', "-o", "max_tokens", "9"),
    ("-m", "dllm", "It is ", "-o", "suffix", " or not.", "-o", "max_tokens", "5", "-o", "mode", "diffusion"),
    ("-m", "dllm", "why?", "--no-stream", "-o", "mode", "diffusion", "-o", "max_tokens", "9"),
    ("-m", "dllm", ""),
    ("-m", "dllm", "why?", "-o", "mode", "none-such"),
    ("-m", "dllm", "why?", "-o", "top_k", "4"),
    (
        "-m",
        "dllm",
        "why?",
        "-o",
        "mode",
        "diffusion",
        "-o",
        "rule",
        "entropy_bound",
        "-o",
        "rule_options",
        '{"b": [1]}',
    ),
    ("-m", "dllm", "a" * 5000),
    ("-m", "dllm", "why?", "-o", "thinking", "true"),
    ("dllm", "watch", "why?", "-o", "max_tokens", "9", "-o", "mode", "diffusion"),
    ("dllm", "watch", "It is <fill>.", "--gap", "<fill>", "-o", "mode", "diffusion", "-o", "max_tokens", "4"),
    ("dllm", "watch", "why?", "-o", "mode", "none-such"),
    ("dllm", "fill", "It is <fill> or <fill>.", "--max-tokens", "4", "--for", "2", "regex", "[0-9]{2}"),
    ("dllm", "fill", "It is <fill>.", "--tokens", "2", "--prompt", "why?", "--only-gaps"),
    ("dllm", "fill", "It is <fill>.", "-o", "mode", "ar"),
    ("dllm", "edit", "It is bad or not.", "--find", "bad", "--max-tokens", "4"),
)


@pytest.fixture(autouse=True)
def chosen(loading: Loading, llm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model in place of the default one."""
    assert llm_folder.exists()
    for name, value in loading.options.items():
        monkeypatch.setenv(f"DLLM_{name.upper()}", value)
    monkeypatch.setattr(loadings, "_answering", {})
    monkeypatch.setattr(loadings, "_held", {})


@pytest.fixture
def both(
    serve: Serve, held: SharedModel, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], Any]], tuple[Any, Any]]:
    """What something gives with a server, where nothing can be loaded, and without one."""
    serve()

    def run(ask: Callable[[], Any]) -> tuple[Any, Any]:
        held.prefixes.clear()
        with monkeypatch.context() as patch:
            patch.setattr(loadings, "loaded_model", lambda choice: pytest.fail("the model was loaded here"))
            found = ask()
        held.prefixes.clear()
        with monkeypatch.context() as patch:
            patch.delenv(VARIABLE)
            return found, ask()

    return run


def shown(result: Result) -> tuple[int, str, str]:
    """How a command ended, and what it said."""
    return result.exit_code, untimed(result.stdout), untimed(result.stderr)


@pytest.mark.parametrize("arguments", ASKED, ids=lambda arguments: " ".join(arguments)[:60])
def test_commands(both: Callable[..., tuple[Any, Any]], arguments: tuple[str, ...]) -> None:
    """What they print, to the last character but seconds."""
    found, expected = both(lambda: shown(CliRunner().invoke(cli, arguments)))
    assert found == expected


def test_pages_of_traces(both: Callable[..., tuple[Any, Any]], tmp_path: Path) -> None:
    """Of an answer and of gaps."""
    page = tmp_path / "trace.html"

    def traced(*arguments: str) -> str:
        result = CliRunner().invoke(cli, ("dllm", *arguments, "--trace", str(page)))
        assert result.exit_code == 0, result.output
        return untimed(page.read_text())

    found, expected = both(lambda: traced("watch", "why?", "-o", "max_tokens", "9"))
    assert found == expected
    found, expected = both(lambda: traced("fill", "It is <fill> or <fill>.", "--max-tokens", "3"))
    assert found == expected


def test_what_is_logged(both: Callable[..., tuple[Any, Any]]) -> None:
    """Usage, statistics, log-probabilities with the texts of tokens; sync and async."""

    def asked() -> Any:
        response = llm.get_model("dllm").prompt("why?", max_tokens=9, logprobs=2)
        return response.text(), response.usage(), untimed_json(response.response_json)

    def in_asyncio() -> Any:
        async def ask() -> Any:
            response = llm.get_async_model("dllm").prompt("why?", max_tokens=9, temperature=0.5, seed=1)
            return await response.text(), await response.usage(), untimed_json(response.response_json)

        return asyncio.run(ask())

    for ask in (asked, in_asyncio):
        found, expected = both(ask)
        assert found == expected


def untimed_json(found: Any) -> dict[str, Any]:
    """Statistics without seconds."""
    return {name: value for name, value in found.items() if "seconds" not in name}


def test_tools_and_turns(both: Callable[..., tuple[Any, Any]]) -> None:
    """Calls, which the tiny model makes none of, or none that can be read; the next turn goes on from the last."""

    def add(a: int) -> int:
        """Add."""
        return a

    def talk() -> list[str]:
        conversation = llm.get_model("dllm").conversation()
        first = conversation.prompt("why?", max_tokens=5)
        texts = [first.text(), conversation.prompt("how?", max_tokens=5).text()]
        response = llm.get_model("dllm").prompt("add 2", tools=[add], max_tokens=90)
        try:
            texts += [response.text(), str([(call.name, call.arguments) for call in response.tool_calls()])]
        except llm.ModelError as error:
            texts.append(str(error))
        return texts

    found, expected = both(talk)
    assert found == expected


def test_without_a_server(place: Path, held: SharedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` loads the model as before; a path is an error that says how to mend it."""
    result = CliRunner().invoke(cli, ASKED[0])
    assert result.exit_code == 1
    assert str(place) in result.output
    assert "unset DLLM_SERVER" in result.output
    monkeypatch.setenv(VARIABLE, "auto")
    monkeypatch.setenv("DLLM_CACHE", str(place.parent))
    result = CliRunner().invoke(cli, ASKED[0])
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_an_interrupt(serve: Serve, held: SharedModel, slow: None) -> None:
    """Ctrl-C at the client, which has imported nothing that computes, frees the row."""
    serve()
    code = (
        # A shell starts what runs in the background without Ctrl-C.
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nfrom llm.cli import cli\n"
        "try:\n    cli(sys.argv[1:], standalone_mode=False)\n"
        "finally:\n    print('heavy', {'torch', 'transformers', 'tokenizers'} & {*sys.modules}, file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "-m", "dllm", "why?", "-o", "max_tokens", "3000", "-o", "mode", "ar"]
    command += ["-o", "min_new_tokens", "3000"]
    with subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)
        assert held._engine.active
        process.send_signal(signal.SIGINT)
        said = process.stderr.read().decode()
        assert process.wait(60) != 0
    assert "heavy set()" in said, said
    assert nobody_left(held)
