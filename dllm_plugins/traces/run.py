"""The positions of an answer, or of one gap of a template, as they are committed pass by pass."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from itertools import zip_longest

from dllm_plugins.traces.frames import Cell
from dllm_plugins.traces.frames import State
from dllm_plugins.traces.pieces import TokenTexts


@dataclass(frozen=True, slots=True)
class _Held:
    """A token at a position, what it is sure of, and since when it stands there."""

    token: int
    confidence: float | None
    settled: int


class Run:
    """Positions in a row.

    :param before: the token in front of them, if there is one.
    :param final: how many of them never change any more.
    """

    def __init__(self, pieces: TokenTexts, before: int | None = None) -> None:
        self._pieces = pieces
        self._before = before
        self._held: dict[int, _Held] = {}
        self._tokens: Sequence[int | None] = ()
        self.final = 0

    def note(self, begin: int, tokens: Sequence[int | None], confidences: Sequence[float | None], step: int) -> None:
        """Note which tokens stand at positions from `begin` on, None where open."""
        for position, (token, sure) in enumerate(zip_longest(tokens, confidences[: len(tokens)]), begin):
            known = self._held.get(position)
            if token is None:
                self._held.pop(position, None)
            elif known is None or known.token != token:
                self._held[position] = _Held(token, sure, step)
            elif known.confidence is None and sure is not None:
                self._held[position] = _Held(token, sure, known.settled)

    def note_all(self, tokens: Sequence[int | None], confidences: Sequence[float | None], step: int) -> None:
        """The same of all positions, of which there may be more or fewer than before: tokens keep what is known."""
        if len(tokens) != len(self._tokens):
            held, self._held = self._held, {}
            for old, new, count in SequenceMatcher(None, self._tokens, tokens, autojunk=False).get_matching_blocks():
                self._held.update((new + at, held[old + at]) for at in range(count) if old + at in held)
        self._tokens = tokens
        self.note(0, tokens, confidences, step)

    def cells(self, behind: Sequence[tuple[int | None, float | None]] = ()) -> list[Cell]:
        """The final tokens, and what the canvas holds behind them: tokens and guesses, None where open."""
        tokens: list[int | None] = [self._held[position].token for position in range(self.final)]
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
                sure = behind[position - self.final][1]
                cells.append(Cell(text, "guess", sure, special=special))
            else:
                state: State = "final" if position < self.final else "committed"
                cells.append(Cell(text, state, held.confidence, held.settled, special))
        return cells

    def _texts(self, tokens: Sequence[int | None]) -> list[str]:
        """What each token adds, read in runs without a gap; "" where open."""
        found: list[str] = []
        before = self._before
        for is_open, group in groupby(tokens, key=_is_none):
            run = list(group)
            if is_open:
                found += [""] * len(run)
                continue
            known = [token for token in run if token is not None]
            found += self._pieces.of(known, before)
            before = known[-1]
        return found


def _is_none(token: int | None) -> bool:
    return token is None
