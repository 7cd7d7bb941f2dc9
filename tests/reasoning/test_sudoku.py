"""Sudoku: parsing, cheats, the search against a SAT solver, difficulty."""

from itertools import islice

import pytest

from dllm_plugins.errors import RequestError
from dllm_plugins.reasoning.sudoku import SudokuTask
from dllm_plugins.reasoning.sudoku import dead_ends
from dllm_plugins.reasoning.sudoku import parse
from dllm_plugins.reasoning.sudoku import rows_of
from dllm_plugins.reasoning.sudoku import solvable
from dllm_plugins.reasoning.sudoku import solve
from dllm_plugins.reasoning.sudoku import solves
from dllm_plugins.reasoning.sudoku import unique
from dllm_plugins.reasoning.task import examples

PUZZLE, SOLUTION = "1..4" + "..1." + ".1.." + "4..1", "1234341221434321"
#: Arto Inkala's of 2012, known for how much of it must be guessed.
HARD = "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4.."


def test_a_board_may_be_written_in_many_ways() -> None:
    assert parse("1 . . 4\n..1.  .1..\n4001") == "1..4..1..1..4..1"
    assert rows_of(SOLUTION) == "1234\n3412\n2143\n4321"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "16, 36 or 81 cells, and this has 0"),
        ("1..4", "this has 4"),
        ("5" + "." * 15, "use 1 to 4"),
        ("x" + "." * 80, "use 1 to 9"),
        ("1..1" + "." * 12, "row 1, column 1 and row 1, column 4"),
        ("1..." + ".1.." + "." * 8, "row 1, column 1 and row 2, column 2"),
        ("12.." + "2..." + "." * 8, "row 1, column 2 and row 2, column 1"),
    ],
)
def test_what_is_no_board_is_refused(text: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        parse(text)


@pytest.mark.parametrize(
    "answer",
    [
        PUZZLE,
        SOLUTION[:-1],
        SOLUTION + "1",
        SOLUTION.replace("1", "x"),
        "1" * 16,
        "2143" + SOLUTION[4:],  # clues changed
        "1234" + "2341" + "3412" + "4123",  # rows and columns are right, boxes are not
        "",
    ],
)
def test_cheats_are_wrong(answer: str) -> None:
    assert not solves("1..............." if answer.startswith("12342341") else PUZZLE, answer)


def test_any_solution_counts() -> None:
    assert solves("." * 16, SOLUTION)
    assert solves("." * 16, SOLUTION.translate(str.maketrans("1234", "2341")))


def test_solving_says_what_is_wrong_with_a_puzzle() -> None:
    assert solves(HARD, solve(HARD))
    with pytest.raises(RequestError, match="several solutions"):
        solve("." * 16)
    with pytest.raises(RequestError, match="no solution"):
        solve("123." + "...4" + "." * 8)
    assert not solvable("123." + "...4" + "." * 8)


@pytest.mark.parametrize("side", [4, 6, 9])
def test_drawn_puzzles_have_one_solution(side: int) -> None:
    for example in islice(examples(SudokuTask(side), 2, test=False), 3):
        puzzle = "".join(example.prompt)
        assert unique(puzzle)
        assert solve(puzzle) == "".join(example.answer)
        assert example.level == dead_ends(puzzle)


def test_search_says_how_hard_a_puzzle_is() -> None:
    assert dead_ends(SOLUTION[:12] + "....") == 0
    assert dead_ends(HARD) > 20
