"""Countdown and 3-SAT: answers that cheat, prompts that are none, and search against plain enumeration."""

from itertools import islice
from itertools import product

import pytest

from dllm_plugins.errors import RequestError
from dllm_plugins.reasoning import countdown
from dllm_plugins.reasoning import sat
from dllm_plugins.reasoning.countdown import CountdownTask
from dllm_plugins.reasoning.sat import SatTask
from dllm_plugins.reasoning.task import examples

DOWN = CountdownTask(3)
ASKED = countdown.written([3, 7, 2], 42)


@pytest.mark.parametrize("answer", ["3*7=21,21*2=42.", "7*2=14,14*3=42.", "2*3=6,6*7=42."])
def test_any_right_way_counts(answer: str) -> None:
    assert DOWN.right(ASKED, tuple(answer))


@pytest.mark.parametrize(
    "answer",
    [
        "6*7=42.",  # 6 is no input
        "7*6=42,3-2=1.",
        "3*7=21,21+21=42.",  # a result used twice
        "7+7=14,14*3=42.",  # an input used twice, another not at all
        "3*7=21.",  # not the target
        "3*7=22,22*2=42.",  # untrue
        "3*7=21,21*2=42",  # no end
        "3*7=21,21*2=42..",
        "42.",
        "3-7=-4,2*2=42.",
        "3*7=21,21*2=42,42/1=42.",
        ".",
        "",
        "3*7=²1,21*2=42.",
    ],
)
def test_cheating_at_countdown_is_wrong(answer: str) -> None:
    assert not DOWN.right(ASKED, tuple(answer))


def test_fractions_and_nothing_are_no_results() -> None:
    assert countdown.apply("/", 7, 2) is None
    assert countdown.apply("-", 2, 2) is None
    assert countdown.apply("/", 8, 2) == 4


def test_every_way_that_search_finds_is_right() -> None:
    found = list(countdown.solutions([3, 7, 2], 42))
    assert len(found) == 3
    assert all(DOWN.right(ASKED, countdown.shown(steps)) for steps in found)
    assert not list(countdown.solutions([1, 1, 1], 90))


@pytest.mark.parametrize("prompt", ["", "3,7,2", "3,?42", "3,x,?42", "?1"])
def test_what_is_no_countdown_is_refused(prompt: str) -> None:
    with pytest.raises(RequestError, match="such as '3,7,2,"):
        countdown.read(tuple(prompt))


FORMULA = ("1", "-2", "3", "/", "-1", "2", "4", "/")


def test_any_assignment_that_holds_counts_and_no_other() -> None:
    task = SatTask(5)
    for values in product("TF", repeat=5):
        one, two, three, four = (value == "T" for value in values[:4])
        assert task.right(FORMULA, values) == ((one or not two or three) and (not one or two or four))


@pytest.mark.parametrize("answer", ["", "T", "TTTTTT", "TTTT?", "ttttt", "TTTT/"])
def test_cheating_at_sat_is_wrong(answer: str) -> None:
    assert not SatTask(5).right(FORMULA, tuple(answer))


@pytest.mark.parametrize("prompt", ["", "/", "1 2 6 /", "1 x 2", "0 1 2", "1 --2 3"])
def test_what_is_no_formula_is_refused(prompt: str) -> None:
    with pytest.raises(RequestError, match=r"no literal|no clause"):
        sat.read(tuple(prompt.split()), 5)


def test_formulas_have_the_size_of_the_phase_transition() -> None:
    assert [SatTask(n).clauses for n in (5, 7, 9)] == [41, 46, 52]
    example = next(examples(SatTask(7), 0, test=True))
    assert len(sat.read(example.prompt, 7)) == 46


def test_a_sat_solver_agrees_with_our_searches() -> None:
    pytest.importorskip("pysat", reason="needs the extra reasoning")
    from dllm_plugins.reasoning import sudoku
    from dllm_plugins.reasoning.grading import grade_formula
    from dllm_plugins.reasoning.grading import grade_sudoku

    for side in (4, 6):
        for example in islice(examples(sudoku.SudokuTask(side), 4, test=False), 5):
            grade = grade_sudoku("".join(example.prompt))
            assert (grade.solution, grade.several) == ("".join(example.answer), False)
    assert grade_sudoku("." * 16).several
    assert grade_sudoku("123." + "...4" + "." * 8).solution is None
    for example in islice(examples(SatTask(5), 4, test=False), 5):
        solution = grade_formula(sat.read(example.prompt, 5), 5).solution
        assert solution is not None
        assert SatTask(5).right(example.prompt, tuple(solution))
    assert grade_formula([(1,), (-1,)], 1).solution is None
