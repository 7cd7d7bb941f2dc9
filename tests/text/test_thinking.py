"""Answers that think first, told apart whole and in pieces."""

from itertools import pairwise
from typing import Any

import pytest

from dllm_plugins.text.answer import AnswerText
from dllm_plugins.text.thinking import Divider
from dllm_plugins.text.thinking import Showing
from dllm_plugins.text.thinking import Thinking
from dllm_plugins.text.thinking import divided

from .test_marks import speaking
from .test_text import Bytes
from .thinking_templates import SILENT

MARKS = Thinking("<think>", "</think>")
BEGUN = Thinking("<think>", "</think>", begun=True)


@pytest.mark.parametrize(
    ("thinking", "text", "thought", "said"),
    [
        (MARKS, "<think>\na\nb\n</think>\n\nYes.", "a\nb", "Yes."),
        (MARKS, " \n<think>a</think>Yes.", "a", "Yes."),
        (MARKS, "<think>a</think>\n\n\n Yes.\n", "a", "\n Yes.\n"),
        (MARKS, "<think></think> Yes.", "", " Yes."),
        (MARKS, "<think>a</thi", "a</thi", ""),
        (MARKS, "<think>a", "a", ""),
        (MARKS, "<thin", "", "<thin"),
        (MARKS, " \n", "", " \n"),
        (MARKS, "Write <think>a</think>.", "", "Write <think>a</think>."),
        (MARKS, "a</think>b", "", "a</think>b"),
        (MARKS, "<think>a</think>b<think>c</think>d", "a", "b<think>c</think>d"),
        (BEGUN, "a\n</think>\n\nYes.", "a", "Yes."),
        (BEGUN, "\n<think>\na</think>Yes.", "a", "Yes."),
        (BEGUN, "a <think> b</think>Yes.", "a <think> b", "Yes."),
        (BEGUN, "a", "a", ""),
        (BEGUN, "</think>", "", ""),
        (BEGUN, "", "", ""),
    ],
)
def test_parts_of_an_answer(thinking: Thinking, text: str, thought: str, said: str) -> None:
    """Whole, and however it is cut into pieces: nothing is lost, and nothing that was told is taken back."""
    assert divided(text, thinking, last=True)[:2] == (thought, said)
    for size in (1, 2, 3, 7, len(text) + 1):
        divider, told = Divider(thinking), ["", ""]
        for end in range(0, len(text) + size, size):
            new = divider.push(text[:end], last=end >= len(text))
            told = [before + more for before, more in zip(told, new, strict=True)]
        assert told == [thought, said], size


def test_stop_strings_end_what_is_said() -> None:
    """Not a thought that holds one, nor the white space behind it."""
    for text, thought, said in (
        ("<think>a.\n\nb.</think>\n\nYes.\n\nNo.", "a.\n\nb.", "Yes"),
        ("<think>a.", "a.", ""),
        ("Yes.", "", "Yes"),
        ("<.", "", "<"),
    ):
        divider = Divider(MARKS)
        answer, told = divider.text(Bytes(), (".", "\n\n")), ["", ""]
        for end in range(1, len(text) + 1):
            answer.push(list(text.encode())[:end], last=end == len(text))
            new = divider.push(answer.text, last=answer.stopped or end == len(text))
            told = [before + more for before, more in zip(told, new, strict=True)]
            if answer.stopped:
                break
        assert told == [thought, said]
        assert answer.stopped == bool(said)


def test_drafts() -> None:
    """What is tentative is told apart like what is final."""
    divider = Divider(MARKS)
    divider.push("<think>so</th", last=False)
    assert divider.draft("<think>so</th", "ink>\n\nYes") == ("", "Yes")
    assert divider.draft("<think>so</th", "is") == ("</this", "")
    assert Divider(MARKS).draft("", "<think>a·") == ("a·", "")


def test_how_much_was_thought() -> None:
    """Tokens up to what is said, the marks included."""
    text = "<think>a</think>\n\nYes."
    assert Divider(MARKS).tokens(Bytes(), list(text.encode())) == text.index("Yes")
    assert Divider(MARKS).tokens(Bytes(), list(b"Yes.")) == 0
    assert Divider(BEGUN).tokens(Bytes(), list(b"a b")) == 3


def test_special_tokens_that_mark() -> None:
    """Texts are written without special tokens; those that mark thinking are seen all the same."""
    tokenizer: Any = speaking(SILENT, ["[THINK]", "[/THINK]", "[PAD]"], special=True)
    ids = tokenizer.encode("[THINK]so[PAD][/THINK]Yes.</s>", add_special_tokens=False)
    first, last = (tokenizer.convert_tokens_to_ids(mark) for mark in ("[THINK]", "[/THINK]"))
    thinking = Thinking("[THINK]", "[/THINK]", shown=frozenset((first, last)))
    assert tokenizer.decode(ids, skip_special_tokens=True) == "soYes."
    assert Showing(tokenizer, thinking.shown).decode(ids) == "[THINK]so[/THINK]Yes."
    divider = Divider(thinking)
    answer = divider.text(tokenizer, ())
    assert isinstance(answer, AnswerText)
    told = ["", ""]
    for before, end in pairwise(range(len(ids) + 1)):
        assert before < end
        answer.push(ids[:end], last=end == len(ids))
        new = divider.push(answer.text, last=end == len(ids))
        told = [known + more for known, more in zip(told, new, strict=True)]
    assert told == ["so", "Yes."]
    assert divider.tokens(answer.tokenizer, ids) == ids.index(last) + 1
