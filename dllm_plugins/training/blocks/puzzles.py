"""4x4 sudoku as text: a task whose answers can be checked, and where committing too much at once goes wrong.

A prompt is a board of 16 characters, digits and dots, row by row; an answer is the full
board. With few clues a board has many solutions, so each open cell alone has several good
digits while most combinations of them are wrong: even a perfect model errs if it commits
cells that depend on one another in one pass.
"""

from dataclasses import dataclass
from functools import cache
from itertools import permutations

import torch
from torch import Tensor

SIZE = 4
CELLS = SIZE * SIZE
DIGITS = "1234"
BLANK = "."
#: Ids are places in this list.
VOCABULARY = (*DIGITS, BLANK, "[MASK]", "[UNK]")
BLANK_ID = VOCABULARY.index(BLANK)
MASK_ID = VOCABULARY.index("[MASK]")
FEWEST_CLUES, MOST_CLUES = 2, 8
#: Every so many boards one is kept out of training.
HELD_OUT = 9


def groups() -> list[tuple[int, ...]]:
    """The 12 sets of cells that hold each digit once: rows, columns, 2x2 boxes."""
    rows = [tuple(range(SIZE * row, SIZE * (row + 1))) for row in range(SIZE)]
    columns = [tuple(range(column, CELLS, SIZE)) for column in range(SIZE)]
    boxes = [tuple(corner + step for step in (0, 1, SIZE, SIZE + 1)) for corner in (0, 2, 8, 10)]
    return rows + columns + boxes


def solves(clues: str, answer: str) -> bool:
    """Whether `answer` is a full, valid board that keeps the clues. Any solution counts."""
    if len(answer) != CELLS or not set(answer) <= set(DIGITS):
        return False
    kept = all(clue in (BLANK, digit) for clue, digit in zip(clues, answer, strict=True))
    return kept and all(len({answer[cell] for cell in group}) == SIZE for group in groups())


@cache
def boards() -> tuple[str, ...]:
    """All 288 valid boards, in order."""
    found = [""]
    for _ in range(SIZE):
        lines = ["".join(line) for line in permutations(DIGITS)]
        found = [board + line for board in found for line in lines if _fits(board + line)]
    return tuple(found)


def _fits(begin: str) -> bool:
    """Whether the first lines of a board break no rule."""
    parts = [[begin[cell] for cell in group if cell < len(begin)] for group in groups()]
    return all(len(part) == len(set(part)) for part in parts)


@dataclass(frozen=True, slots=True)
class Puzzles:
    """Boards to draw puzzles from, int64 [N, 16] of token ids."""

    cells: Tensor

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Prompts and answers, int64 [count, 16] each; as many clues as chance says."""
        answers = self.cells[torch.randint(len(self.cells), (count,), generator=generator)]
        clues = torch.randint(FEWEST_CLUES, MOST_CLUES + 1, (count, 1), generator=generator)
        order = torch.rand(count, CELLS, generator=generator).argsort(dim=1)
        return torch.where(order < clues, answers, BLANK_ID), answers


def split(seed: int) -> tuple[Puzzles, Puzzles]:
    """Boards to train on, and boards no training puzzle ever had as its answer."""
    table = torch.tensor([[VOCABULARY.index(digit) for digit in board] for board in boards()])
    table = table[torch.randperm(len(table), generator=torch.Generator().manual_seed(seed))]
    held_out = torch.arange(len(table)) % HELD_OUT == 0
    return Puzzles(table[~held_out]), Puzzles(table[held_out])


def text(ids: Tensor) -> str:
    """Token ids [16] as characters."""
    return "".join(VOCABULARY[item] for item in ids.tolist())
