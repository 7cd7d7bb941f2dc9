"""3-SAT near the phase transition: truth values under which every clause holds.

A prompt lists clauses of three literals, `-` before a negated one; the answer is a word a variable, T or F. Any
assignment under which all clauses hold is right, not only the one that the generator had in mind. There are
4.258 n + 58.26 n^(-2/3) clauses (Crawford and Auton 1996), where half of all random formulas have none.
"""

import math
import random
from dataclasses import dataclass
from itertools import product

from dllm_plugins.errors import RequestError
from dllm_plugins.reasoning.task import Example

TRUE, FALSE, NOT, BREAK = "T", "F", "-", "/"
Clause = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SatTask:
    """Formulas of so many variables."""

    variables: int = 5
    scale: str = "log2 of how many of all assignments there are for each that is right"

    @property
    def name(self) -> str:
        """sat5, sat7 and sat9."""
        return f"sat{self.variables}"

    @property
    def clauses(self) -> int:
        """How many a formula has."""
        return round(4.258 * self.variables + 58.26 * math.pow(self.variables, -2 / 3))

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Literals, each one word, the end of a clause, and truth values."""
        names = [str(number) for number in range(1, self.variables + 1)]
        return (*names, *(NOT + name for name in names), BREAK, TRUE, FALSE)

    @property
    def prompt(self) -> int:
        """Three literals and an end a clause."""
        return 4 * self.clauses

    @property
    def answer(self) -> int:
        """A value a variable."""
        return self.variables

    def draw(self, luck: random.Random) -> Example:
        """Random clauses, drawn anew until an assignment, drawn first, makes all of them hold."""
        values = [luck.random() < 0.5 for _ in range(self.variables)]
        formula = list[Clause]()
        while len(formula) < self.clauses:
            names = luck.sample(range(1, self.variables + 1), 3)
            clause = tuple(sorted(name if luck.random() < 0.5 else -name for name in names))
            if holds(clause, values):
                formula.append(clause)
        words = tuple(word for clause in formula for word in (*map(str, clause), BREAK))
        good = sum(
            all(holds(clause, tried) for clause in formula) for tried in product((False, True), repeat=self.variables)
        )
        level = self.variables - good.bit_length() + 1
        return Example(words, tuple(TRUE if value else FALSE for value in values), level, str(sorted(formula)))

    def right(self, prompt: tuple[str, ...], answer: tuple[str, ...]) -> bool:
        """Whether every clause holds."""
        if len(answer) != self.variables or not set(answer) <= {TRUE, FALSE}:
            return False
        values = [value == TRUE for value in answer]
        return all(holds(clause, values) for clause in read(prompt, self.variables))


def holds(clause: Clause, values: list[bool] | tuple[bool, ...]) -> bool:
    """Whether one of its literals is true."""
    return any(values[abs(literal) - 1] == (literal > 0) for literal in clause)


def read(prompt: tuple[str, ...], variables: int) -> list[Clause]:
    """The clauses of a prompt.

    :raises RequestError: for what is no such prompt.
    """
    found = [tuple(part.split()) for part in " ".join(prompt).split(BREAK) if part.split()]
    for clause in found:
        for word in clause:
            name = word.removeprefix(NOT)
            if not (name.isdecimal() and name.isascii() and 1 <= int(name) <= variables):
                raise RequestError(f"{word!r} is no literal; use 1 to {variables}, with - before what is negated")
    if not found:
        raise RequestError("there is no clause; give some, such as '1 -2 3 / -1 2 4'")
    return [tuple(int(word) for word in clause) for clause in found]
