"""`llm dllm edit`."""

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from dllm_plugins import Edit
from dllm_plugins import Model
from llm_dllm.loading import loaded_model

Run = Callable[..., Result]
TEXT = "once upon a time"


@pytest.fixture
def model(tiny_llm: None) -> Model:
    """What the command loads."""
    return loaded_model().model


def test_spans_and_words(run: Run, model: Model) -> None:
    """The text on stdout is what Python gives, and what was changed on stderr."""
    found = model.edit(Edit(TEXT, [(5, 9), (12, 16)], 5))
    [first, _] = found.changes
    for more in (("--span", "5:9", "--span", "12:16"), ("--find", "upon", "--find", "time")):
        result = run("dllm", "edit", TEXT, *more, "--max-tokens", "5")
        assert result.stdout == found.text.encode(errors="replace").decode() + "\n"
        assert "5:9 'upon'" in result.stderr
    words = ("--find", "upon", "--find", "time", "--max-tokens", "5")
    told = json.loads(run("dllm", "edit", *words, "--json", input=TEXT).stdout)
    assert told["text"] == found.text
    assert told["changes"][0]["after"] == first.after
    assert told["statistics"]["mode"] == "diffusion"


@pytest.mark.parametrize(
    ("given", "told"),
    [((), "--span BEGIN:END"), (("--span", "5-9"), "5-9"), (("--find", "xyz"), "xyz"), (("--span", "5:99"), "99")],
)
def test_refused(run: Run, model: Model, given: tuple[str, ...], told: str) -> None:
    """Before anything is written."""
    result = run("dllm", "edit", TEXT, *given, code=1)
    assert told in result.stderr
