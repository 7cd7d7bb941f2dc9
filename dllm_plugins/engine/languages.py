"""The automata of constraints, built once for each language and tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary
from weakref import WeakValueDictionary
from weakref import proxy

from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.framing import framed
from dllm_plugins.constraints.language import language_of
from dllm_plugins.constraints.language import without_any
from dllm_plugins.constraints.language import written_with_space
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.tokens import TokenAutomaton
from dllm_plugins.constraints.values import Constraint
from dllm_plugins.constraints.vocabulary import Vocabulary
from dllm_plugins.decoding.gap_limits import ResumedAutomaton
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.text.pieces import pieces_of

#: Automata kept for each tokenizer, and the bytes that one may have remembered before another takes its place.
_KEPT = 16
_MOST_REMEMBERED = 1 << 26


@dataclass(frozen=True, slots=True)
class WantedLanguage:
    """A constraint, and how its texts are written.

    :param stops: ids that end a text.
    :param never: ids that stand nowhere.
    :param first: whether they stand at the beginning of what the tokenizer reads, where it may take a space away.
    :param without: strings that no text holds.
    :param resumed: whether it is about a text with gaps.
    :param own: the constraints that its gaps have of their own, and whether they stand at the beginning; None for none.
    """

    constraint: Constraint
    stops: frozenset[int]
    never: frozenset[int]
    first: bool = True
    without: tuple[str, ...] = ()
    resumed: bool = False
    own: tuple[tuple[Constraint, bool] | None, ...] = ()


class Languages:
    """The automata of one tokenizer's languages, those used last.

    Whoever asks for one waits only for those who are building the same.
    """

    def __init__(self, tokenizer: Any, size: int, shown: frozenset[int]) -> None:
        self._encode = partial(_encoded, proxy(tokenizer))
        pieces = pieces_of(tokenizer, size, shown)
        self.strips = pieces.strips
        self.vocabulary = Vocabulary(pieces.texts)
        self._kept: dict[str, TokenAutomaton] = {}
        self._building: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
        self._lock = Lock()

    def automaton(self, wanted: WantedLanguage) -> TokenAutomaton:
        """It, built anew if it was not used of late.

        :raises OptionError: for a constraint that cannot be read, or needs too many states.
        """
        key = repr(wanted)
        with self._lock:
            turn = self._building.get(key)
            if turn is None:
                turn = self._building[key] = _Turn()
        with turn.lock:
            with self._lock:
                found = self._kept.pop(key, None)
            if found is None or found.remembered > _MOST_REMEMBERED:
                found = self._built(wanted)
            with self._lock:
                self._kept[key] = found
                if len(self._kept) > _KEPT:
                    del self._kept[next(iter(self._kept))]
            return found

    def _built(self, wanted: WantedLanguage) -> TokenAutomaton:
        automaton = build(self._written(without_any(language_of(wanted.constraint), wanted.without), wanted.first))
        if not wanted.resumed:
            return TokenAutomaton(automaton, self.vocabulary, wanted.stops, self._encode, wanted.never)
        if any(wanted.own):
            parts = [None if own is None else self._written(language_of(own[0]), own[1]) for own in wanted.own]
            automaton = framed(automaton, parts)
        return ResumedAutomaton(automaton, self.vocabulary, wanted.stops, self._encode, wanted.never)

    def _written(self, language: Node, first: bool) -> Node:
        return written_with_space(language) if self.strips and first else language

    def textless(self, tokens: Sequence[int]) -> bool:
        """Whether tokens have no text at all."""
        return all(self.vocabulary.pieces[token] is None for token in tokens)


class _Turn:
    """Of those who build one automaton."""

    def __init__(self) -> None:
        self.lock = Lock()


#: By tokenizer, and by the special tokens that have a text.
_LANGUAGES: "WeakKeyDictionary[Any, dict[frozenset[int], Languages]]" = WeakKeyDictionary()
_LOCK = Lock()


def languages_of(tokenizer: Any, spec: ModelSpec, shown: frozenset[int] = frozenset()) -> Languages:
    """Those of a tokenizer.

    :param shown: special tokens that have a text all the same.
    :raises OptionError: for one whose tokens spell different texts in different places.
    """
    with _LOCK:
        known = _LANGUAGES.setdefault(tokenizer, {})
        if shown not in known:
            known[shown] = Languages(tokenizer, spec.vocabulary, shown)
        return known[shown]


def _encoded(tokenizer: Any, text: str) -> Sequence[int]:
    found: Sequence[int] = tokenizer.encode(text, add_special_tokens=False)
    return found
