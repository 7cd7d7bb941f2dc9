"""What all tasks have in common: examples of words, drawn from seeds, that are either of training or held out."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

#: One example in so many is held out.
HELD_OUT = 10


@dataclass(frozen=True, slots=True)
class Example:
    """A question and one right answer.

    :param prompt: its words; each is one token.
    :param answer: the words of one right answer; others may be right, too.
    :param level: how hard it is, on the task's own scale.
    :param key: what it is, however it is written: examples with equal keys are never on both sides of the split.
    """

    prompt: tuple[str, ...]
    answer: tuple[str, ...]
    level: int
    key: str


class Task(Protocol):
    """A kind of question whose answers can be checked.

    `vocabulary` has every word of prompts and answers; `prompt` and `answer` are how many words each has at most,
    `scale` says what an example's level counts.
    """

    @property
    def name(self) -> str:
        """What commands call it."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Every word there is."""

    @property
    def prompt(self) -> int:
        """Words of the longest prompt."""

    @property
    def answer(self) -> int:
        """Words of the longest answer."""

    @property
    def scale(self) -> str:
        """What levels count."""

    def draw(self, luck: random.Random) -> Example:
        """An example, of training or held out."""

    def right(self, prompt: tuple[str, ...], answer: tuple[str, ...]) -> bool:
        """Whether an answer is right; any right one counts."""


def held_out(key: str) -> bool:
    """Whether an example of this key is kept out of training. It depends on nothing else, so all seeds agree."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % HELD_OUT == 0


def examples(task: Task, seed: int, *, test: bool) -> Iterator[Example]:
    """Examples of one side of the split, without end; the same ones for the same seed."""
    luck = random.Random(f"{task.name}/{seed}/{test}")
    while True:
        found = task.draw(luck)
        if held_out(found.key) is test:
            yield found
