"""Texts with gaps, as values."""

from typing import Any

import pytest

from dllm_plugins.errors import RequestError
from dllm_plugins.template import Gap
from dllm_plugins.template import Growing
from dllm_plugins.template import Template

GAP = Gap(max_tokens=4)


def test_texts_side_by_side_are_one() -> None:
    """And empty ones are none."""
    assert Template("a", "b", "", GAP, "", "c").parts == ("ab", GAP, "c")
    assert Template(GAP).parts == (GAP,)


def test_a_text_with_markers() -> None:
    """Every marker is a gap; others may be chosen, and lengths."""
    assert Template.of_text("a<fill>b<fill>").parts == ("a", Gap(max_tokens=64), "b", Gap(max_tokens=64))
    assert Template.of_text("a__b", Gap(tokens=2), "__").parts == ("a", Gap(tokens=2), "b")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Gap, "tokens for a fixed length, or max_tokens"),
        (lambda: Gap(tokens=2, max_tokens=3), "not both"),
        (lambda: Gap(max_tokens=0), "max_tokens=0.*1 or more"),
        (lambda: Gap(tokens=True), "tokens=True"),
        (lambda: Gap(tokens="3"), "tokens='3'"),  # type: ignore[arg-type]
        (lambda: Template("a"), "without a gap"),
        (lambda: Template(GAP, "", GAP), "side by side"),
        (lambda: Template("a", 3), "part 1 of a template is 3"),  # type: ignore[arg-type]
        (lambda: Template.of_text("a"), "no '<fill>'"),
        (lambda: Template.of_text("a", marker=""), "marker of a gap is empty"),
    ],
)
def test_what_is_no_template(make: Any, words: str) -> None:
    """Each says what is wrong with it."""
    with pytest.raises(RequestError, match=words):
        make()


def test_the_whole_text_grows_from_left_to_right() -> None:
    """Nothing is shown behind a gap that may still grow; an empty gap keeps nobody waiting."""
    growing = Growing(Template("a", GAP, "b", GAP, "c", GAP, "d"))
    shown = [
        growing.add(("1", "", "")),
        growing.add(("2", "", "")),
        growing.add(("", "", "3")),
        growing.add((), done=True),
    ]
    assert shown == ["a1", "2", "bc3", "d"]
