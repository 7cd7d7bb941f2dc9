"""Path finding: answers that cheat, prompts that are none, levels."""

import random
from itertools import islice

import pytest

from dllm_plugins.errors import RequestError
from dllm_plugins.reasoning.path import PathTask
from dllm_plugins.reasoning.path import read
from dllm_plugins.reasoning.path import ways
from dllm_plugins.reasoning.task import examples

TASK = PathTask(nodes=3)
#: Two ways cross at 1: 0 1 2 and 3 1 4.
PROMPT = ("0>", "1", "1>", "2", "3>", "1", "1>", "4", "?", "0", "2", "=")


@pytest.mark.parametrize(
    "answer",
    [
        "0 1 4 .",  # the wrong way at the branch
        "0 2 .",  # no such edge
        "0 1 2",  # no end
        "0 1 2 . .",
        "1 2 .",  # not from the start
        "2 1 0 .",  # against the edges
        "0 1 .",
        ". ",
        "0 1 2 1 2 .",  # in circles
        "",
    ],
)
def test_cheats_are_wrong(answer: str) -> None:
    assert TASK.right(PROMPT, ("0", "1", "2", "."))
    assert not TASK.right(PROMPT, tuple(answer.split()))


@pytest.mark.parametrize(
    "prompt", ["", "?", "0> 1 0> 1", "0> ? 0 1", "0> x ? 0 1", "0 1 ? 0 1", "0> 1 ? 0", "0> 1 ? 0 =", "0> 1> ? 0 1"]
)
def test_what_is_no_question_is_refused_with_an_example(prompt: str) -> None:
    with pytest.raises(RequestError, match="3> 7 7> 1"):
        read(tuple(prompt.split()))


def test_there_is_one_way_and_the_level_says_where_it_branches() -> None:
    task, levels = PathTask(), set()
    for example in islice(examples(task, 5, test=False), 60):
        edges, start, goal = read(example.prompt)
        assert ways(edges, start, goal) == [example.answer[:-1]]
        branches = [number for number, node in enumerate(example.answer[:-1]) if _ways_on(edges, node) == 2]
        assert branches == ([example.level] if example.level < task.nodes - 1 else [])
        levels.add(example.level)
    assert levels == set(range(7))


def _ways_on(edges: set[tuple[str, str]], node: str) -> int:
    return sum(before == node for before, _ in edges)


def test_paths_of_any_length_are_drawn() -> None:
    example = PathTask(nodes=2).draw(random.Random(0))
    assert len(example.prompt) == PathTask(nodes=2).prompt
