"""Copies of a model that has answered: pickled, deep, shallow, bound."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import RunnableParallel

from langchain_dllm import DLLM
from langchain_dllm import ChatDLLM


@pytest.fixture(params=[ChatDLLM, DLLM])
def used(request: pytest.FixtureRequest, loading: dict[str, Any]) -> Any:
    """A model that holds what it has loaded."""
    model = request.param(**{**loading, "max_tokens": 4, "temperature": 0.5, "seed": 3})
    model.invoke("why?")
    return model


WAYS: dict[str, Callable[[Any], Any]] = {
    "pickled": lambda model: pickle.loads(pickle.dumps(model)),
    "deep": copy.deepcopy,
    "shallow": copy.copy,
    "model_copy": lambda model: model.model_copy(),
    "deep model_copy": lambda model: model.model_copy(deep=True),
    "bound": lambda model: pickle.loads(pickle.dumps(model.bind(seed=3))),
    "configured": lambda model: copy.deepcopy(model.with_config(tags=["a"])),
    "parallel": lambda model: RunnableParallel(one=copy.deepcopy(RunnableParallel(one=model))),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_of_a_used_model_answers_alike(used: Any, way: str) -> None:
    """All but the pickled ones without loading anything again."""

    def said(answer: Any) -> Any:
        while isinstance(answer, dict):
            answer = answer["one"]
        return answer if isinstance(answer, str) else answer.content

    made = WAYS[way](used)
    assert said(made.invoke("why?")) == said(used.invoke("why?"))
    if way in ("deep", "deep model_copy"):
        assert made._loaded is used._loaded
