"""What a model has called, and what it wrote in place of a call."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool that there is, with an object of arguments."""

    name: str
    arguments: Mapping[str, Any]

    def written(self) -> str:
        """The arguments as JSON."""
        return json.dumps(self.arguments, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Began:
    """A call of this tool has begun; its arguments follow in pieces, and then the call itself, or that it is none."""

    name: str


@dataclass(frozen=True, slots=True)
class Piece:
    """The next text of the arguments of the call that has begun."""

    text: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """What begins like a call and is none.

    :param text: all of it, as the model wrote it.
    :param name: the tool it names, if it does.
    :param error: what is wrong with it.
    """

    text: str
    name: str | None
    error: str
