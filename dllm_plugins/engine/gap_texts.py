"""What stands in the gaps of a template while they are filled: where each ends, and its text."""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from typing import TypeVar

from dllm_plugins.constraints.validation import check_answer
from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.row import OpenGap
from dllm_plugins.decoding.row import Row
from dllm_plugins.events import Filled
from dllm_plugins.events import FinishReason
from dllm_plugins.events import GapDraft
from dllm_plugins.events import TokenLogprob
from dllm_plugins.text.answer import AnswerText
from dllm_plugins.text.answer import Tokenizer
from dllm_plugins.text.answer import decoded

T = TypeVar("T")
#: So many characters other than white space tell that a gap goes on with what follows it; fewer stand anywhere.
TELLING = 4
#: What follows is recognised by so many characters of it at most.
_LONGEST = 32
#: Tokens before a gap that are decoded with it: a tokenizer may write the first token of a text otherwise.
READ_BEHIND = 4


def recognised_by(text: str) -> str | None:
    """The beginning of a text by which it is known: as many of its lines as tell; None if all of it tells nothing."""
    found = ""
    for line in text.splitlines(keepends=True):
        found += line
        if len("".join(found.split())) >= TELLING:
            return found.rstrip("\r\n")[:_LONGEST]
    return None


class _After:
    """A tokenizer that writes tokens as they read behind others."""

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._before = list(before)
        self._text = decoded(tokenizer, self._before)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Their text."""
        whole = self._tokenizer.decode([*self._before, *token_ids], skip_special_tokens=skip_special_tokens)
        if whole.startswith(self._text):
            return whole[len(self._text) :]
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=skip_special_tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


class _GapText:
    """One gap.

    :param stops: strings that end it.
    :param follows: what stands behind it, as far as that tells and ends it; None if nothing does.
    """

    def __init__(self, tokenizer: _After, gap: OpenGap, stops: tuple[str, ...], follows: str | None) -> None:
        self._tokenizer = tokenizer
        self._follows = follows
        self._ends = (*stops, *(() if follows is None else (follows,)))
        self._gap = gap
        self._text = self._begun()
        self._head = len(gap.head)
        self._ended_by: list[int] | None = None
        self.kept: Sequence[int] = ()
        self.reason: FinishReason | None = None

    def _begun(self) -> AnswerText:
        return AnswerText(self._tokenizer, self._ends, self._gap.accepts)

    def cut(self, tokens: Sequence[int]) -> int | None:
        """How many of its first tokens are kept if their text ends it; None if it goes on.

        Its text is then that of these tokens, whatever becomes of those that are not kept.
        """
        text = self._begun()
        text.push(tokens, last=False)
        if not text.stopped:
            return None
        self._ended_by = list(tokens)
        return text.tokens_used(tokens)

    def push(self, tokens: Sequence[int], stop_ids: frozenset[int], complete: bool) -> str:
        """New text, given all final tokens of the gap; sets what is kept of them, and why it ended once it has."""
        if self.reason is not None:
            return ""
        tokens = tokens if self._ended_by is None else self._ended_by
        stop = next((place for place, token in enumerate(tokens) if self._gap.bounded and token in stop_ids), None)
        tokens, last = tokens[:stop], complete or stop is not None
        new = self._text.push(tokens, last)
        if self._text.stopped:
            behind = decoded(self._tokenizer, tokens)[len(self._text.text) :]
            self.kept = tokens[: self._text.tokens_used(tokens)]
            self.reason = "follows" if self._follows is not None and behind.startswith(self._follows) else "stop"
        else:
            self.kept = tokens if last else tokens[: self._text.tokens_within(tokens)]
            self.reason = "eos" if stop is not None else self._ended() if complete else None
        # What was new before the head was complete is the head's.
        return new[max(self._head - (len(self._text.text) - len(new)), 0) :]

    def _ended(self) -> FinishReason:
        """Why no more stands in it: a program may have ended it early, and one that lets gaps shrink ends a text so."""
        gap = self._gap
        return gap.reason or ("length" if len(gap.positions) == gap.room else "eos")

    @property
    def text(self) -> str:
        """All that its tokens read as, fixed text at their beginning included."""
        return self._text.text

    @property
    def filled(self) -> Filled:
        """It as it stands."""
        return Filled(tuple(self.kept), self.text[self._head :], self.reason or "length", old=self._gap.old)

    def draft(self, canvas: Canvas) -> GapDraft:
        """It as a pass left it: once it has ended what is kept of it, before that all that stands on the canvas."""
        kept, row = tuple(self.kept), canvas.row
        places = self._gap.positions if self.reason is None else self._gap.positions[: len(kept)]
        tokens = tuple(None if canvas.tokens[place] == canvas.mask else canvas.tokens[place] for place in places)
        guesses = tuple(
            canvas.guesses.get(place) if token is None else token for place, token in zip(places, tokens, strict=True)
        )
        final = row.tokens[places.start : places.stop]
        text = "" if self.reason is not None else self._text.draft(final, guesses[len(final) :])
        text = text[max(self._head - len(self.text), 0) :]
        sure = () if row.said is None else tuple(map(canvas.confidence, places))
        return GapDraft(tokens, len(kept), text, guesses, sure)


class GapTexts:
    """All gaps of a row.

    :param stops: strings that end a bounded gap.
    :param begin: the position where the text of the template begins.
    """

    def __init__(self, tokenizer: Tokenizer, row: Row, stops: tuple[str, ...], begin: int) -> None:
        self._row = row
        self._begin = begin
        self._tokenizer = tokenizer
        canvas = [*row.tokens, *row.given, *row.suffix]
        starts = [*(gap.start for gap in row.gaps), len(canvas)]
        #: Fixed tokens behind each gap.
        self._behind = [canvas[gap.stop : start] for gap, start in zip(row.gaps, starts[1:], strict=True)]
        before = [row.tokens, *self._behind]
        follows = [recognised_by(decoded(tokenizer, fixed)) for fixed in self._behind]
        # What is held to a constraint ends where that allows it, and never at a stop string.
        held = row.config.constraint is not None
        self._texts = [
            _GapText(
                _After(tokenizer, fixed[-READ_BEHIND:]),
                gap,
                stops if gap.bounded and gap.constraint is None and not held else (),
                what if gap.bounded and not held else None,
            )
            for gap, fixed, what in zip(row.gaps, before, follows, strict=False)
        ]
        self.fixed = row.prompt + sum(map(len, self._behind))

    def push(self, done: bool) -> tuple[list[int], tuple[str, ...]]:
        """The answer from the first gap to the end of the last as far as it is final; and the new text of each gap."""
        row, answer, news = self._row, list[int](), [""] * len(self._texts)
        for number, (gap, text) in enumerate(zip(row.gaps, self._texts, strict=True)):
            final = row.tokens[gap.start : gap.stop]
            complete = done or len(row.tokens) >= gap.stop
            news[number] = text.push(final, row.stop_ids, complete)
            answer += [*text.kept]
            if text.reason is None:
                break
            answer += self._behind[number] if number + 1 < len(self._texts) else ()
        return answer, tuple(news)

    def cut(self, gap: OpenGap, tokens: Sequence[int]) -> int | None:
        """See :attr:`~dllm_plugins.decoding.row.Row.cut`."""
        return next(text.cut(tokens) for own, text in zip(self._row.gaps, self._texts, strict=True) if own is gap)

    def check(self, answer: Sequence[int]) -> None:
        """Make sure that the gaps, or the whole text, are what was asked for.

        :param answer: from the first gap to the end of the last.
        :raises AnswerError: if they are not.
        """
        row = self._row
        for gap, text in zip(row.gaps, self._texts, strict=True):
            check_answer(text.text, gap.constraint, text.filled.reason)
        if row.config.constraint is not None:
            before, fixed = row.tokens[: self._begin], row.tokens[self._begin : row.prompt]
            whole = _After(self._tokenizer, before[-READ_BEHIND:]).decode([*fixed, *answer, *row.suffix])
            check_answer(whole, row.config.constraint, "length")

    def filled(self, said: Sequence[TokenLogprob] = ()) -> tuple[Filled, ...]:
        """Every gap as it stands.

        :param said: of each token of the answer.
        """
        found, begin = list[Filled](), 0
        for text, behind in zip(self._texts, self._behind, strict=True):
            gap = text.filled
            found.append(replace(gap, logprobs=tuple(said[begin : begin + len(gap.tokens)])))
            begin += len(gap.tokens) + len(behind)
        return tuple(found)

    def drafts(self, canvas: Canvas) -> tuple[GapDraft, ...]:
        """Every gap as a pass left it."""
        return tuple(text.draft(canvas) for text in self._texts)

    def joined(self, parts: Sequence[tuple[T, ...]], fixed: Callable[[int], T]) -> tuple[T, ...]:
        """What is known of each position of the gaps, as one run from the first gap to the end of the last.

        :param fixed: the same of a fixed token between two gaps.
        """
        found: list[T] = []
        for number, part in enumerate(parts):
            found += part
            found += map(fixed, self._behind[number]) if number + 1 < len(parts) else ()
        return tuple(found)

    @property
    def positions(self) -> list[int]:
        """Where on the canvas each token of the answer stands."""
        found: list[int] = []
        for number, (gap, text) in enumerate(zip(self._row.gaps, self._texts, strict=True)):
            found += range(gap.start, gap.start + len(text.kept))
            if number + 1 < len(self._texts):
                found += range(gap.stop, gap.stop + len(self._behind[number]))
        return found

    @property
    def behind(self) -> int:
        """The position behind the last token of the last gap."""
        return self._row.gaps[-1].start + len(self._texts[-1].kept)

    @property
    def stop_token(self) -> int | None:
        """The token that ends the text, where nothing stands behind the last gap."""
        token = self._row.tokens[self.behind : self.behind + 1]
        ended = self.reason == "eos" and not self._row.suffix
        return token[0] if ended and token and token[0] in self._row.stop_ids else None

    @property
    def reason(self) -> FinishReason:
        """Why the last gap ended."""
        return self._texts[-1].filled.reason
