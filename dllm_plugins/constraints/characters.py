"""Sets of characters, as ranges of code points and as ranges of the bytes that spell them in UTF-8."""

from collections.abc import Iterable
from collections.abc import Iterator
from typing import TypeAlias

#: First and last of each range, ascending, apart from one another.
Ranges: TypeAlias = tuple[tuple[int, int], ...]

LAST = 0x10FFFF
#: Halves of surrogate pairs are no characters and have no UTF-8.
_SURROGATES = (0xD800, 0xDFFF)
#: The last code points that one, two, three and four bytes spell.
_BY_LENGTH = (0x7F, 0x7FF, 0xFFFF, LAST)
ANY: Ranges = ((0, _SURROGATES[0] - 1), (_SURROGATES[1] + 1, LAST))


def merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """The same characters in ascending ranges that neither touch nor overlap."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return tuple(found)


def inverted(ranges: Ranges) -> Ranges:
    """All other characters."""
    found, begin = [], 0
    for first, last in merged([*ranges, _SURROGATES]):
        if begin < first:
            found.append((begin, first - 1))
        begin = last + 1
    return (*found, (begin, LAST)) if begin <= LAST else tuple(found)


def in_both(left: Ranges, right: Ranges) -> Ranges:
    """The characters of both sets."""
    return inverted(merged([*inverted(left), *inverted(right)]))


def spelled(ranges: Ranges) -> Iterator[Ranges]:
    """Sequences of byte ranges: a character is in the set when its UTF-8 fits one of them, byte by byte."""
    for first, last in in_both(ranges, ANY):
        begin = first
        for most in _BY_LENGTH:
            if begin <= min(last, most):
                yield from _same_length(begin, min(last, most))
                begin = most + 1


def _same_length(first: int, last: int) -> Iterator[Ranges]:
    """Sequences for code points whose UTF-8 is equally long."""
    low, high = chr(first).encode(), chr(last).encode()
    shared = next((place for place, pair in enumerate(zip(low, high, strict=True)) if pair[0] != pair[1]), len(low))
    # Behind the byte in which they differ, all bytes from 0x80 to 0xBF must be possible, or the range is cut.
    for place in range(len(low) - 1, shared, -1):
        size = 1 << 6 * (len(low) - place)
        if first % size:
            yield from _same_length(first, first | size - 1)
            yield from _same_length((first | size - 1) + 1, last)
            return
        if (last + 1) % size:
            yield from _same_length(first, last - last % size - 1)
            yield from _same_length(last - last % size, last)
            return
    yield tuple(zip(low, high, strict=True))
