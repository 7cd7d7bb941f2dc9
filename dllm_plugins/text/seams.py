"""Templates as token ids: each fixed text as it stands in the whole, control tokens that it spells as ordinary text."""

import re
from bisect import bisect_right
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dllm_plugins.constraints.values import Regex
from dllm_plugins.errors import RequestError
from dllm_plugins.messages import message
from dllm_plugins.messages import shown
from dllm_plugins.template import Gap
from dllm_plugins.template import Template
from dllm_plugins.text.answer import decoded

#: Texts that a piece is read behind, where a tokenizer writes the beginning of a text otherwise than its inside.
_ANCHORS = ("\n", "a", ".")
#: From a text to ids; True puts around it what the tokenizer puts around texts.
Encode = Callable[[str, bool], list[int]]


def parts_of(tokenizer: Any, template: Template, encode: Encode, *, exact: bool = False) -> list[list[int] | Gap]:
    """Runs of ids and gaps, with what the tokenizer puts around texts, unless the template stands behind a chat.

    :param exact: the ids must read as the fixed texts, to the letter.
    :raises RequestError: if one reads otherwise, and must not.
    """
    parts: list[list[int] | Gap] = []
    begins, ends = ([], []) if template.chat else around(encode)
    for number, part in enumerate(mended(tokenizer, template.parts, encode)):
        if isinstance(part, Gap):
            parts.append(part)
        else:
            first = number == 0 and not template.chat
            ids = encode(part, False) if first else inside(tokenizer, part, encode)
            if exact and not _reads(tokenizer, ids, part, begins if first else encode("a", False)):
                raise RequestError(
                    message(
                        "{constraint} is about the whole text, and the tokenizer reads the fixed text {} back as {}; "
                        "change that text, or leave {constraint} out",
                        shown(part),
                        shown(decoded(tokenizer, ids)),
                    )
                )
            parts.append(ids)
    if not isinstance(template.parts[-1], Gap):
        parts.append(ends)
    return [part for part in [begins, *parts] if part]


def mended(tokenizer: Any, parts: Sequence[str | Gap], encode: Encode) -> list[str | Gap]:
    """The parts, with every fixed text before a gap ending where a token of the text ends that the gaps replace.

    What is left of a token that the border of a gap cuts is the gap's head: its tokens begin with that text, so that
    they may be those in which the model knows it. A gap that is held to a constraint stays as it is, and so does one
    before which nothing would be left.
    """
    found, old = list(parts), [part if isinstance(part, str) else part.old for part in parts]
    if any(text is None for text in old):
        return found
    whole = "".join(text or "" for text in old)
    ids = encode(whole, False)
    if decoded(tokenizer, ids) != whole:
        return found
    border = 0
    for number, (part, text) in enumerate(zip(parts, old, strict=True)):
        before = parts[number - 1] if number else ""
        if isinstance(part, Gap) and isinstance(before, str) and part.constraint is None:
            cut = border - _begin_of_token(tokenizer, ids, whole, border)
            if 0 < cut < len(before):
                head = before[-cut:]
                found[number - 1] = before[:-cut]
                found[number] = replace(part, head=head, constraint=Regex(f"{re.escape(head)}[\\s\\S]*"))
        border += len(text or "")
    return found


def _begin_of_token(tokenizer: Any, ids: list[int], whole: str, border: int) -> int:
    """The last place up to `border` where a token of a text begins, in characters."""
    count = bisect_right(range(len(ids)), border, key=lambda number: len(decoded(tokenizer, ids[:number]))) - 1
    while not whole.startswith(found := decoded(tokenizer, ids[:count])):
        # Tokens may share a character.
        count -= 1
    return len(found)


def around(encode: Encode) -> tuple[list[int], list[int]]:
    """What a tokenizer puts before and behind a text."""
    bare, whole = encode("a", False), encode("a", True)
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []


def inside(tokenizer: Any, text: str, encode: Encode) -> list[int]:
    """Ids that read as the text where other text stands before them.

    Some tokenizers put a space before every text, which would stand in the middle of the whole one.
    """
    plain = encode(text, False)
    if _reads(tokenizer, plain, text, encode("a", False)):
        return plain
    for anchor in _ANCHORS:
        before, whole = encode(anchor, False), encode(anchor + text, False)
        found = whole[len(before) :]
        if whole[: len(before)] == before and _reads(tokenizer, found, text, before):
            return found
    return plain


def _reads(tokenizer: Any, ids: list[int], text: str, before: list[int]) -> bool:
    return decoded(tokenizer, [*before, *ids]) == decoded(tokenizer, before) + text
