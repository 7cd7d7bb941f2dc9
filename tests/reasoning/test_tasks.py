"""Every task: drawn examples are right, splits are apart, seeds repeat."""

from itertools import islice

import pytest

from dllm_plugins.reasoning import TASKS
from dllm_plugins.reasoning.task import Task
from dllm_plugins.reasoning.task import examples
from dllm_plugins.reasoning.task import held_out

QUICK = [task for name, task in TASKS.items() if name not in ("sudoku9", "countdown4")]


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_an_example_is_right_and_fits(task: Task) -> None:
    for example in islice(examples(task, 0, test=False), 3):
        assert task.right(example.prompt, example.answer)
        assert len(example.prompt) <= task.prompt
        assert len(example.answer) <= task.answer
        assert {*example.prompt, *example.answer} <= set(task.vocabulary)


@pytest.mark.parametrize("task", QUICK, ids=lambda task: task.name)
def test_a_changed_word_is_never_right_by_accident(task: Task) -> None:
    """Where another answer is right, too, the checker's word is the task's own definition, tested below."""
    example = next(examples(task, 1, test=False))
    assert not task.right(example.prompt, ())
    assert not task.right(example.prompt, example.prompt)
    assert not task.right(example.prompt, example.answer[:-1])
    assert not task.right(example.prompt, (*example.answer, example.answer[-1]))


@pytest.mark.parametrize("task", QUICK, ids=lambda task: task.name)
def test_training_and_test_are_apart_whatever_the_seeds(task: Task) -> None:
    train = {example.key for example in islice(examples(task, 0, test=False), 40)}
    test = {example.key for example in islice(examples(task, 7, test=True), 10)}
    assert not train & test
    assert not any(map(held_out, train))
    assert all(map(held_out, test))


def test_a_seed_gives_the_same_examples_again_and_another_others() -> None:
    task = TASKS["path"]
    first, again, other = (
        [example.prompt for example in islice(examples(task, seed, test=False), 5)] for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_about_a_tenth_is_held_out() -> None:
    assert 60 < sum(held_out(str(number)) for number in range(1000)) < 140
