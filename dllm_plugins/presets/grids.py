"""Sudoku as a puzzle: a grid goes in, the solved grid alone comes out, row by row."""

from collections.abc import Iterator
from dataclasses import dataclass

from dllm_plugins.errors import RequestError
from dllm_plugins.reasoning.sudoku import BLANK
from dllm_plugins.reasoning.sudoku import digits_of
from dllm_plugins.reasoning.sudoku import parse
from dllm_plugins.reasoning.sudoku import rows_of
from dllm_plugins.reasoning.sudoku import side_of
from dllm_plugins.reasoning.sudoku import solvable
from dllm_plugins.reasoning.sudoku import solves
from dllm_plugins.reasoning.sudoku import units
from dllm_plugins.text.puzzles import RIGHT
from dllm_plugins.text.puzzles import UNFINISHED

_UNITS = ("row", "column", "box")


@dataclass(frozen=True, slots=True)
class Grid:
    """A board to be solved.

    :param prompt: its cells row by row, "." for blanks.
    """

    prompt: str

    @property
    def length(self) -> int:
        """A token a cell."""
        return len(self.prompt)

    def laid_out(self, text: str) -> str:
        """A line a row."""
        side = side_of(self.prompt)
        return "\n".join(text[begin : begin + side] for begin in range(0, len(text), side))

    def verdict(self, text: str) -> str:
        """Any solution is right that keeps the clues."""
        if solves(self.prompt, text):
            return RIGHT
        if len(text) < self.length:
            return f"{UNFINISHED}: {len(text)} of {self.length} cells"
        return f"wrong: {next(self._faults(text), 'no grid')}"

    def _faults(self, text: str) -> Iterator[str]:
        side = side_of(self.prompt)
        for cell, (clue, digit) in enumerate(zip(self.prompt, text, strict=False)):
            if clue not in (BLANK, digit):
                yield f"{digit} for the clue {clue} in row {cell // side + 1}, column {cell % side + 1}"
        for number, unit in enumerate(units(side)):
            missing = set(digits_of(side)) - {text[cell] for cell in unit}
            if missing:
                yield f"no {min(missing)} in {_UNITS[number // side]} {number % side + 1}"


@dataclass(frozen=True, slots=True)
class GridReader:
    """Makes a puzzle of a text.

    :param sides: lengths of a side that the model was trained for.
    """

    sides: tuple[int, ...]

    def __call__(self, text: str) -> Grid:
        """Read a board: rows apart by white space or not at all, `.` or `0` for blanks.

        :raises RequestError: for what is no board, one of another size, and one without a solution.
        """
        cells = parse(text)
        side = side_of(cells)
        if side not in self.sides:
            known = " or ".join(f"{side}x{side}" for side in self.sides)
            raise RequestError(f"this Sudoku is {side}x{side}, and the model was trained for {known}; give such a one")
        if not solvable(cells):
            raise RequestError(f"the Sudoku {' '.join(rows_of(cells).split())} has no solution; look its clues over")
        return Grid(cells)
