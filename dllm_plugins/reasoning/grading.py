"""A SAT solver beside our own search: it solves puzzles and formulas, and counts its conflicts.

It needs the extra `reasoning` (python-sat). Checkers need nothing; see :mod:`~dllm_plugins.reasoning.sudoku`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from dllm_plugins.libraries.extras import need
from dllm_plugins.reasoning.sat import Clause
from dllm_plugins.reasoning.sudoku import BLANK
from dllm_plugins.reasoning.sudoku import side_of
from dllm_plugins.reasoning.sudoku import units

#: What counts conflicts.
_SOLVER = "minisat22"


@dataclass(frozen=True, slots=True)
class Grade:
    """What a solver found.

    :param solution: one, as the task writes it; None if there is none.
    :param several: whether there is another.
    :param conflicts: decisions that it had to take back until it knew that.
    """

    solution: str | None
    several: bool
    conflicts: int


def grade_sudoku(puzzle: str) -> Grade:
    """Solve a parsed board.

    :raises MissingExtraError: without python-sat.
    """
    side = side_of(puzzle)
    clauses = list(_rules(side))
    clauses += [(_named(cell, int(digit), side),) for cell, digit in enumerate(puzzle) if digit != BLANK]
    model, several, conflicts = _solve(clauses)
    if model is None:
        return Grade(None, False, conflicts)
    true = {name - 1 for name in model if name > 0}
    cells = range(side**2)
    return Grade(
        "".join(str(next(d for d in range(1, side + 1) if _named(c, d, side) - 1 in true)) for c in cells),
        several,
        conflicts,
    )


def grade_formula(clauses: Iterable[Clause], variables: int) -> Grade:
    """Solve a formula; the solution is T and F, a letter a variable.

    :raises MissingExtraError: without python-sat.
    """
    model, several, conflicts = _solve([*clauses, *((name, -name) for name in range(1, variables + 1))])
    if model is None:
        return Grade(None, False, conflicts)
    return Grade("".join("T" if name in model else "F" for name in range(1, variables + 1)), several, conflicts)


def _named(cell: int, digit: int, side: int) -> int:
    """The variable that says that a digit stands in a cell."""
    return cell * side + digit


def _rules(side: int) -> Iterable[Clause]:
    """Every cell has a digit, and every digit a place in each unit; neither has two."""
    digits, cells = range(1, side + 1), range(side**2)
    for cell in cells:
        yield tuple(_named(cell, digit, side) for digit in digits)
        yield from ((-_named(cell, one, side), -_named(cell, two, side)) for one, two in combinations(digits, 2))
    for unit in units(side):
        for digit in digits:
            yield tuple(_named(cell, digit, side) for cell in unit)
            yield from ((-_named(one, digit, side), -_named(two, digit, side)) for one, two in combinations(unit, 2))


def _solve(clauses: list[Clause]) -> tuple[set[int] | None, bool, int]:
    """A model, whether there is another, and conflicts on the way."""
    solvers: Any = need("pysat.solvers", "grading with a SAT solver")
    with solvers.Solver(_SOLVER, bootstrap_with=[list(clause) for clause in clauses]) as solver:
        if not solver.solve():
            return None, False, solver.accum_stats()["conflicts"]
        model = set(solver.get_model())
        solver.add_clause([-name for name in model])
        return model, solver.solve(), solver.accum_stats()["conflicts"]
