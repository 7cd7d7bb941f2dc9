"""Questions whose answers can be checked: how an answer is laid out, where it is whole, and whether it is right."""

from typing import Protocol

#: The verdict on an answer that was taken for right, and how that on one cut short begins.
RIGHT, UNFINISHED = "right", "unfinished"


class Puzzle(Protocol):
    """One question that was read from a text."""

    @property
    def prompt(self) -> str:
        """What the model's tokenizer is given."""

    @property
    def length(self) -> int:
        """Tokens of the longest answer; one of so many is whole."""

    def laid_out(self, text: str) -> str:
        """The text of an answer, which may still grow, as people read it.

        That of a longer one begins with it.
        """

    def verdict(self, text: str) -> str:
        """What a checker says of an answer: "right", or what is wrong with it.

        :param text: as the tokenizer writes it.
        """


class GridLayout:
    """A growing answer as its puzzle lays it out.

    :param said: what was handed out.
    """

    def __init__(self, puzzle: Puzzle) -> None:
        self.puzzle = puzzle
        self.said = ""

    def push(self, text: str) -> str:
        """What is new.

        :param text: all of the answer's.
        """
        before, self.said = self.said, self.puzzle.laid_out(text)
        return self.said[len(before) :]

    def draft(self, text: str, tentative: str) -> str:
        """The same of a text that may change, behind one that does not."""
        return self.puzzle.laid_out(text + tentative)[len(self.said) :]
