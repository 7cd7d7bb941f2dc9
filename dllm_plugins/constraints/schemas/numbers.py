"""Numbers within bounds, as JSON spells them.

Fractions keep to fifteen digits in all: so many are told apart by binary floating point, so that whoever reads an
answer compares it with a bound as it is written.
"""

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING
from decimal import ROUND_FLOOR
from decimal import Context
from decimal import Decimal
from fractions import Fraction

from dllm_plugins.constraints.nodes import EMPTY
from dllm_plugins.constraints.nodes import Both
from dllm_plugins.constraints.nodes import Characters
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Multiples
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.nodes import Repeat
from dllm_plugins.constraints.nodes import optional
from dllm_plugins.constraints.schemas.spelling import NOTHING
from dllm_plugins.constraints.schemas.spelling import choice
from dllm_plugins.constraints.schemas.spelling import concat

#: Digits of an integer without a bound, so that it fits into 64 bits.
DIGITS = 18
#: Digits that binary floating point keeps.
_EXACT = 15
#: Digits in front of the point of a number that has one bound, and at most behind it.
_WHOLE, _PLACES = 9, 12
FREE_NUMBER = Pattern(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,12})?(?:[eE][+-]?[0-9]{1,2})?")
_MINUS = Literal(b"-")
_POINT = Literal(b".")


@dataclass(frozen=True, slots=True)
class Bound:
    """An end of a range.

    :param open: whether the value itself is outside.
    """

    value: Decimal
    open: bool = False


def integers(low: Bound | None, high: Bound | None, divisors: tuple[int, ...] = ()) -> Node:
    """Whole numbers from `low` to `high`; -0 is not among them."""
    least = None if low is None else math.floor(low.value) + 1 if low.open else math.ceil(low.value)
    most = None if high is None else math.ceil(high.value) - 1 if high.open else math.floor(high.value)
    given = [abs(bound) for bound in (least, most) if bound is not None]
    largest = 10 ** max([DIGITS, *(len(str(bound)) + 1 for bound in given if len(str(bound)) >= DIGITS)]) - 1
    least, most = -largest if least is None else least, largest if most is None else most
    positive = _whole(max(least, 0), most)
    negative = _whole(max(-most, 1), -least)
    if divisors:
        numerals = Multiples(math.lcm(*divisors))
        positive, negative = _both(positive, numerals), _both(negative, numerals)
    return choice([positive, concat(_MINUS, negative)])


def decimals(low: Bound | None, high: Bound | None) -> Node:
    """Numbers from `low` to `high`, without exponents."""
    ends = [len(str(abs(int(bound.value)))) for bound in (low, high) if bound is not None]
    digits = max(ends) if len(ends) == 2 else max([_WHOLE, *(end + 1 for end in ends)])
    places = min(_PLACES, _EXACT - digits)
    if places < 1:
        return integers(low, high)
    low, high = _rounded(low, places, ROUND_CEILING), _rounded(high, places, ROUND_FLOOR)
    zero, found = Decimal(0), []
    if high is None or high.value > zero or (high.value == zero and not high.open):
        found.append(_magnitude(low if low and low.value >= zero else Bound(zero), high, digits, places))
    if low is None or low.value < zero:
        least = Bound(-high.value, high.open) if high and high.value <= zero else Bound(zero)
        most = None if low is None else Bound(-low.value, low.open)
        found.append(concat(_MINUS, _magnitude(least, most, digits, places)))
    return choice(found)


def stepped(low: Bound | None, high: Bound | None, step: Decimal) -> Node | None:
    """Multiples of a fraction that binary floating point holds exactly, such as 0.25; None for other fractions."""
    places, size = -int(step.normalize().as_tuple().exponent), Fraction(step)
    if size.denominator & (size.denominator - 1) or places > 6:
        return None
    numerals = choice(Multiples((size * 10**behind).numerator, behind) for behind in range(places + 1))
    return _both(decimals(low, high), choice([numerals, concat(_MINUS, numerals)]))


def multiples_between(low: Bound, high: Bound, step: Decimal, most: int) -> list[str] | None:
    """All multiples of a step in a range, written out; None if they are more than `most`."""
    first, last = math.ceil(low.value / step), math.floor(high.value / step)
    if last - first >= most:
        return None
    found = [step * times for times in range(first, last + 1)]
    inside = [
        value for value in found if not ((low.open and value == low.value) or (high.open and value == high.value))
    ]
    return [format(value.normalize() + 0, "f") for value in inside]


