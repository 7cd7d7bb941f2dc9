"""Models of llm that have answered, and what they answered: pickled, deep and shallow copies."""

import asyncio
import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llm
import pytest

from llm_dllm.entry import CheckpointFacts
from llm_dllm.entry import Entry
from llm_dllm.loading import LoadChoice
from llm_dllm.loading import loaded_model
from llm_dllm.model import DLLM
from llm_dllm.model import AsyncDLLM
from llm_dllm.options import LlmOptionError
from llm_dllm.options import Options

WAYS: dict[str, Callable[[Any], Any]] = {
    "pickled": lambda thing: pickle.loads(pickle.dumps(thing)),
    "deep": copy.deepcopy,
    "shallow": copy.copy,
}
ASKED: dict[str, Any] = {"max_tokens": 4, "temperature": 0.5, "seed": 3}


@pytest.fixture(params=["default", "file", "registered"])
def choice(request: pytest.FixtureRequest, checkpoint: Callable[..., Path]) -> LoadChoice:
    """What a model of llm may stand for."""
    if request.param == "default":
        return LoadChoice()
    folder = str(checkpoint("llada_dense"))
    if request.param == "file":
        return LoadChoice(folder, file=folder)
    texts = dict.fromkeys(("family", "licence", "attention", "cache", "sampler"), "")
    return LoadChoice("ours", Entry(source=folder, folder=folder, facts=CheckpointFacts(parameters=1, size=1, **texts)))


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_a_used_model_answers_alike(choice: LoadChoice, way: str) -> None:
    """Its conversation and its answers are copied, too; no copy loads the model again."""
    model = DLLM(choice)
    conversation = model.conversation()
    first = conversation.prompt("why?", **ASKED)
    text, held = first.text(), loaded_model(choice)
    made, again = WAYS[way](model), WAYS[way](first)
    assert made.prompt("why?", **ASKED).text() == again.text() == text
    if way != "shallow":
        # A shallow copy shares the list of responses.
        later = WAYS[way](conversation)
        assert later.prompt("and?", **ASKED).text() == conversation.prompt("and?", **ASKED).text()
    assert loaded_model(made.choice) is held


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_for_asyncio(way: str) -> None:
    """Also in another loop than the one it was used in."""

    async def answer(model: llm.AsyncModel) -> str:
        return str(await model.prompt("why?", **ASKED).text())

    model = AsyncDLLM()
    assert asyncio.run(answer(model)) == asyncio.run(answer(WAYS[way](model)))


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_an_error(way: str) -> None:
    """As other processes hand it on."""
    with pytest.raises(LlmOptionError) as caught:
        Options(top_k="x")
    made = WAYS[way](caught.value)
    assert str(made) == str(caught.value)
    assert made.message == caught.value.message
