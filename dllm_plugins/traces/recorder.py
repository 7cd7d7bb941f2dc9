"""Events of an answer, kept as one frame a pass."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from itertools import zip_longest
from typing import Literal

from dllm_plugins.events import Commit
from dllm_plugins.events import Draft
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.events import FinishReason
from dllm_plugins.events import TokenLogprob
from dllm_plugins.events import Usage
from dllm_plugins.text.answer import Tokenizer
from dllm_plugins.traces.pieces import Pieces

#: What a position holds: nothing, a guess, a token that may yet be taken back, a token for good.
State = Literal["open", "guess", "committed", "final"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One position after a pass.

    :param text: what its token adds to the text; the name of a special token; "" while it is open.
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
    """The answer's positions after a pass, in order.

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


@dataclass(frozen=True, slots=True)
class _Held:
    """A token at a position, what it is sure of, and since when it stands there."""

    token: int
    confidence: float | None
    settled: int


class Recorder:
    """Takes the events of one request and keeps a frame for every pass.

    :param tokenizer: the model's own.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._pieces = Pieces(tokenizer)
        self._final = 0
        self._held: dict[int, _Held] = {}
        self._frames: list[Frame] = []
        self._finish: Finish | None = None

    def take(self, event: Event) -> None:
        """What the engine told of this request, in order."""
        if isinstance(event, Commit):
            self._settle(self._final, event.tokens, [_sure(said) for said in event.logprobs], event.step)
            self._final += len(event.tokens)
        elif isinstance(event, Draft):
            self._settle(self._final, event.tokens, event.confidences, event.step)
            guesses = event.guesses or event.tokens
            self._show(event.step, tuple(zip_longest(guesses, event.confidences)))
        else:
            self._final = len(event.tokens)
            self._settle(0, event.tokens, (), event.step)
            self._finish = event
            self._show(event.step, ())

    def trace(self, chat: Sequence[Mapping[str, str]], model: str) -> Trace:
        """What was recorded so far.

        :param chat: what was asked, as role and content.
        :param model: its name.
        """
        frames, done = tuple(self._frames), self._finish
        if done is None:
            return Trace(tuple(chat), model, frames)
        return Trace(tuple(chat), model, frames, done.reason, done.usage)

    def _settle(self, begin: int, tokens: Sequence[int | None], confidences: Sequence[float | None], step: int) -> None:
        """Note which tokens stand at positions from `begin` on, None where open."""
        for position, (token, sure) in enumerate(zip_longest(tokens, confidences[: len(tokens)]), begin):
            known = self._held.get(position)
            if token is None:
                self._held.pop(position, None)
            elif known is None or known.token != token:
                self._held[position] = _Held(token, sure, step)
            elif known.confidence is None and sure is not None:
                self._held[position] = _Held(token, sure, known.settled)

    def _show(self, step: int, behind: Sequence[tuple[int | None, float | None]]) -> None:
        """A frame: the final tokens, and what the canvas holds behind them."""
        tokens: list[int | None] = [self._held[position].token for position in range(self._final)]
        tokens += [token for token, _ in behind]
        texts, cells = self._texts(tokens), list[Cell]()
        for position, token in enumerate(tokens):
            held = self._held.get(position)
            if token is None:
                cells.append(Cell())
                continue
            name = self._pieces.name_of(token)
            text, special = name or texts[position], name is not None
            if held is None:
                sure = behind[position - self._final][1]
                cells.append(Cell(text, "guess", sure, special=special))
            else:
                state: State = "final" if position < self._final else "committed"
                cells.append(Cell(text, state, held.confidence, held.settled, special))
        self._frames.append(Frame(step, tuple(cells)))

    def _texts(self, tokens: Sequence[int | None]) -> list[str]:
        """What each token adds, read in runs without a gap; "" where open."""
        found: list[str] = []
        before: int | None = None
        for is_open, group in groupby(tokens, key=_is_none):
            run = list(group)
            if is_open:
                found += [""] * len(run)
                continue
            known = [token for token in run if token is not None]
            found += self._pieces.of(known, before)
            before = known[-1]
        return found


def _sure(said: TokenLogprob) -> float | None:
    return None if said.logprob is None else math.exp(said.logprob)


def _is_none(token: int | None) -> bool:
    return token is None
