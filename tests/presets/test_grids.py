"""Grids as puzzles: what is read, what is refused, how answers are laid out and judged."""

import pytest

from dllm_plugins.errors import RequestError
from dllm_plugins.presets.grids import GridReader
from dllm_plugins.text.puzzles import GridLayout

CLUES, SOLVED = "12.. .... .... ..1.", "1243342141322314"
READ = GridReader((4,))


@pytest.mark.parametrize("text", [CLUES, CLUES.replace(" ", "\n"), CLUES.replace(" ", ""), CLUES.replace(".", "0")])
def test_rows_and_blanks_are_written_in_several_ways(text: str) -> None:
    """It is the same puzzle."""
    assert READ(text).prompt == CLUES.replace(" ", "")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hello", "16, 36 or 81 cells, and this has 5"),
        ("12x. .... .... ..1.", "'x' is no cell of a 4x4 Sudoku"),
        ("5... .... .... ....", "'5' is no cell of a 4x4 Sudoku"),
        ("11.. .... .... ....", "1 stands at row 1, column 1 and row 1, column 2"),
        ("123. ...4 .... ....", "the Sudoku 123. ...4 .... .... has no solution"),
        ("." * 81, "this Sudoku is 9x9, and the model was trained for 4x4"),
        ("", "and this has 0"),
    ],
)
def test_what_is_no_puzzle_is_refused(text: str, words: str) -> None:
    """Each with what is wrong with it."""
    with pytest.raises(RequestError, match=words):
        READ(text)


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (SOLVED, "right"),
        # The clues leave room for others.
        ("1234341221434321", "wrong: 2 for the clue 1 in row 4, column 3"),
        ("2143342141322314", "wrong: 2 for the clue 1 in row 1, column 1"),
        ("1243342141322311", "wrong: no 4 in row 4"),
        ("1243342141", "unfinished: 10 of 16 cells"),
        ("", "unfinished: 0 of 16 cells"),
    ],
)
def test_answers_are_judged(answer: str, verdict: str) -> None:
    """Right, or the first thing that is wrong."""
    assert READ(CLUES).verdict(answer) == verdict


def test_any_solution_counts() -> None:
    """Of an empty grid there are 288."""
    read = READ("." * 16)
    assert read.verdict(SOLVED) == read.verdict("1234341221434321") == "right"


def test_an_answer_is_laid_out_as_it_grows() -> None:
    """What was handed out stays, and a draft goes on from it."""
    layout, told, whole = GridLayout(READ(CLUES)), "", "1243\n3421\n4132\n2314"
    for end in (0, 3, 4, 5, 16):
        told += layout.push(SOLVED[:end])
        assert told + layout.draft(SOLVED[:end], SOLVED[end:]) == whole
    assert told == layout.said == whole
