"""Which calls of a pass are made as one, by the numbers of their positions."""

from collections.abc import Iterator
from collections.abc import Sequence

#: Sequences are padded together while the shortest lacks no more than this share of the longest.
PADDING = 0.25


def neighbours(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Places of calls, in their order, as groups of at most `most` positions; longer ones are alone."""
    group, room = list[int](), most
    for place, length in enumerate(lengths):
        if group and length > room:
            yield group
            group, room = [], most
        group.append(place)
        room -= length
    if group:
        yield group


def similar(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Places of calls that are padded to the longest of their group; the longest groups come first."""
    group = list[int]()
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        longest = lengths[group[0]] if group else 0
        if group and (longest * (1 - PADDING) > lengths[place] or longest * (len(group) + 1) > most):
            yield group
            group = []
        group.append(place)
    if group:
        yield group
