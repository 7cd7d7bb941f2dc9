"""Texts of which some spans are written anew, with everything else fixed on both sides of them.

A span is a gap of a template (:mod:`dllm_plugins.template`) that knows what stood there. Spans count characters, and
what is outside them comes back to the letter, wherever tokens begin: of a token that the beginning of a span cuts, the
characters before the span are written again as the first of the gap's tokens (:func:`dllm_plugins.text.seams.mended`);
of one that its end cuts, those behind it are tokenised for themselves.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dllm_plugins.constraints.values import Constraint
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Filled
from dllm_plugins.events import Finish
from dllm_plugins.events import FinishReason
from dllm_plugins.events import Usage
from dllm_plugins.messages import shown
from dllm_plugins.template import ROOM
from dllm_plugins.template import Gap
from dllm_plugins.template import Template

#: Tokens that a span has room for where nobody says it, however short it is.
LEAST_ROOM = 8


@dataclass(frozen=True, slots=True, init=False)
class Edit:
    """A text and the spans of it that are written anew: `Edit("Paris is in Spain.", [(12, 17)])`.

    :param spans: pairs (begin, end) of characters, as Python slices; an empty one is a place to write something. They
        neither overlap nor touch.
    :param max_tokens: how long each may get; as many tokens as it has characters if not given, but 8 at least and 64 at
        most.
    :param constraint: what each must be: a Regex, a JsonSchema or a Grammar.
    :param chat: messages before the text, which is then the beginning of the assistant's answer.
    :raises RequestError: for spans that are none of the text, or stand side by side; for what a Gap refuses.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    template: Template

    def __init__(
        self,
        text: str,
        spans: Iterable[tuple[int, int]],
        max_tokens: int | None = None,
        constraint: Constraint | None = None,
        chat: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        found = _checked(text, spans)
        parts: list[str | Gap] = []
        behind = 0
        for begin, end in found:
            room = min(max(end - begin, LEAST_ROOM), ROOM) if max_tokens is None else max_tokens
            parts += [text[behind:begin], Gap(max_tokens=room, constraint=constraint, old=text[begin:end])]
            behind = end
        object.__setattr__(self, "text", text)
        object.__setattr__(self, "spans", found)
        object.__setattr__(self, "template", Template(*parts, text[behind:], chat=chat))

    @classmethod
    def of_words(cls, text: str, words: Sequence[str], **options: Any) -> "Edit":
        """The edit of every place in a text where one of these stands.

        :param options: see the class.
        :raises RequestError: for one that stands nowhere.
        """
        spans = []
        for word in words:
            places = _places(text, word)
            if not places:
                raise RequestError(f"the text does not hold {shown(word)}; give a piece of it, to the letter")
            spans += [(place, place + len(word)) for place in places]
        return cls(text, spans, **options)


def _places(text: str, word: str) -> list[int]:
    found, place = list[int](), text.find(word) if word else -1
    while place >= 0:
        found.append(place)
        place = text.find(word, place + len(word))
    return found


def _checked(text: str, spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The spans in their order."""
    if not isinstance(text, str):
        raise RequestError(f"an edit is of a text, not of {shown(text)}")
    found = []
    try:
        given = list(spans)
    except TypeError:
        raise RequestError(f"spans={shown(spans)}: give pairs (begin, end) of characters") from None
    for span in given:
        if not isinstance(span, Sequence) or len(span) != 2 or not all(type(place) is int for place in span):
            raise RequestError(f"span {shown(span)}: give a pair (begin, end) of characters")
        begin, end = span
        if not 0 <= begin <= end <= len(text):
            raise RequestError(f"span {shown(span)} is none of a text of {len(text)} characters; count from 0")
        found.append((begin, end))
    if not found:
        raise RequestError("an edit without a span changes nothing; give pairs (begin, end) of characters")
    found.sort()
    for one, other in pairwise(found):
        if one[1] >= other[0]:
            raise RequestError(f"spans {one} and {other} overlap or touch; make them one")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a span.

    :param span: where it stood in the text that was given, in characters.
    :param at: where it stands in the new one.
    :param before: what it held, and `after`, what it holds.
    :param tokens: how many were written for it, those included that begin with kept characters.
    :param reason: why it ended; see :class:`~dllm_plugins.template.FilledText`.
    """

    span: tuple[int, int]
    before: str
    after: str
    at: tuple[int, int]
    tokens: int
    reason: FinishReason

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class EditedText:
    """A text with its spans written anew.

    :param text: all of it; what is outside the spans is as it was given.
    :param changes: what became of each span, also where the same was written again.
    """

    text: str
    changes: tuple[Change, ...]
    usage: Usage

    @classmethod
    def of(cls, edit: Edit, finish: Finish) -> "EditedText":
        """What the engine made of an edit."""
        text = edit.template.filled([gap.text for gap in finish.gaps])
        return cls(text, changes_of(edit.spans, finish.gaps), finish.usage)


def changes_of(spans: Iterable[tuple[int, int]], gaps: Sequence[Filled]) -> tuple[Change, ...]:
    """What became of each span, in their order in the text.

    :param gaps: what stands in them now.
    """
    found, moved = list[Change](), 0
    for (begin, end), gap in zip(sorted(spans), gaps, strict=True):
        at = begin + moved, begin + moved + len(gap.text)
        found.append(Change((begin, end), gap.old or "", gap.text, at, len(gap.tokens), gap.reason))
        moved += len(gap.text) - (end - begin)
    return tuple(found)
