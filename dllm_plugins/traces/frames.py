"""A trace: what every pass left on the canvas."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dllm_plugins.events import FinishReason
from dllm_plugins.events import Usage

#: What a position holds: nothing, a guess, a token that may yet be taken back, a token for good; or a text of a
#: template, which stood there from the beginning.
State = Literal["open", "guess", "committed", "final", "fixed"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One position after a pass, or a whole fixed text.

    :param text: what its token adds to the text; the name of a special token. While it is open, only what
        lays the answer out behind it, such as a line break.
    :param confidence: the probability of the token when it was drawn, 0 to 1; None where nobody knows.
    :param settled: the pass that put this token there, counted from 1; 0 for what is not settled.
    :param special: it holds a special token, such as end-of-text.
    """

    text: str = ""
    state: State = "open"
    confidence: float | None = None
    settled: int = 0
    special: bool = False


@dataclass(frozen=True, slots=True)
class Frame:
    """The answer's positions after a pass, in order; of a template all of its text.

    :param step: the pass, counted from 1.
    """

    step: int
    cells: tuple[Cell, ...]

    @property
    def text(self) -> str:
        """What stands there, open positions left out, special tokens too."""
        return "".join(cell.text for cell in self.cells if not cell.special)


@dataclass(frozen=True, slots=True)
class Trace:
    """How one answer came about.

    :param chat: what was asked, as role and content.
    :param model: its name.
    :param usage: None while the answer is not done, like `reason`.
    """

    chat: tuple[Mapping[str, str], ...]
    model: str
    frames: tuple[Frame, ...]
    reason: FinishReason | None = None
    usage: Usage | None = None
