"""`dllm-sudoku` in every host: llm and its commands, LangChain, the server, and what it serves to others."""

import json
import re
import sys
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from typing import Any
from typing import cast

import httpx
import llm
import pytest
from click.testing import CliRunner
from click.testing import Result
from langchain_core.messages import AIMessage
from llm.cli import cli
from rich.console import Console

import dllm_plugins
from dllm_plugins import SamplingConfig
from dllm_plugins import hookimpl
from dllm_plugins import plugins
from dllm_plugins import sharing
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Event
from dllm_plugins.models import Preset
from dllm_plugins.presets import SUDOKU
from dllm_plugins.presets.model import preset_of
from dllm_plugins.serving.background import Background
from dllm_plugins.serving.local_socket import LocalSocket
from dllm_plugins.serving.settings import Loading
from dllm_plugins.serving.settings import ServerSettings
from dllm_plugins.sharing import SharedModel
from dllm_plugins.warm.place import VARIABLE
from langchain_dllm import ChatDLLM
from llm_dllm import watch_command
from llm_dllm.loading import LoadChoice
from llm_dllm.model import events

from ..llm_dllm.screen import Screen
from .conftest import OPTIONS

Run = Callable[..., Result]
CLUES = "12.. .... .... ..1."
IMPOSSIBLE = "123. ...4 .... ...."
ONE_BY_ONE = {"remasking": "low_confidence_static"}


@pytest.fixture
def run(llm_folder: Path, monkeypatch: pytest.MonkeyPatch, shared: SharedModel) -> Run:
    """Call `llm`; the model is there already."""
    assert llm_folder.exists()
    for name, value in OPTIONS.items():
        monkeypatch.setenv(f"DLLM_{name.upper()}", value)

    def call(*arguments: str, code: int = 0) -> Result:
        # Names of plug-ins' models are looked for there.
        monkeypatch.setattr(sys, "argv", ["llm", *arguments])
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return call


@pytest.fixture
def answer(shared: SharedModel) -> str:
    """What the engine itself answers."""
    request = shared.model.chat_request([{"role": "user", "content": CLUES}])
    return shared.model.engine().generate([request])[0].text


def body(text: str) -> dict[str, Any]:
    """A request to a server, and for statistics."""
    return {"model": SUDOKU, "messages": [{"role": "user", "content": text}], "dllm": {}}


def test_llm_answers_and_logs_the_verdict(run: Run, answer: str) -> None:
    """The grid alone on standard output."""
    assert run("-m", SUDOKU, CLUES).stdout == f"{answer}\n"
    [logged] = json.loads(run("logs", "--json").stdout)
    assert (logged["response"], logged["response_json"]["verdict"]) == (answer, "right")
    assert logged["response_json"]["finish_reason"] == "eos"


def test_llm_tells_a_wrong_answer_as_any_other(run: Run) -> None:
    """The exit status is that of an answer; what the checker says is in the log."""
    told = run("-m", SUDOKU, CLUES, "-o", "temperature", "50", "-o", "seed", "3").stdout
    assert len(told.split()) == 4
    [logged] = json.loads(run("logs", "--json").stdout)
    assert logged["response_json"]["verdict"].startswith("wrong: ")


def test_llm_refuses_what_is_no_puzzle(run: Run) -> None:
    """One line, and the status of an error."""
    assert "has no solution" in run("-m", SUDOKU, IMPOSSIBLE, code=1).output
    assert (
        "unknown model 'dllm-hanoi'; known: dllm, dllm-path, dllm-sudoku"
        in run("-m", "dllm-hanoi", CLUES, code=1).output
    )


class Echo:
    """A plug-in whose puzzle is any text of the model's characters, and which takes every answer for right."""

    @dataclass(frozen=True)
    class Words:
        """A text."""

        prompt: str
        length: int = 3

        def laid_out(self, text: str) -> str:
            """With dashes behind the digits."""
            return "".join(f"{digit}-" for digit in text)

        def verdict(self, text: str) -> str:
            """Whether it was handed out as it is."""
            return "right" if len(text) == self.length else "unfinished"

    @hookimpl
    def register_models(self) -> list[Preset]:
        """One."""
        place = str(Path(dllm_plugins.__file__).parent / "data" / "presets" / "sudoku")
        return [preset_of("dllm-echo", "any text", place, self.Words, {"steps": 1})]


def test_a_plug_in_s_model_is_one_of_llm_too(run: Run) -> None:
    """It was never registered with llm: that its name begins so is enough."""
    name = plugins.manager().register(Echo())
    try:
        assert re.fullmatch(r"(\d-){3}\n", run("-m", "dllm-echo", "12..").stdout)
        [logged] = json.loads(run("logs", "--json").stdout)
        assert logged["response_json"]["verdict"] == "right"
        assert ChatDLLM(model="dllm-echo", **OPTIONS).invoke("12..", max_tokens=2).content.count("-") == 2
    finally:
        plugins.manager().unregister(name=name)


