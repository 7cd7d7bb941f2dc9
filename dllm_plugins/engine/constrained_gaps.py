"""What the gaps of a template are held to: each to a constraint of its own, or all of the text to one."""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from dllm_plugins.constraints.automaton import Automaton
from dllm_plugins.constraints.reach import Reach
from dllm_plugins.constraints.tokens import TokenAutomaton
from dllm_plugins.decoding.elastic_limits import ElasticReach
from dllm_plugins.decoding.elastic_limits import ElasticText
from dllm_plugins.decoding.gap_limits import GapLimits
from dllm_plugins.decoding.gap_limits import ResumedAutomaton
from dllm_plugins.decoding.gap_limits import TextReach
from dllm_plugins.decoding.limits import Limits
from dllm_plugins.decoding.row import OpenGap
from dllm_plugins.decoding.row import Row
from dllm_plugins.engine.gap_texts import READ_BEHIND
from dllm_plugins.engine.languages import Languages
from dllm_plugins.engine.languages import WantedLanguage
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.messages import message

#: Lengths that are looked at to say which would do.
_FARTHER = 64


def limits_of_gaps(
    row: Row, begin: int, languages: Languages, never: frozenset[int], elastic: tuple[int, int] | None
) -> Limits:
    """What a template's gaps are held to.

    :param begin: the position where its text begins.
    :param never: ids that stand nowhere.
    :param elastic: where gaps grow and shrink, the ids that make an open position two, and that take one out.
    :raises OptionError: for a constraint that no text fulfils, and for several of the same text.
    :raises RequestError: where what fulfils it does not fit.
    """
    tokens = [*row.tokens, *row.given, *row.suffix]
    if row.config.constraint is not None and row.config.stop:
        raise OptionError(
            message(
                "stop={} ends a gap wherever it comes, and {constraint} says of the whole text how it goes on; leave "
                "one of the two out",
                list(row.config.stop),
            )
        )
    befores = _before_gaps(row.gaps, tokens)
    held: list[tuple[OpenGap, Limits]] = []
    for number, (gap, before) in enumerate(zip(row.gaps, befores, strict=True), 1):
        if gap.constraint is not None:
            first = languages.textless(before[-READ_BEHIND:])
            strings = row.config.stop if gap.bounded else ()
            # Ids that change how long a gap is are none of its text, and no other ends it then.
            stops = row.stop_ids if elastic is None else frozenset[int]()
            others = never if elastic is None else never | row.stop_ids | set(elastic)
            automaton = languages.automaton(WantedLanguage(gap.constraint, stops, others, first, strings))
            _check_gap(number, gap, automaton, strings, row.mask)
            reach = Reach(automaton, 0, gap.room, row.mask, whole=not gap.bounded)
            stretches = gap.bounded and elastic is not None
            held.append((gap, ElasticReach(automaton, gap, row.mask, *elastic) if stretches and elastic else reach))
            gap.accepts = partial(_accepts, automaton.automaton, languages.strips and first)
    if row.config.constraint is not None:
        return _of_the_text(row, begin, tokens, languages, never, elastic)
    return GapLimits(held, row.vocabulary)


def _accepts(automaton: Automaton, spaced: bool, text: str) -> bool:
    """Whether a gap may hold a text, which is written with a space in front if the tokenizer takes one away."""
    return automaton.accepts(b" " * spaced + text.encode())


def _before_gaps(gaps: Sequence[OpenGap], tokens: Sequence[int]) -> list[Sequence[int]]:
    """The fixed tokens before each gap."""
    stops = [0, *(gap.stop for gap in gaps)]
    return [tokens[stop : gap.start] for stop, gap in zip(stops, gaps, strict=False)]


def _check_gap(number: int, gap: OpenGap, automaton: TokenAutomaton, stops: Sequence[str], mask: int) -> None:
    if automaton.shortest < 0:
        raise OptionError(
            message(
                "gap {}: no text fulfils its {constraint} in this model's tokens{}; mend it",
                number,
                f" without the stop strings {list(stops)}" if stops else "",
            )
        )
    if gap.bounded and automaton.shortest > gap.room:
        raise RequestError(
            message(
                "gap {}: the shortest text that fulfils its {constraint} has {} tokens, but the gap has {} at most; "
                "give it max_tokens={} or more, or another {constraint}",
                number,
                automaton.shortest,
                gap.room,
                automaton.shortest,
            )
        )
    if not gap.bounded and not Reach(automaton, 0, gap.room, mask, whole=True).possible([]):
        lengths = _lengths(automaton, gap.room)
        raise RequestError(
            message(
                "gap {}: no text of exactly {} tokens fulfils its {constraint}; make it {}, or give max_tokens "
                "in place of tokens",
                number,
                gap.room,
                f"{' or '.join(map(str, lengths))} tokens long" if lengths else "much longer",
            )
        )


def _lengths(automaton: TokenAutomaton, room: int) -> list[int]:
    """The nearest numbers of tokens, below and above one that does not do, that a text may have."""
    reached, found = automaton.start, []
    for length in range(1, room + _FARTHER):
        reached = automaton.after(reached, None)
        if automaton.holds(reached, automaton.whole):
            found.append(length)
            if length > room:
                break
    return [length for length, longer in pairwise([*found, room + _FARTHER]) if length > room or longer > room]


def _of_the_text(
    row: Row,
    begin: int,
    tokens: Sequence[int],
    languages: Languages,
    never: frozenset[int],
    elastic: tuple[int, int] | None,
) -> Limits:
    before, befores = tokens[:begin], _before_gaps(row.gaps, tokens)
    first = languages.textless(before[-READ_BEHIND:] if row.gaps[0].start == begin else before)
    own = tuple(
        None if gap.constraint is None else (gap.constraint, languages.textless(behind[-READ_BEHIND:]))
        for gap, behind in zip(row.gaps, befores, strict=True)
    )
    stops = row.stop_ids if elastic is None else frozenset[int]()
    never = never if elastic is None else never | row.stop_ids | set(elastic)
    wanted = WantedLanguage(row.config.constraint, stops, never, first, resumed=True, own=own)
    automaton = languages.automaton(wanted)
    assert isinstance(automaton, ResumedAutomaton), "it was asked for"
    if automaton.automaton.empty:
        also = " together with what the gaps must be" if any(own) else ""
        raise OptionError(message("{constraint}: no text fulfils it{}; mend it", also))
    reach = TextReach(automaton, row.gaps, begin, tokens, row.mask)
    found = reach if elastic is None else ElasticText(automaton, row.gaps, begin, tokens, row.mask, *elastic)
    if not found.possible(tokens):
        raise RequestError(message("{constraint}: {}", _why_not(reach, row)))
    return found


def _why_not(reach: TextReach, row: Row) -> str:
    """Why no filling of the gaps makes a text of the language."""
    place = reach.stuck()
    if place is None:
        return (
            "the gaps have too little room, or too few lengths, for the whole text to fulfil it; give max_tokens in "
            "place of tokens, or raise it"
        )
    before = sum(gap.start < place for gap in row.gaps)
    where = f"the text behind gap {before}" if before else "the text before the first gap"
    return f"{where} does not fit it, whatever stands in the gaps; change that text, or the form that is asked for"
