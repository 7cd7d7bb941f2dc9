"""Strings and numbers, by what the facts say of them."""

import json
from decimal import Decimal
from fractions import Fraction
from functools import reduce

from dllm_plugins.constraints.nodes import Both
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.schemas.document import Document
from dllm_plugins.constraints.schemas.facts import Facts
from dllm_plugins.constraints.schemas.facts import meet
from dllm_plugins.constraints.schemas.formats import FORMATS
from dllm_plugins.constraints.schemas.numbers import FREE_NUMBER
from dllm_plugins.constraints.schemas.numbers import Bound
from dllm_plugins.constraints.schemas.numbers import decimals
from dllm_plugins.constraints.schemas.numbers import integers
from dllm_plugins.constraints.schemas.numbers import multiples_between
from dllm_plugins.constraints.schemas.numbers import stepped
from dllm_plugins.constraints.schemas.patterns import searched
from dllm_plugins.constraints.schemas.spelled import Format
from dllm_plugins.constraints.schemas.spelling import NOTHING
from dllm_plugins.constraints.schemas.spelling import any_string
from dllm_plugins.constraints.schemas.spelling import choice

#: Multiples of a fraction that are written out one by one.
_MOST_MULTIPLES = 1000
#: Integers that binary floating point holds.
_EXACT = Facts(low=Bound(Decimal(-(10**15) + 1)), high=Bound(Decimal(10**15) - 1))


def string_content(facts: Facts, longest: int) -> Node:
    """What stands between the quotes of a string.

    :param longest: characters of strings that a longer bound is lowered to, so that they can be counted.
    """
    shortest, most = facts.shortest, facts.longest
    if most is not None and most < shortest:
        return NOTHING
    formats = [FORMATS[name] for name in facts.formats]
    parts: list[Node] = [Pattern(one.pattern) for one in formats] + [searched(pattern) for pattern in facts.patterns]
    if NOTHING in parts:
        return NOTHING
    if not parts or ((shortest or most is not None) and not any(_fits(one, shortest, most) for one in formats)):
        parts.append(any_string(shortest, None if most is None else max(shortest, min(most, longest))))
    return reduce(Both, parts)


def _fits(one: Format, shortest: int, longest: int | None) -> bool:
    """Whether every text of a format is of such a length."""
    return one.shortest >= shortest and (longest is None or (one.longest is not None and one.longest <= longest))


def integer_of(facts: Facts, document: Document) -> Node:
    """Integers, without point and exponent."""
    if any(isinstance(step, float) for step in facts.steps):
        # Validators divide by it in floating point.
        facts = meet(facts, _EXACT)
    if all(_is_exact(step) for step in facts.steps):
        return integers(facts.low, facts.high, tuple(Fraction(step).numerator for step in facts.steps))
    return _written_out(facts, document, whole=True)


def number_of(facts: Facts, document: Document) -> Node:
    """Numbers; multiples of integers are integers."""
    if not facts.steps:
        return FREE_NUMBER if facts.low is None and facts.high is None else decimals(facts.low, facts.high)
    if any(float(step).is_integer() for step in facts.steps):
        return integer_of(facts, document)
    if len(facts.steps) == 1:
        found = stepped(facts.low, facts.high, Decimal(repr(facts.steps[0])))
        if found is not None:
            return found
    return _written_out(facts, document, whole=False)


def _is_exact(step: float) -> bool:
    """Whether dividing an integer by it says whether it is a multiple."""
    denominator = Fraction(step).denominator
    return denominator == Fraction(repr(step)).denominator and denominator & (denominator - 1) == 0


def _written_out(facts: Facts, document: Document, *, whole: bool) -> Node:
    """Those that the validator takes: it divides in floating point, where 0.07 is no multiple of 0.01."""
    step, texts = Decimal(repr(facts.steps[0])), None
    if facts.low is not None and facts.high is not None:
        texts = multiples_between(facts.low, facts.high, step, _MOST_MULTIPLES)
    if texts is None:
        facts.parts[0].refuse(
            "multipleOf",
            f"multiples of {step} cannot be told in floating point, where 0.07 is none of 0.01; give a minimum and a "
            f"maximum with at most {_MOST_MULTIPLES} multiples between them, or ask for integers of a smaller unit",
        )
    texts = [text for text in texts if not (whole and "." in text)]
    return choice(Literal(text.encode()) for text in texts if document.allows(facts.parts, json.loads(text)))
