"""Messages that name options, which every host calls as its users do.

The engine says `max_new_tokens`, llm and LangChain `max_tokens`, and what Python takes as an argument is
a flag or a variable elsewhere. So a message keeps its parts, and is put together when somebody reads it.
"""

import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from string import Formatter
from typing import Any


class Option(str):
    """The name of an option, where it is a value of a message."""

    __slots__ = ()


def _python(name: str, value: Mapping[str, Any]) -> str:
    return f"{name}={dict(value)!r}"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a host calls options.

    :param names: its name of each option that it calls otherwise.
    :param written: how an option is given whose value is a mapping.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    written: Callable[[str, Mapping[str, Any]], str] = _python

    def of(self, option: str) -> str:
        """The host's name of an option."""
        return self.names.get(option, option)


PLAIN = Dialect()


@dataclass(frozen=True, slots=True)
class Given:
    """An option as a user would give it, where it is a value of a message."""

    option: str
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Message:
    """A message; see :func:`message`."""

    template: str
    values: tuple[Any, ...] = ()

    def text_for(self, dialect: Dialect) -> str:
        """The message in a host's words."""
        return _Wording(dialect).vformat(self.template, self.values, {})

    def options(self) -> frozenset[str]:
        """The options that it names."""
        fields = {name for _, name, _, _ in Formatter().parse(self.template) if name}
        inside = frozenset[str]().union(*(value.options() for value in self.values if isinstance(value, Message)))
        return inside | fields | {str(value) for value in self.values if isinstance(value, Option)}

    def __str__(self) -> str:
        return self.text_for(PLAIN)


def message(template: str, *values: object) -> Message:
    """A message in which `{NAME}` is an option, and `{}`, `{!r}` are the values in their order.

    Nothing inside a value is taken for a name: what users wrote stays as it is.

    :param values: also messages, and names of options as :class:`Option`.
    """
    return Message(template, values)


def listed(options: Iterable[str]) -> Message:
    """Names of options in the order of the alphabet; "none" without any."""
    names = sorted(options)
    return Message(", ".join(["{}"] * len(names)) or "none", tuple(map(Option, names)))


def joined(messages: Sequence[Message], between: str = "; ") -> Message:
    """Several messages as one."""
    return Message(between.join(["{}"] * len(messages)), tuple(messages))


class _Wording(Formatter):
    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if isinstance(key, str):
            return self._dialect.of(key)
        value = args[key]
        if isinstance(value, Message):
            return value.text_for(self._dialect)
        if isinstance(value, Given):
            return self._dialect.written(self._dialect.of(value.option), value.value)
        return self._dialect.of(value) if isinstance(value, Option) else value

    def convert_field(self, value: Any, conversion: str | None) -> Any:
        return _written_out(super().convert_field, value, conversion)

    def format_field(self, value: Any, format_spec: str) -> Any:
        return _written_out(super().format_field, value, format_spec)


def _written_out(write: Callable[[Any, Any], Any], value: Any, form: str | None) -> Any:
    try:
        return write(value, form)
    except (RecursionError, ValueError):
        return shown(value)


def shown(value: Any) -> str:
    """A value for an error, cut where it is long."""
    huge = isinstance(value, int) and abs(value) > 10**40
    try:
        text = f"a number of {_digits(value)} digits" if huge else repr(value)
    except (RecursionError, ValueError):
        # Nested too deeply, or with a number inside that Python does not write out.
        text = f"a {type(value).__name__} that is too large to be shown"
    return text if len(text) <= 80 else f"{text[:80]} ..."


def _digits(value: int) -> int:
    return int(abs(value).bit_length() * math.log10(2)) + 1
