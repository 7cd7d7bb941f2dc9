"""How calls are written in an answer: JSON objects between fixed texts."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dllm_plugins.tools.calls import Call


@dataclass(frozen=True, slots=True)
class CallFormat:
    """A call is `before`, an object with a name and arguments, `after`; several stand with `between` between them.

    :param opening: the object up to the name, for example `{"name": "`.
    :param middle: from there to the arguments, for example `", "arguments": `.
    :param closing: behind the arguments, for example `}`.
    :param between: what stands between two objects; None where an answer holds a single call.
    """

    before: str
    opening: str
    middle: str
    closing: str
    after: str
    between: str | None

    @property
    def marker(self) -> str:
        """The text that no answer holds but for a call; "" if a call is told by its object alone."""
        return self.before.strip()

    @property
    def keys(self) -> tuple[str, str]:
        """What the object calls the name and the arguments."""
        found = re.findall(r'"((?:[^"\\]|\\.)*)"\s*:', f"{self.opening}{self.middle}")
        return str(found[0]), str(found[1])

    def written(self, calls: Sequence[Call]) -> str:
        """Calls as a model writes them.

        Where an answer holds a single one, several stand one a line.
        """
        between = "\n" if self.between is None else self.between
        objects = (f"{self.opening}{call.name}{self.middle}{call.written()}{self.closing}" for call in calls)
        return f"{self.before}{between.join(objects)}{self.after}"


#: Of models whose chat template has none: docs/tools.md.
OWN = CallFormat("<tool_call>", '{"name": "', '", "arguments": ', "}", "</tool_call>", "</tool_call>\n<tool_call>")


def found_in(one: str, two: str | None, name: str, arguments: str) -> CallFormat | None:
    """The format of a text that holds one call and nothing else; None if that is no object with these two keys.

    :param two: the same call twice, if that can be written.
    :param name: the tool's.
    :param arguments: what the arguments read as JSON.
    """
    decoder = json.JSONDecoder()
    for begin in (found.start() for found in re.finditer(r"\{", one)):
        try:
            value, end = decoder.raw_decode(one, begin)
        except ValueError:
            continue
        if not isinstance(value, dict) or name not in value.values() or json.loads(arguments) not in value.values():
            return None
        middle = re.search(rf'(\{{\s*"[^"]+"\s*:\s*"){re.escape(name)}("\s*,\s*"[^"]+"\s*:\s*)(?=\{{)', one[begin:end])
        if middle is None or middle.start() != 0 or len(value) != 2:
            return None
        _, behind = decoder.raw_decode(one, begin + middle.end())
        before, after = one[:begin], one[end:]
        between = _between(two, one[begin:end], before, after)
        return CallFormat(before, middle[1], middle[2], one[behind:end], after, between)
    return None


def _between(two: str | None, item: str, before: str, after: str) -> str | None:
    if two is None or not two.startswith(before + item) or not two.endswith(item + after):
        return None
    return two[len(before) + len(item) : len(two) - len(item) - len(after)]
