"""Sudoku of 4x4, 6x6 and 9x9 cells: boards as text, a checker, a solver that counts its dead ends, a generator.

A board is its cells row by row, digits and `.` for blanks. Puzzles have exactly one solution. How hard one is, search
says: singles (cells with one digit left, digits with one place left) are filled in until there are none; then the cell
with the fewest digits is guessed at, and every guess that comes to nothing counts. 0: no guess was wrong.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from dllm_plugins.errors import RequestError
from dllm_plugins.reasoning.task import Example

BLANK = "."
#: Rows and columns of a box, by the length of a side.
BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
#: The share of puzzles that keep more clues than they need.
_SPARE = 0.5


def parse(text: str) -> str:
    """A board as its cells: digits, and `.` or `0` for blanks, rows apart by spaces or line breaks or not at all.

    :raises RequestError: for what is no board, or breaks a rule already.
    """
    cells = "".join(text.split()).replace("0", BLANK)
    side = next((side for side in BOXES if side * side == len(cells)), None)
    if side is None:
        raise RequestError(
            f"a Sudoku has 16, 36 or 81 cells, and this has {len(cells)}; give every cell, . or 0 for blanks"
        )
    digits = BLANK + digits_of(side)
    wrong = next((cell for cell in cells if cell not in digits), None)
    if wrong is not None:
        raise RequestError(f"{wrong!r} is no cell of a {side}x{side} Sudoku; use 1 to {side}, and . or 0 for blanks")
    check(cells)
    return cells


def check(cells: str) -> None:
    """Refuse a board with a digit twice in a row, column or box.

    :raises RequestError: naming the digit and its two cells.
    """
    side = side_of(cells)
    for unit in units(side):
        seen = dict[str, int]()
        for cell in unit:
            digit = cells[cell]
            if digit in seen:
                places = " and ".join(f"row {at // side + 1}, column {at % side + 1}" for at in (seen[digit], cell))
                raise RequestError(f"{digit} stands at {places}, which see each other; no Sudoku begins so")
            if digit != BLANK:
                seen[digit] = cell


def side_of(cells: str) -> int:
    """The length of a side of a parsed board."""
    return next(side for side in BOXES if side * side == len(cells))


def digits_of(side: int) -> str:
    """The digits of a board."""
    return "".join(str(digit) for digit in range(1, side + 1))


def rows_of(cells: str) -> str:
    """A board for people: a line a row."""
    side = side_of(cells)
    return "\n".join(cells[begin : begin + side] for begin in range(0, len(cells), side))


def solves(puzzle: str, answer: str) -> bool:
    """Whether `answer` is a full, valid board that keeps the clues. Any solution counts."""
    if len(answer) != len(puzzle) or len(answer) not in (side * side for side in BOXES):
        return False
    side = side_of(puzzle)
    kept = all(clue in (BLANK, digit) for clue, digit in zip(puzzle, answer, strict=True))
    return kept and all(sorted(answer[cell] for cell in unit) == list(digits_of(side)) for unit in units(side))


@cache
def units(side: int) -> tuple[tuple[int, ...], ...]:
    """The sets of cells that hold each digit once: rows, columns, boxes."""
    tall, wide = BOXES[side]
    lines = range(side)
    rows = [tuple(side * row + column for column in lines) for row in lines]
    columns = [tuple(side * row + column for row in lines) for column in lines]
    boxes = [
        tuple(side * (top + row) + left + column for row in range(tall) for column in range(wide))
        for top in range(0, side, tall)
        for left in range(0, side, wide)
    ]
    return (*rows, *columns, *boxes)


@cache
def _peers(side: int) -> tuple[tuple[int, ...], ...]:
    """The cells that each cell sees."""
    return tuple(
        tuple({other for unit in units(side) if cell in unit for other in unit} - {cell}) for cell in range(side**2)
    )


@dataclass
class Search:
    """All solutions of a board, one by one.

    :param dead_ends: guesses so far that came to nothing.
    :param luck: tries digits in random order, where given.
    """

    cells: str
    dead_ends: int = 0
    luck: random.Random | None = None

    def solutions(self) -> Iterator[str]:
        """Solve it."""
        side = side_of(self.cells)
        every = (1 << side) - 1
        left = [every] * side**2
        given = [(cell, 1 << int(digit) - 1) for cell, digit in enumerate(self.cells) if digit != BLANK]
        if all(_place(left, cell, bit, side) for cell, bit in given) and _singles(left, side):
            yield from self._guess(left, side)
        else:
            self.dead_ends += 1

    def _guess(self, left: list[int], side: int) -> Iterator[str]:
        unsure = [cell for cell, bits in enumerate(left) if bits.bit_count() > 1]
        if not unsure:
            yield "".join(str(bits.bit_length()) for bits in left)
            return
        if self.luck is not None:
            self.luck.shuffle(unsure)
        cell = min(unsure, key=lambda at: left[at].bit_count())
        bits = [1 << digit for digit in range(side) if left[cell] >> digit & 1]
        if self.luck is not None:
            self.luck.shuffle(bits)
        for bit in bits:
            after, found = left.copy(), False
            if _place(after, cell, bit, side) and _singles(after, side):
                for solution in self._guess(after, side):
                    found = True
                    yield solution
            if not found:
                self.dead_ends += 1


def _place(left: list[int], cell: int, bit: int, side: int) -> bool:
    """Write a digit, and take it from all cells that see it; whether every cell has a digit left."""
    if not left[cell] & bit:
        return False
    left[cell] = bit
    for other in _peers(side)[cell]:
        if left[other] & bit:
            left[other] &= ~bit
            bits = left[other]
            if not bits or (bits.bit_count() == 1 and not _place(left, other, bits, side)):
                return False
    return True


def _singles(left: list[int], side: int) -> bool:
    """Write every digit that has one place left in a unit; whether the board can still be right."""
    again = True
    while again:
        again = False
        for unit in units(side):
            for digit in range(side):
                places = [cell for cell in unit if left[cell] >> digit & 1]
                if not places:
                    return False
                if len(places) == 1 and left[places[0]].bit_count() > 1:
                    again = True
                    if not _place(left, places[0], 1 << digit, side):
                        return False
    return True


def solve(puzzle: str) -> str:
    """The one solution.

    :raises RequestError: if there is none, or several.
    """
    found = []
    for solution in Search(puzzle).solutions():
        found.append(solution)
        if len(found) == 2:
            raise RequestError("this Sudoku has several solutions; give more clues")
    if not found:
        raise RequestError("this Sudoku has no solution; look its clues over")
    return found[0]


def solvable(puzzle: str) -> bool:
    """Whether there is a solution at all."""
    return next(Search(puzzle).solutions(), None) is not None


def unique(puzzle: str) -> bool:
    """Whether there is exactly one solution."""
    found = Search(puzzle).solutions()
    return next(found, None) is not None and next(found, None) is None


def dead_ends(puzzle: str) -> int:
    """How hard it is: guesses that came to nothing until all its solutions were known."""
    search = Search(puzzle)
    for _ in search.solutions():
        pass
    return search.dead_ends


@dataclass(frozen=True, slots=True)
class SudokuTask:
    """Puzzles of one size.

    :param side: 4, 6 or 9.
    """

    side: int = 4
    scale: str = "guesses of a search that came to nothing"

    @property
    def name(self) -> str:
        """sudoku4, sudoku6 or sudoku9."""
        return f"sudoku{self.side}"

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Digits and the blank."""
        return (*digits_of(self.side), BLANK)

    @property
    def prompt(self) -> int:
        """A cell a word."""
        return self.side**2

    @property
    def answer(self) -> int:
        """As many."""
        return self.side**2

    def draw(self, luck: random.Random) -> Example:
        """A random board whose cells are emptied in random order, as long as there is one solution."""
        full = next(Search(BLANK * self.side**2, luck=luck).solutions())
        order, cells = luck.sample(range(self.side**2), self.side**2), list(full)
        wanted = self._clues(luck)
        for cell in order:
            if sum(item != BLANK for item in cells) <= wanted:
                break
            kept, cells[cell] = cells[cell], BLANK
            if not unique("".join(cells)):
                cells[cell] = kept
        puzzle = "".join(cells)
        return Example(tuple(puzzle), tuple(full), dead_ends(puzzle), full)

    def _clues(self, luck: random.Random) -> int:
        """How many clues to stop at: as few as can be, or up to half of all cells."""
        return 0 if luck.random() > _SPARE else luck.randint(self.side**2 // 4, self.side**2 // 2)

    def right(self, prompt: tuple[str, ...], answer: tuple[str, ...]) -> bool:
        """See :func:`solves`."""
        return solves("".join(prompt), "".join(answer))
