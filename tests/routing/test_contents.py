"""What requests are about, by their form and their words."""

from pathlib import Path

import pytest

from dllm_plugins import Request
from dllm_plugins.routing.contents import content_of
from dllm_plugins.routing.rules import kind_of
from dllm_plugins.routing.rules import rules_of


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("How do aeroplanes stay in the air?", "open"),
        ("The function of the heart is to pump blood. Tell me more.", "open"),
        ("Meet me on 2024-07-26 or 26/07/2024.", "open"),
        ("Correct the spelling: 'Their is a hous on the hil, and its dor is allways opn for gests.'", "copying"),
        ("Was sagt er? „" + "Das Haus steht am Hang und hat viele Fenster. " * 4 + "“", "copying"),
        ("Fix this:\n```\nx = 1\n```", "code"),
        ("def add(a, b):\n    return a +", "code"),
        ("Write a loop in C that prints 1 to 10.", "code"),
        ("What is 17 * 6?", "arithmetic"),
        ("How many minutes are there in a week?", "arithmetic"),
        ("1 _ 3 4\n3 4 _ 2\n_ 1 4 3\n4 3 2 _", "puzzle"),
        ("4..1.2..3..4.1..", "puzzle"),
        ("My number is 1234567890123456, and I wait ................", "open"),
        ("Plan a trip through Portugal.", "puzzle"),
        ("", "open"),
    ],
)
def test_by_form_and_words(text: str, content: str) -> None:
    """Of the prompt alone."""
    assert content_of([], text) == content


def test_what_repeats_is_likely_to_go_on() -> None:
    """Of any language, and where only ids are known."""
    assert content_of([*range(20)] * 4, "") == "copying"
    assert content_of([*range(80)], "") == "open"


def test_rules_may_name_them(folder: Path) -> None:
    """Where they do not, the rule is that of `open`."""
    (folder / "routes.toml").write_text('open = "ar"\ncode = "diffusion"\n', encoding="utf-8")
    rules = rules_of("dllm")
    assert (rules.of("code"), rules.of("puzzle"), rules.of("open"), rules.of("gaps")) == (
        "diffusion",
        "ar",
        "ar",
        "filling",
    )
    assert kind_of(Request([1]), "code") == "code"
