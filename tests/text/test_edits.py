"""Spans of a text: how they become gaps, where borders cut tokens, and what is refused."""

from collections.abc import Sequence
from typing import Any

import pytest

from dllm_plugins.constraints.values import Regex
from dllm_plugins.edits import Edit
from dllm_plugins.edits import changes_of
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Filled
from dllm_plugins.template import Gap
from dllm_plugins.text.chats import encode_text
from dllm_plugins.text.seams import parts_of

from .test_seams import bytelevel
from .test_seams import sentencepiece

TEXT = "a  b re c"


def parts(tokenizer: Any, edit: Edit) -> list[Any]:
    return parts_of(
        tokenizer, edit.template, lambda text, special: encode_text(tokenizer, text, frozenset({1}), special)
    )


def test_what_a_border_cuts_is_written_again() -> None:
    """Two spaces are one token: a span that begins between them is a gap whose first tokens hold the first one."""
    [before, gap, behind, *_] = parts(bytelevel(), Edit(TEXT, [(2, 4)]))
    assert bytelevel().decode(before) == "a"
    assert gap.head == " "
    assert gap.old == " b"
    assert gap.constraint == Regex(r"\ [\s\S]*")
    assert bytelevel().decode(behind) == " re c"
    [before, gap, *_] = parts(bytelevel(), Edit(TEXT, [(3, 4)]))
    assert (bytelevel().decode(before), gap.head, gap.constraint) == ("a  ", "", None)


@pytest.mark.parametrize("tokenizer", [sentencepiece(), bytelevel()], ids=["sentencepiece", "bytes"])
def test_what_is_kept_is_there_to_the_letter(tokenizer: Any) -> None:
    """For every span: what is fixed, with what the gap begins with, is the text without the span."""
    for begin in range(1, len(TEXT)):
        for end in range(begin, len(TEXT) + 1):
            edit = Edit(TEXT, [(begin, end)])
            found = parts(tokenizer, edit)
            [place] = [number for number, part in enumerate(found) if isinstance(part, Gap)]
            before = [token for part in found[:place] for token in part]
            assert tokenizer.decode(before, skip_special_tokens=True) + found[place].head == TEXT[:begin]
            assert edit.template.filled(["!"]) == f"{TEXT[:begin]}!{TEXT[end:]}"


def test_a_form_of_ones_own_is_not_changed() -> None:
    """Its span begins as it was given."""
    [before, gap, *_] = parts(bytelevel(), Edit(TEXT, [(2, 4)], constraint=Regex("x")))
    assert (bytelevel().decode(before), gap.head, gap.constraint) == ("a ", "", Regex("x"))


def test_room_and_places() -> None:
    """As many tokens as characters, within bounds; every place of a word."""
    edit = Edit("one two one" + "x" * 99, [(11, 110), (0, 3)])
    assert [gap.room for gap in edit.template.gaps] == [8, 64]
    assert Edit.of_words("one two one", ["one"], max_tokens=3).spans == ((0, 3), (8, 11))
    gaps = [Filled((1,), "three", "stop", old="one"), Filled((), "", "eos", old="one")]
    first, second = changes_of([(8, 11), (0, 3)], gaps)
    assert (first.span, first.at, second.span, second.at) == ((0, 3), (0, 5), (8, 11), (10, 10))


@pytest.mark.parametrize(
    ("spans", "told"),
    [
        ([], "without a span"),
        ([(0, 12)], r"span \(0, 12\) is none of a text of 9 characters"),
        ([(3, 2)], r"span \(3, 2\)"),
        ([(0, 2), (2, 3)], "overlap or touch"),
        ([(0, True)], "give a pair"),
        ([3], "span 3: give a pair"),
        (7, "spans=7"),
    ],
)
def test_what_are_no_spans(spans: Any, told: str) -> None:
    """The error shows them and says what to give."""
    with pytest.raises(RequestError, match=told):
        Edit(TEXT, spans)


def test_words_that_are_not_there() -> None:
    """Nor are empty ones."""
    for word in ("x", ""):
        with pytest.raises(RequestError, match="does not hold"):
            Edit.of_words(TEXT, [word])


def test_spans_of_every_kind_of_sequence() -> None:
    """As JSON has them."""
    spans: Sequence[Any] = [[0, 1]]
    assert Edit(TEXT, spans).spans == ((0, 1),)
