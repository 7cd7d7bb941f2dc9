"""An answer on a terminal while it grows: final lines are printed once, and only its end is drawn anew."""

from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

#: What would move the cursor or change the terminal, were it printed; the line feed does what it should.
_CONTROL = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
DRAFT = "dim cyan"
#: What the model thinks before it says something.
THOUGHT = "dim italic"


class GrowingText:
    """Final text above, what is still open below; used as a context manager.

    A line is printed when nothing can change it any more, and never again. The line that
    grows, and the draft behind it, are redrawn in place, as much of them as the screen holds.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._rest = self._style = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        """What was final stays, whatever ended it."""
        self._live.stop()
        if self._rest:
            self._print([self._rest])

    def add(self, text: str, style: str = "") -> None:
        """Take more final text, and print the lines that it completes; another style begins another line."""
        if not text:
            return
        if style != self._style and self._rest:
            self._print([self._rest])
            self._rest = ""
        self._style = style
        *lines, self._rest = (self._rest + text.translate(_CONTROL)).split("\n")
        self._print(lines)
        # The last word may yet grow and move to the next line.
        committed, self._rest = self._without_last(self._rest)
        self._print(committed)

    def show(self, *drafts: tuple[str, bool]) -> None:
        """Draw the end of the answer, with drafts behind it.

        :param drafts: each with whether it is a text that stands fixed.
        """
        self._live.start()
        room = self._console.width * self._console.height
        pieces = ((text[:room].translate(_CONTROL), "" if fixed else DRAFT) for text, fixed in drafts)
        shown = Text.assemble((self._rest, self._style), *pieces)
        lines = shown.wrap(self._console, self._console.width)
        # A line less than the screen, so that the cursor's own does not scroll the first one away.
        self._live.update(Text("\n").join(lines[: max(1, self._console.height - 1)]), refresh=True)

    def _print(self, lines: list[str]) -> None:
        for line in lines:
            self._console.print(Text(line, style=self._style), highlight=False)

    def _without_last(self, text: str) -> tuple[list[str], str]:
        """A line that is too long as the screen breaks it: all but the last, and the last."""
        text = text.expandtabs()
        lines = [line.plain.rstrip() for line in Text(text).wrap(self._console, self._console.width)]
        if len(lines) < 2:
            return [], text
        return lines[:-1], text[len(text.rstrip()) - len(lines[-1]) :]
