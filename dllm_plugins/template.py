"""Texts with gaps: what stands fixed, and where a model writes between."""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dllm_plugins.constraints.values import Constraint
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Commit
from dllm_plugins.events import Event
from dllm_plugins.events import Finish
from dllm_plugins.events import FinishReason
from dllm_plugins.events import Usage
from dllm_plugins.messages import shown

#: How long a gap may get where nobody says it, and what stands for one in a text.
ROOM, MARKER = 64, "<fill>"


@dataclass(frozen=True, slots=True)
class Gap:
    """Open positions between fixed text; say one of the two.

    :param tokens: the gap has exactly so many tokens.
    :param max_tokens: it has so many at most: it ends earlier at a token that ends texts, at a stop string, or where
        what was written goes on with the text behind it.
    :param constraint: what its text must be, as it reads between its neighbours: a Regex, a JsonSchema or a Grammar.
    :param old: the text that it replaces; None if nothing stood there. See :mod:`dllm_plugins.edits`.
    :param head: fixed text that is written with its first tokens, and is no part of its text.
    :raises RequestError: for both numbers or neither, for one below 1, and for what is no constraint.
    """

    tokens: int | None = None
    max_tokens: int | None = None
    constraint: Constraint | None = None
    old: str | None = None
    head: str = ""

    def __post_init__(self) -> None:
        if (self.tokens is None) == (self.max_tokens is None):
            raise RequestError(
                f"Gap(tokens={shown(self.tokens)}, max_tokens={shown(self.max_tokens)}): give tokens for a fixed "
                f"length, or max_tokens for the longest, not both"
            )
        name = "max_tokens" if self.tokens is None else "tokens"
        value: Any = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RequestError(f"Gap({name}={shown(value)}): give a number of tokens, 1 or more")
        if self.constraint is not None and not isinstance(self.constraint, Constraint):
            raise RequestError(f"Gap(constraint={shown(self.constraint)}): give a Regex, a JsonSchema or a Grammar")

    @property
    def bounded(self) -> bool:
        """Whether it may end before its room is used."""
        return self.tokens is None

    @property
    def room(self) -> int:
        """How many tokens it has at most."""
        return (self.max_tokens if self.tokens is None else self.tokens) or 0


@dataclass(frozen=True, slots=True, init=False)
class Template:
    """Fixed texts and gaps, in their order: `Template("def f(x):", Gap(max_tokens=32), "return y")`.

    :param parts: texts stand exactly as they are given; two in a row are one.
    :param chat: messages before it, `{"role": ..., "content": ...}`; the template then begins the assistant's answer.
    :raises RequestError: for parts that are neither, no gap, and gaps side by side.
    """

    parts: tuple[str | Gap, ...]
    chat: tuple[Mapping[str, Any], ...]

    def __init__(self, *parts: str | Gap, chat: Iterable[Mapping[str, Any]] = ()) -> None:
        joined: list[str | Gap] = []
        for number, part in enumerate(parts):
            if not isinstance(part, str | Gap):
                raise RequestError(f"part {number} of a template is {shown(part)}; give texts and Gap(max_tokens=...)")
            if isinstance(part, str) and joined and isinstance(joined[-1], str):
                joined[-1] += part
            elif part != "":
                joined.append(part)
        if not any(isinstance(part, Gap) for part in joined):
            raise RequestError("a template without a gap has nothing to fill; give it a Gap(max_tokens=...)")
        if any(isinstance(one, Gap) and isinstance(other, Gap) for one, other in pairwise(joined)):
            raise RequestError("two gaps of a template stand side by side; make them one, or put a text between them")
        object.__setattr__(self, "parts", tuple(joined))
        object.__setattr__(self, "chat", tuple(chat))

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """Its gaps alone."""
        return tuple(part for part in self.parts if isinstance(part, Gap))

    @classmethod
    def of_text(
        cls, text: str, gap: Gap | None = None, marker: str = MARKER, chat: Iterable[Mapping[str, Any]] = ()
    ) -> "Template":
        """The template that a text with markers describes.

        :param gap: what every marker stands for; at most :data:`ROOM` tokens if not given.
        :raises RequestError: where the text has no marker, or nothing between two.
        """
        if not marker:
            raise RequestError("the marker of a gap is empty; give one that stands in the text")
        first, *rest = text.split(marker)
        if not rest:
            raise RequestError(f"the text has no {marker!r}, which marks a gap; put one in, or name your marker")
        parts: list[str | Gap] = [first]
        for piece in rest:
            parts += [gap or Gap(max_tokens=ROOM), piece]
        return cls(*parts, chat=chat)

    def filled(self, texts: Sequence[str]) -> str:
        """The whole text, with these texts in its gaps."""
        found = iter(texts)
        return "".join(part if isinstance(part, str) else next(found) for part in self.parts)


@dataclass(frozen=True, slots=True)
class FilledText:
    """A template with its gaps filled.

    :param text: all of it: the fixed texts as they were given, and what was written between.
    :param gaps: the texts of the gaps alone.
    :param reasons: why each ended: "length" at the end of its room, "eos" at a token that ends texts, "stop" at a stop
        string, "follows" where it went on with the text behind it.
    """

    text: str
    gaps: tuple[str, ...]
    reasons: tuple[FinishReason, ...]
    usage: Usage

    @classmethod
    def of(cls, template: Template, finish: Finish) -> "FilledText":
        """What the engine made of a template."""
        texts = tuple(gap.text for gap in finish.gaps)
        return cls(template.filled(texts), texts, tuple(gap.reason for gap in finish.gaps), finish.usage)


class Growing:
    """The text of a template as its gaps are filled, from left to right."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._texts = [""] * len(template.gaps)
        #: What was handed out.
        self.text = ""

    def add(self, new: Sequence[str], done: bool = False) -> str:
        """What is known of the whole text beyond what was handed out.

        :param new: new text of each gap, none where there is nothing.
        :param done: nothing more comes.
        """
        for number, text in enumerate(new):
            self._texts[number] += text
        pieces, gap = list[str](), 0
        for part in self._template.parts:
            if isinstance(part, str):
                pieces.append(part)
                continue
            pieces.append(self._texts[gap])
            if gap >= self._growing and not done:
                break
            gap += 1
        self.text, before = "".join(pieces), len(self.text)
        return self.text[before:]

    def of(self, event: Event) -> str:
        """What an event adds to the text that was handed out; the fixed beginning comes with the first."""
        return self.add(event.gaps if isinstance(event, Commit) else (), done=isinstance(event, Finish))

    @property
    def _growing(self) -> int:
        """A gap that may still grow, behind which nothing is shown: the last one in which something stands."""
        return max((number for number, text in enumerate(self._texts) if text), default=0)

    def behind(self, drafts: Sequence[str]) -> list[tuple[str, bool]]:
        """What goes on from the text that was handed out, in pieces, each with whether it is a fixed text.

        :param drafts: of each gap, what goes on from its own text.
        """
        found, gap = list[tuple[str, bool]](), -1
        for part in self._template.parts:
            gap += isinstance(part, Gap)
            if gap >= self._growing:
                found.append((part, True) if isinstance(part, str) else (drafts[gap], False))
        return found
