"""As much of a terminal as rich makes use of: what is on the screen, and what has scrolled off it."""

import re
from unicodedata import category

from rich.cells import cell_len

_TOKEN = re.compile(r"\x1b\[(?P<numbers>[?\d;]*)(?P<letter>[A-Za-z])|(?P<other>.)", re.DOTALL)


class Screen:
    """Takes what a program writes; a line too long is an error, since we break lines ourselves.

    :param width, height: in cells.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.lines = [""]
        self.row = self.column = 0

    def write(self, text: str) -> int:
        """Take text and control sequences."""
        for found in _TOKEN.finditer(text):
            if found["letter"]:
                self._control(found["letter"], found["numbers"])
            else:
                self._character(found["other"])
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        """What rich asks."""
        return True

    def _control(self, letter: str, numbers: str) -> None:
        if letter == "A":
            # Nothing moves up into what has scrolled off.
            self.row = max(self.row - int(numbers or 1), len(self.lines) - self.height, 0)
        elif letter == "K":
            assert numbers == "2"
            self.lines[self.row] = ""
        else:
            assert letter in "mlh", letter

    def _character(self, character: str) -> None:
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.row, self.column = self.row + 1, 0
            if self.row == len(self.lines):
                self.lines.append("")
        else:
            assert category(character) != "Cc", repr(character)
            line = self.lines[self.row]
            assert self.column == len(line), "written over a line that was not cleared"
            self.lines[self.row] = line + character
            assert cell_len(self.lines[self.row]) <= self.width, self.lines[self.row]
            self.column = len(self.lines[self.row])
