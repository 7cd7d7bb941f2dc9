"""Options as pydantic classes, whose errors are ours: each names the option, its value and what is wanted."""

from collections.abc import Iterable
from typing import Any
from typing import get_args

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import ValidationError
from pydantic import model_validator

from dllm_plugins.errors import DllmError
from dllm_plugins.errors import OptionError
from dllm_plugins.messages import Given
from dllm_plugins.messages import Message
from dllm_plugins.messages import Option
from dllm_plugins.messages import joined
from dllm_plugins.messages import listed
from dllm_plugins.messages import message
from dllm_plugins.messages import shown
from dllm_plugins.options.unknown import unknown_option


class Numbers(BaseModel):
    """A class whose numbers are numbers: True is not 1, and False not 0."""

    # Built when it is first used: most classes of options never are.
    model_config = ConfigDict(defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, given: Any) -> Any:
        for name, value in given.items() if isinstance(given, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields:
                kinds = _kinds(cls.model_fields[name].annotation)
                if bool not in kinds and kinds & {int, float}:
                    raise OptionError(message("option {}={!r}: it is a number", Option(name), value))
        return given


def _kinds(annotation: Any) -> frozenset[Any]:
    """What a value may be, by its annotation."""
    parts = get_args(annotation)
    return frozenset().union(*map(_kinds, parts)) if parts else frozenset((annotation,))


class Checked(Numbers):
    """Options that are read once.

    :raises OptionError: for whatever is wrong with them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise OptionError(explain(error, type(self).model_fields)) from None


def explain(error: ValidationError, known: Iterable[str]) -> Message:
    """A validation error in one line that names each option, its value and what is wanted, or what is known.

    :param known: the options there are, under the engine's names.
    """
    return joined([_explained(item, known) for item in error.errors()])


def _explained(item: Any, known: Iterable[str]) -> Message:
    reason, place = item.get("ctx", {}).get("error", item["msg"]), item["loc"]
    if isinstance(reason, DllmError):
        return reason.detail
    if not place:
        return message("{}", reason)
    if item["type"] == "extra_forbidden":
        return unknown_option(str(place[0]), item["input"], known)
    inside = "".join(f".{part}" for part in place[1:])
    return message("option {}{}={}: {}", Option(place[0]), inside, shown(item["input"]), reason)


def explain_nested(
    error: ValidationError, option: str, owner: str, fields: type[BaseModel], own: Iterable[str]
) -> Message:
    """The same for entries of an option that is a mapping.

    :param option: the option, such as `rule_options`.
    :param owner: whose entries they are.
    :param own: the entries that it takes there.
    """
    wrong = [_explained_entry(item) for item in error.errors()]
    return message("{} of {}: {}; {}", Option(option), owner, joined(wrong), takes(option, fields, own))


def _explained_entry(item: Any) -> Message:
    reason, place = item.get("ctx", {}).get("error", item["msg"]), ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return message("there is no {!r}", place)
    if isinstance(reason, DllmError):
        return reason.detail
    return message("{}={}: {}", place, shown(item["input"]), reason) if place else message("{}", reason)


def takes(option: str, fields: type[BaseModel], own: Iterable[str]) -> Message:
    """What entries an option may have, and how one is written."""
    names = sorted(own)
    example = next(({name: value} for name in names if _plain(value := fields.model_fields[name].default)), None)
    known = message("it takes: {}", listed(names))
    return known if example is None else message("{}, for example {}", known, Given(option, example))


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float)
