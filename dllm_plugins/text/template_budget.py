"""What rendering one chat template may cost: characters and elements made, steps, processor time.

Everything is counted before it is made, so that a template of a stranger's checkpoint can
neither fill the memory nor keep the processor busy, whatever it multiplies, joins or nests.
"""

import re
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

#: Units a rendering may use, and as many more per character of its chat: one makes a character, 200 are a step
#: or an element of a list.
UNITS, UNITS_PER_CHARACTER = 64_000_000, 400
ELEMENT = 200
#: Processor seconds of one rendering.
SECONDS = 5.0
#: Filters that write a value out, or more of it than there was.
WRITING = frozenset({"batch", "center", "e", "escape", "filesizeformat", "forceescape", "indent", "join", "pprint"})
WRITING |= frozenset({"replace", "round", "slice", "string", "sum", "tojson", "truncate", "urlencode", "urlize"})
WRITING |= frozenset({"wordwrap", "xmlattr"})
_NUMBER = re.compile(r"\d+")
#: Methods of str whose result can be many times as long as all they are given.
_GROWING = frozenset({"center", "expandtabs", "ljust", "replace", "rjust", "translate", "zfill"})


class TemplateTooCostlyError(Exception):
    """A template needs more than it may; templates cannot catch it."""


class Budget:
    """What is left of a rendering's units and seconds."""

    def __init__(self, characters: int) -> None:
        self._left = UNITS + UNITS_PER_CHARACTER * characters
        self._deadline = time.thread_time() + SECONDS

    def spend(self, units: int = ELEMENT) -> None:
        """Take units.

        :raises TemplateTooCostlyError: if there are no more, or the time is up.
        """
        self._left -= units
        if self._left < 0:
            raise TemplateTooCostlyError("it makes too much text or repeats too often")
        if time.thread_time() > self._deadline:
            raise TemplateTooCostlyError(f"it takes more than {SECONDS:g} seconds")

    def text(self, *values: Any) -> int:
        """Units that the values written as text may take; what occurs twice counts twice.

        :raises TemplateTooCostlyError: as soon as that is more than is left.
        """
        found, waiting = 0, list(values)
        while waiting:
            value = waiting.pop()
            found += ELEMENT
            if isinstance(value, str):
                found += len(value)
            elif isinstance(value, int):
                found += value.bit_length()
            elif isinstance(value, Mapping):
                waiting += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple | set | frozenset):
                waiting += value
            if found > self._left:
                self.spend(found)
        return found

    def listed(self, value: Any) -> Any:
        """An iterator as a list, each element paid for; anything else as it is."""
        if not isinstance(value, Iterator):
            return value
        found = []
        for item in value:
            self.spend()
            found.append(item)
        return found


def shallow(value: Any) -> int:
    """Units of a new value that holds others which are there already."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, int):
        return value.bit_length()
    return ELEMENT * (1 + (len(value) if isinstance(value, list | tuple | dict | set) else 0))


def numbers(*values: Any) -> int:
    """The sum of all numbers among arguments: a width, a count."""
    return sum(abs(value) for value in values if isinstance(value, int))


def format_cost(budget: Budget, text: str, values: Any) -> int:
    """Units of `text.format(...)` or `text % ...`.

    :raises TemplateTooCostlyError: for widths that arguments give.
    """
    if re.search(r"\{[^{}]*\{|%[^%a-zA-Z]*\*", text):
        raise TemplateTooCostlyError("it formats with a width that is not written out")
    runs = _NUMBER.findall(text)
    if any(len(run) > 8 for run in runs):
        raise TemplateTooCostlyError(f"it formats with the width {max(runs, key=len)[:20]}")
    fields = text.count("{") + text.count("%")
    return len(text) + sum(map(int, runs)) + fields * budget.text(values)


def method_cost(budget: Budget, name: str, text: str, given: Sequence[Any]) -> int:
    """Units of a method of str, before it is called."""
    if name in ("format", "format_map"):
        return format_cost(budget, text, given)
    if name == "join" and given:
        items = given[0]
        return budget.text(items) + len(text) * (len(items) if hasattr(items, "__len__") else 1)
    if name == "replace" and len(given) > 1:
        old, new = str(given[0]), str(given[1])
        return len(text) + (text.count(old) if old else len(text) + 1) * len(new)
    if name in _GROWING:
        return len(text) * (1 + budget.text(given)) + numbers(*given) * (1 + text.count("\t"))
    return len(text)


def operator_cost(budget: Budget, operator: str, left: Any, right: Any) -> int:
    """Units of an operator's result, before it is computed."""
    if operator == "%" and isinstance(left, str):
        return format_cost(budget, left, right)
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        return abs(right) * left.bit_length()
    if operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(times, int) and not isinstance(many, int | float):
                return shallow(many) * max(1, times)
    return shallow(left) + shallow(right)


def filter_cost(budget: Budget, name: str, given: Sequence[Any]) -> int:
    """Units of a filter, before it runs; `given` begins with what it filters."""
    if name == "format":
        return format_cost(budget, str(given[0]), given[1:])
    if name in WRITING:
        return budget.text(given[0]) * (1 + budget.text(*given[1:])) + numbers(*given[1:]) * (1 + _lines(given[0]))
    return ELEMENT


def _lines(value: Any) -> int:
    return value.count("\n") if isinstance(value, str) else 0