def test_an_alias_stays_what_it_is(run: Run, answer: str) -> None:
    """Though it is called like a plug-in's model."""
    run("aliases", "set", "dllm-grids", SUDOKU)
    assert run("-m", "dllm-grids", CLUES).stdout == f"{answer}\n"


def test_llm_lists_it(run: Run) -> None:
    """Among its models and among ours."""
    assert SUDOKU in run("models").stdout
    assert f"{SUDOKU} (comes with this package)" in run("dllm", "models").stdout
    assert isinstance(llm.get_async_model(SUDOKU), llm.AsyncModel)


def test_watch_shows_the_grid_and_replays_it(run: Run, answer: str, tmp_path: Path) -> None:
    """Its figures end with the verdict; the page has the lines of the grid."""
    page = tmp_path / "grid.html"
    told = run("dllm", "watch", "-m", SUDOKU, CLUES, "--trace", str(page)).stdout
    assert told.startswith(f"{answer}\n16 tokens")
    assert told.endswith(" · right\n")
    assert '"1\\n"' in page.read_text(encoding="utf-8")


def test_a_terminal_shows_rows_as_they_fill(run: Run, answer: str) -> None:
    """Drafts stand in the lines of the grid while cells are open; in the end every row is there once."""
    screen, seen = Screen(40, 12), list[str]()

    def told() -> Iterator[Event]:
        chat = [{"role": "user", "content": CLUES}]
        for event in events(chat, SamplingConfig(steps=8, preset_options=ONE_BY_ONE), LoadChoice(SUDOKU, named=True)):
            seen.append("|".join(line.strip() for line in screen.lines if line.strip()))
            yield event

    console = Console(file=cast(IO[str], screen), force_terminal=True, width=40, height=12, legacy_windows=False)
    watch_command._watch_live(cast(Generator[Event, None, None], told()), console)
    assert [line.strip() for line in screen.lines if line.strip()] == answer.split()
    grids = [shown for shown in seen if re.fullmatch(r"([1-4·]{4}\|){3}[1-4·]{4}", shown)]
    assert any(re.search(r"·\|?[1-4]", shown) for shown in grids), "cells are settled out of order"


def test_a_file_of_puzzles_is_answered_row_by_row(run: Run, answer: str, tmp_path: Path) -> None:
    """What is no puzzle fails alone; the others have their verdicts."""
    rows = [
        {"custom_id": text, "method": "POST", "url": "/v1/chat/completions", "body": body(text)}
        for text in (CLUES, IMPOSSIBLE)
    ]
    (tmp_path / "asked.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    told = tmp_path / "told.jsonl"
    assert "2 rows, 1 failed" in run("dllm", "batch", str(tmp_path / "asked.jsonl"), str(told), "-m", SUDOKU).output
    good, bad = map(json.loads, told.read_text().splitlines())
    assert good["response"]["body"]["choices"][0]["message"]["content"] == answer
    assert good["response"]["body"]["dllm"]["statistics"][0]["verdict"] == "right"
    assert "has no solution" in bad["error"]["message"]


def test_langchain_answers(shared: SharedModel, answer: str) -> None:
    """Whole, streamed, and many at once."""
    model = ChatDLLM(model=SUDOKU, **OPTIONS)
    told = model.invoke(CLUES)
    assert told.content == answer
    assert told.response_metadata["statistics"]["verdict"] == "right"
    assert "".join(str(chunk.content) for chunk in model.stream(CLUES)) == answer
    good, bad = model.batch([CLUES, IMPOSSIBLE], return_exceptions=True)
    assert isinstance(good, AIMessage)
    assert isinstance(bad, RequestError)


def test_a_server_answers_and_lends_it(
    shared: SharedModel, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over HTTP with the statistics, and through its socket, where nothing is loaded."""
    place = tmp_path / "server" / "here.sock"
    settings = ServerSettings(models={SUDOKU: Loading(SUDOKU, dict(OPTIONS))})
    with LocalSocket(place) as local, Background(settings, local=local) as server:
        told = httpx.post(f"{server.address}/chat/completions", json=body(CLUES), timeout=60).json()
        assert told["choices"][0]["message"]["content"] == answer
        assert told["choices"][0]["finish_reason"] == "stop"
        assert told["dllm"]["statistics"][0]["verdict"] == "right"
        refused = httpx.post(f"{server.address}/chat/completions", json=body(IMPOSSIBLE), timeout=60)
        assert (refused.status_code, "has no solution" in refused.text) == (400, True)
        monkeypatch.setenv(VARIABLE, str(place))
        monkeypatch.setattr(sharing, "shared_model", _refuse)
        warm = ChatDLLM(model=SUDOKU, **OPTIONS)
        found = warm.invoke(CLUES)
        assert (found.content, found.response_metadata["statistics"]["verdict"]) == (answer, "right")
        with pytest.raises(RequestError, match="has no solution"):
            warm.invoke(IMPOSSIBLE)


def _refuse(name: str, **_options: Any) -> SharedModel:
    raise AssertionError(f"{name} was loaded here")