def _both(left: Node, right: Node) -> Node:
    return NOTHING if NOTHING in (left, right) else Both(left, right)


def _rounded(bound: Bound | None, places: int, direction: str) -> Bound | None:
    """A bound of no more digits than numbers have, moved into the range if it had more."""
    if bound is None:
        return None
    value = bound.value.quantize(Decimal(1).scaleb(-places), direction, Context(prec=400))
    return bound if value == bound.value else Bound(value)


def _magnitude(low: Bound, high: Bound | None, digits: int, places: int) -> Node:
    """Numbers without a sign."""
    found: Node = concat(_whole(0, 10**digits - 1), optional(concat(_POINT, _digits(1, places))))
    if low.value > 0 or low.open:
        found = _both(found, _at_least(low, digits))
    return found if high is None else _both(found, _at_most(high))


def _at_least(bound: Bound, digits: int) -> Node:
    """Numbers of that value or more; places are not counted here."""
    whole, fraction = _apart(bound.value)
    behind = [_after(fraction, up=True)]
    if not bound.open:
        behind.append(concat(Literal(fraction.encode()), Pattern("0*")) if fraction else Pattern("0+"))
    same = [concat(_POINT, part) for part in behind]
    if not fraction and not bound.open:
        same.append(EMPTY)
    return choice(
        [concat(_whole(whole + 1, 10**digits - 1), _ANY_FRACTION), concat(_whole(whole, whole), choice(same))]
    )


def _at_most(bound: Bound) -> Node:
    """Numbers of that value or less."""
    whole, fraction = _apart(bound.value)
    same: list[Node] = [EMPTY] if fraction or not bound.open else []
    behind = [_after(fraction, up=False), *(Literal(fraction[:end].encode()) for end in range(1, len(fraction)))]
    if not bound.open:
        behind.append(concat(Literal(fraction.encode()), Pattern("0*")) if fraction else Pattern("0+"))
    same += [concat(_POINT, part) for part in behind]
    return choice([concat(_whole(0, whole - 1), _ANY_FRACTION), concat(_whole(whole, whole), choice(same))])


def _after(fraction: str, *, up: bool) -> Node:
    """Digits behind a point that first differ from these by a larger digit, or by a smaller one."""
    found = []
    for place, digit in enumerate(fraction):
        first, last = (int(digit) + 1, 9) if up else (0, int(digit) - 1)
        if first <= last:
            found.append(concat(Literal(fraction[:place].encode()), _digit(first, last), Pattern("[0-9]*")))
    if up:
        # What goes on with more than zeros is larger.
        found.append(concat(Literal(fraction.encode()), Pattern("0*[1-9][0-9]*")))
    return choice(found)


def _apart(value: Decimal) -> tuple[int, str]:
    """The digits in front of the point, and those behind it without zeros at the end."""
    whole, _, fraction = format(value, "f").partition(".")
    return int(whole), fraction.rstrip("0")


_ANY_FRACTION = optional(Pattern(r"\.[0-9]+"))


def _whole(least: int, most: int) -> Node:
    """Numerals from `least` to `most`, neither below 0."""
    found = []
    for length in range(len(str(least)), len(str(max(most, 0))) + 1):
        first, last = max(least, 10 ** (length - 1) if length > 1 else 0), min(most, 10**length - 1)
        if first <= last:
            found.append(_between(str(first), str(last)))
    return choice(found)


def _between(first: str, last: str) -> Node:
    """Digits of one length, from one text to another."""
    if not first or (set(first) == {"0"} and set(last) == {"9"}):
        return _digits(len(first), len(first))
    low, high, rest = int(first[0]), int(last[0]), len(first) - 1
    if low == high:
        return concat(_digit(low, low), _between(first[1:], last[1:]))
    # Where all texts of the first digit are inside, they go with those between.
    all_low, all_high = set(first[1:]) <= {"0"}, set(last[1:]) <= {"9"}
    found = [] if all_low else [concat(_digit(low, low), _between(first[1:], "9" * rest))]
    begin, end = (low if all_low else low + 1), (high if all_high else high - 1)
    if begin <= end:
        found.append(concat(_digit(begin, end), _digits(rest, rest)))
    if not all_high:
        found.append(concat(_digit(high, high), _between("0" * rest, last[1:])))
    return choice(found)


def _digit(first: int, last: int) -> Node:
    return Characters(((48 + first, 48 + last),))


def _digits(least: int, most: int) -> Node:
    return Repeat(_digit(0, 9), least, most) if most else EMPTY
