"""The model `dllm-path` through the engine and `llm`: accuracy, names of nodes, verdicts, errors."""

import json
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from llm.cli import cli

from dllm_plugins import SamplingConfig
from dllm_plugins.events import Commit
from dllm_plugins.events import Finish
from dllm_plugins.models import Model
from dllm_plugins.presets import PATH
from dllm_plugins.reasoning import TASKS
from dllm_plugins.reasoning.task import Example
from dllm_plugins.reasoning.task import examples
from dllm_plugins.sharing import SharedModel
from dllm_plugins.sharing import shared_model
from langchain_dllm import ChatDLLM

from .conftest import OPTIONS

TASK = TASKS["path5"]
ASKED = "home>park mill>inn park>lake lake>inn inn>hill inn>ford shop>mill ford>sea ? home hill"
WAY = "home park lake inn hill"
#: What docs/presets.md claims of questions that training never saw; a share of so many.
COUNT, CLAIMED = 60, 1.0


@pytest.fixture(scope="module")
def paths() -> SharedModel:
    """It finds paths, for all who ask in this process."""
    return shared_model(PATH, **OPTIONS)


@pytest.fixture
def model(paths: SharedModel) -> Model:
    """The model alone."""
    return paths.model


def asked(text: str) -> list[dict[str, str]]:
    """A chat."""
    return [{"role": "user", "content": text}]


def text_of(example: Example) -> str:
    """A question as people write it."""
    return " ".join(example.prompt[:-1])


def test_unseen_questions_are_answered_as_often_as_claimed(model: Model) -> None:
    """And the verdict is the strict checker's, which knows no names and no model."""
    found = list(islice(examples(TASK, 7, test=True), COUNT))
    answers = model.engine().generate([model.chat_request(asked(text_of(example))) for example in found])
    said = [(*answer.text.split(), ".") for answer in answers]
    right = [TASK.right(example.prompt, answer) for example, answer in zip(found, said, strict=True)]
    assert sum(right) / COUNT >= CLAIMED - 1 / COUNT
    assert [answer.usage.verdict == "right" for answer in answers] == right
    assert {answer.usage.total_passes for answer in answers} == {6}


def test_nodes_have_the_names_they_were_asked_with(paths: SharedModel) -> None:
    """Commits are the text in pieces, whole names each."""
    events = list(paths.stream(paths.model.chat_request(asked(ASKED))))
    pieces = [event.text for event in events if isinstance(event, Commit)]
    finish = events[-1]
    assert isinstance(finish, Finish)
    assert "".join(pieces) == WAY == finish.text
    assert set(" ".join(pieces).split()) == set(WAY.split())
    assert (finish.reason, finish.usage.verdict) == ("eos", "right")


def test_an_answer_that_is_cut_is_not_right(model: Model) -> None:
    """By its room."""
    [found] = model.engine().generate([model.chat_request(asked(ASKED), SamplingConfig(max_new_tokens=3))])
    assert (found.reason, found.text, found.usage.verdict) == ("length", "home park lake", "unfinished: 3 of 5 nodes")


@pytest.fixture
def run(llm_folder: Path, monkeypatch: pytest.MonkeyPatch, paths: SharedModel) -> Callable[..., Any]:
    """Call `llm`; the model is there already."""
    assert llm_folder.exists()
    for name, value in OPTIONS.items():
        monkeypatch.setenv(f"DLLM_{name.upper()}", value)

    def call(*arguments: str, code: int = 0) -> Any:
        monkeypatch.setattr(sys, "argv", ["llm", *arguments])
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return call


def test_llm_answers_with_the_path_alone(run: Callable[..., Any], tmp_path: Path) -> None:
    """The verdict is in the log; watch shows it, and a trace replays it with the names."""
    assert run("-m", PATH, ASKED).stdout == f"{WAY}\n"
    [logged] = json.loads(run("logs", "--json").stdout)
    assert logged["response_json"]["verdict"] == "right"
    page = tmp_path / "path.html"
    told = run("dllm", "watch", "-m", PATH, ASKED, "--trace", str(page)).stdout
    assert told.startswith(f"{WAY}\n")
    assert told.endswith(" · right\n")
    assert "lake" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("how far is it?", "is no question for a path"),
        (ASKED.replace("home hill", "hill home"), "no path leads from hill to home"),
        (ASKED.replace("shop>mill ", ""), "7 edges and 8 nodes"),
    ],
)
def test_llm_refuses_what_is_no_question(run: Callable[..., Any], text: str, words: str) -> None:
    """One line, and the status of an error."""
    assert words in run("-m", PATH, text, code=1).output


def test_langchain_answers(paths: SharedModel) -> None:
    """Whole and streamed."""
    model = ChatDLLM(model=PATH, **OPTIONS)
    told = model.invoke(ASKED)
    assert (told.content, told.response_metadata["statistics"]["verdict"]) == (WAY, "right")
    assert "".join(str(piece.content) for piece in model.stream(ASKED)) == WAY
