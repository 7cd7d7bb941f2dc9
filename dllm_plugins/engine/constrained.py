"""A request's constraint, made ready for its model: automata are built once for each language and tokenizer."""

from collections.abc import Sequence
from functools import partial
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary
from weakref import WeakValueDictionary
from weakref import proxy

from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.language import language_of
from dllm_plugins.constraints.language import written_with_space
from dllm_plugins.constraints.reach import Reach
from dllm_plugins.constraints.tokens import TokenAutomaton
from dllm_plugins.constraints.values import Constraint
from dllm_plugins.constraints.vocabulary import Vocabulary
from dllm_plugins.decoding.limits import Limits
from dllm_plugins.decoding.row import Row
from dllm_plugins.denoisers.base import ModelSpec
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.messages import message
from dllm_plugins.modes.base import Sampler
from dllm_plugins.text.pieces import pieces_of

#: Automata kept for each tokenizer, and the bytes that one may have remembered before another takes its place.
_KEPT = 16
_MOST_REMEMBERED = 1 << 26


def limits_of(row: Row, sampler: Sampler, tokenizer: Any, spec: ModelSpec) -> Limits | None:
    """What the answer of a row is held to.

    :raises OptionError: for a constraint that cannot be served, or that no text fulfils.
    :raises RequestError: if even the shortest text that fulfils it is too long.
    """
    constraint = row.config.constraint
    if constraint is None:
        return None
    if sampler.unheld is not None:
        raise OptionError(
            message(
                "mode {!r} cannot hold its answer to {constraint}: {}; choose another mode of {}",
                sampler.name,
                sampler.unheld,
                spec.name,
            )
        )
    if row.given or row.suffix:
        raise OptionError(message("{constraint} is about whole answers, not about gaps; leave one of the two out"))
    if not row.stop_ids:
        raise OptionError(message("{constraint} needs an id that ends the answer; give stop_ids that are not empty"))
    automaton = _automaton(constraint, tokenizer, spec, row.stop_ids)
    if automaton.shortest < 0:
        raise OptionError(message("{constraint}: no text fulfils it in this model's tokens; mend it"))
    room = row.config.max_new_tokens
    if automaton.shortest > room:
        raise RequestError(
            message(
                "{constraint}: the shortest text that fulfils it has {} tokens, but there is room for {}; raise "
                "{max_new_tokens}, or shorten the prompt",
                automaton.shortest,
                room,
            )
        )
    return Reach(automaton, row.prompt, row.end, spec.mask_id)


class _Languages:
    """The automata of one tokenizer's languages, those used last.

    Whoever asks for one waits only for those who are building the same.
    """

    def __init__(self, tokenizer: Any, size: int) -> None:
        pieces = pieces_of(tokenizer, size)
        self.strips = pieces.strips
        self.vocabulary = Vocabulary(pieces.texts)
        self._kept: dict[tuple[str, frozenset[int]], TokenAutomaton] = {}
        self._building: WeakValueDictionary[tuple[str, frozenset[int]], _Turn] = WeakValueDictionary()
        self._lock = Lock()

    def automaton(self, constraint: Constraint, encode: Any, stops: frozenset[int]) -> TokenAutomaton:
        """It, built anew if it was not used of late."""
        key = repr(constraint), stops
        with self._lock:
            turn = self._building.get(key)
            if turn is None:
                turn = self._building[key] = _Turn()
        with turn.lock:
            with self._lock:
                found = self._kept.pop(key, None)
            if found is None or found.remembered > _MOST_REMEMBERED:
                found = self._built(constraint, encode, stops)
            with self._lock:
                self._kept[key] = found
                if len(self._kept) > _KEPT:
                    del self._kept[next(iter(self._kept))]
            return found

    def _built(self, constraint: Constraint, encode: Any, stops: frozenset[int]) -> TokenAutomaton:
        language = language_of(constraint)
        language = written_with_space(language) if self.strips else language
        return TokenAutomaton(build(language), self.vocabulary, stops, encode)


class _Turn:
    """Of those who build one automaton."""

    def __init__(self) -> None:
        self.lock = Lock()


_LANGUAGES: "WeakKeyDictionary[Any, _Languages]" = WeakKeyDictionary()
_LOCK = Lock()


def _automaton(constraint: Constraint, tokenizer: Any, spec: ModelSpec, stops: frozenset[int]) -> TokenAutomaton:
    with _LOCK:
        if tokenizer not in _LANGUAGES:
            _LANGUAGES[tokenizer] = _Languages(tokenizer, spec.vocabulary)
        languages = _LANGUAGES[tokenizer]
    return languages.automaton(constraint, partial(_encoded, proxy(tokenizer)), stops)


def _encoded(tokenizer: Any, text: str) -> Sequence[int]:
    found: Sequence[int] = tokenizer.encode(text, add_special_tokens=False)
    return found
