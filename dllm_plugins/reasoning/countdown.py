"""Countdown: make a target from numbers with + - * /, using every one once.

A prompt names the numbers, then the target; the answer is one step after another, `a+b=c` as five words. A step uses up
two numbers that are there and leaves its result; the last result is the target. Values are whole and positive. The
rules are those of Stream of Search (kanishkg/stream-of-search), the format is of HKUNLP/diffusion-vs-ar, whose
checker does not look where operands come from; this one does.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from dllm_plugins.errors import RequestError
from dllm_plugins.reasoning.task import Example

SIGNS = ("+", "-", "*", "/")
IS, ASKS, ANSWERS, END = "=", "?", ">", "."
#: Values of inputs and of targets.
INPUTS, LOWEST, HIGHEST = 20, 10, 100
#: Draws of one set of numbers before another is taken.
_TRIES = 20


def apply(sign: str, left: int, right: int) -> int | None:
    """The result of a step; None where it is not whole and positive."""
    if sign == "+":
        return left + right
    if sign == "*":
        return left * right
    if sign == "-":
        return left - right if left > right else None
    return left // right if right and left % right == 0 else None


@dataclass(frozen=True, slots=True)
class CountdownTask:
    """So many numbers, each a word: Countdown 3 and 4 are `numbers` 3 and 4."""

    numbers: int = 3
    scale: str = "how many ways lead to the target, 9 for more"

    @property
    def name(self) -> str:
        """countdown3 or countdown4."""
        return f"countdown{self.numbers}"

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Digits, signs and what stands between them."""
        return (*map(str, range(10)), *SIGNS, IS, ASKS, ANSWERS, END, ",")

    @property
    def prompt(self) -> int:
        """Digits of the inputs, a comma behind each, and a target between two signs."""
        return 3 * self.numbers + 5

    @property
    def answer(self) -> int:
        """At most five digits a value, three values, two signs and a comma a step; and the end."""
        return (self.numbers - 1) * 18 + 1

    def draw(self, luck: random.Random) -> Example:
        """Random numbers, put together at random until they make a target in range."""
        while True:
            inputs = [luck.randint(1, INPUTS) for _ in range(self.numbers)]
            for _ in range(_TRIES):
                steps = _random_steps(inputs, luck)
                if steps is not None and LOWEST <= steps[-1][3] <= HIGHEST:
                    target = steps[-1][3]
                    words = written(inputs, target)
                    key = f"{sorted(inputs)} {target}"
                    return Example(words, shown(steps), min(9, sum(1 for _ in solutions(inputs, target))), key)

    def right(self, prompt: tuple[str, ...], answer: tuple[str, ...]) -> bool:
        """Whether each step uses two numbers that are there, is true, and the last one leaves the target alone."""
        inputs, target = read(prompt)
        if not answer or answer[-1] != END:
            return False
        left = list(inputs)
        for text in "".join(answer[:-1]).split(","):
            step = _parsed(text)
            if step is None:
                return False
            first, sign, second, result = step
            for operand in (first, second):
                if operand not in left:
                    return False
                left.remove(operand)
            if apply(sign, first, second) != result:
                return False
            left.append(result)
        return left == [target]


Step = tuple[int, str, int, int]


def written(inputs: list[int], target: int) -> tuple[str, ...]:
    """The words of a prompt."""
    return tuple("".join(f"{number}," for number in inputs) + f"{ASKS}{target}{ANSWERS}")


def shown(steps: list[Step]) -> tuple[str, ...]:
    """The words of an answer."""
    return tuple(",".join(f"{a}{sign}{b}{IS}{c}" for a, sign, b, c in steps) + END)


def read(prompt: tuple[str, ...]) -> tuple[list[int], int]:
    """Inputs and target of a prompt.

    :raises RequestError: for what is no such prompt.
    """
    head, asks, tail = "".join(prompt).partition(ASKS)
    numbers, target = [item for item in head.split(",") if item], tail.removesuffix(ANSWERS)
    if not asks or len(numbers) < 2 or not all(item.isdecimal() for item in (*numbers, target)):
        raise RequestError(f"{''.join(prompt)!r} is no Countdown; give numbers and a target, such as '3,7,2,?42'")
    return [int(item) for item in numbers], int(target)


def solutions(inputs: list[int], target: int) -> Iterator[list[Step]]:
    """Every way from the inputs to the target, by trying all steps."""
    if len(inputs) == 1:
        if inputs == [target]:
            yield []
        return
    for step, left in _steps(inputs):
        for rest in solutions(left, target):
            yield [step, *rest]


def _steps(numbers: list[int]) -> Iterator[tuple[Step, list[int]]]:
    """Each step that can be made, and what it leaves; the larger operand comes first."""
    for places in combinations(range(len(numbers)), 2):
        second, first = sorted(numbers[place] for place in places)
        rest = [number for place, number in enumerate(numbers) if place not in places]
        for sign in SIGNS:
            result = apply(sign, first, second)
            if result is not None:
                yield (first, sign, second, result), [*rest, result]


def _random_steps(inputs: list[int], luck: random.Random) -> list[Step] | None:
    """Steps at random down to one number."""
    left, found = list(inputs), list[Step]()
    while len(left) > 1:
        possible = list(_steps(left))
        step, left = luck.choice(possible)
        found.append(step)
    return found


def _parsed(text: str) -> Step | None:
    """A step as it is written; None if it is none."""
    formula, _, result = text.partition(IS)
    sign = next((sign for sign in SIGNS if sign in formula), None)
    if sign is None:
        return None
    first, _, second = formula.partition(sign)
    if not all(item.isdecimal() and item.isascii() for item in (first, second, result)):
        return None
    return int(first), sign, int(second), int(result)
