"""Prompts of the training text: many kinds, hardly one twice, and nothing of the held-out ones."""

import re
from itertools import islice

import pytest

from dllm_plugins.training.evaluation_prompts import HELD_OUT
from dllm_plugins.training.prompts import CODE
from dllm_plugins.training.prompts import INSTRUCTIONS
from dllm_plugins.training.prompts import KINDS
from dllm_plugins.training.prompts import SLOTS
from dllm_plugins.training.prompts import chat
from dllm_plugins.training.prompts import varied_prompts

#: Chats that are looked at.
SOME = 8000


@pytest.fixture(scope="module")
def made() -> list[str]:
    return [turns[-1]["content"] for turns in islice(varied_prompts(2026), SOME)]


def stretches(text: str, length: int = 4) -> set[tuple[str, ...]]:
    """Every so many words on end."""
    words = re.findall(r"[a-z0-9']+", text.lower())
    return {tuple(words[begin : begin + length]) for begin in range(len(words) - length + 1)}


def test_nothing_is_shared_with_the_held_out_prompts(made: list[str]) -> None:
    """Not four words on end, of a template or of what became of it; and no phrase that stands in a slot."""
    assert len(set(HELD_OUT)) == len(HELD_OUT) >= 60
    held_out = set().union(*map(stretches, HELD_OUT))
    templates = [*INSTRUCTIONS, *CODE, *(template for kind in KINDS.values() for template in kind)]
    for text in [*made, *templates]:
        assert not stretches(text) & held_out, text
    phrases = [item for items in SLOTS.values() for item in items if " " in item]
    assert not [phrase for phrase in phrases for prompt in HELD_OUT if phrase.lower() in prompt.lower()]


def test_kinds_and_numbers(made: list[str]) -> None:
    """Every kind is there; each prompt comes once, and few of the numbers repeat one."""
    assert len(KINDS) >= 16
    assert len(set(made)) == SOME
    assert len({chat(2026, number)[-1]["content"] for number in range(SOME)}) > 0.85 * SOME
    for kind, templates in KINDS.items():
        begin = max((re.split(r"[{]", template)[0] for template in templates), key=len)
        assert any(prompt.startswith(begin) for prompt in made), kind


def test_slots_are_filled(made: list[str]) -> None:
    """All of them; a list of what may stand there has nothing twice."""
    assert not [prompt for prompt in made if re.search(r"\{[a-z_]+\d*( \d+ \d+)?\}", prompt)]
    for name, items in SLOTS.items():
        assert len(set(items)) == len(items), name


def test_a_prompt_is_its_seed_and_number() -> None:
    """So that a corpus can be made in parts."""
    assert chat(1, 5) == chat(1, 5) != chat(1, 6)
    assert chat(1, 5) != chat(2, 5)
    assert {turns[0]["role"] for turns in islice(varied_prompts(1), 60)} == {"system", "user"}
