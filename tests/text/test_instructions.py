"""System prompts: every template that a family brings takes them, and one that leaves them out is told of."""

from typing import Any

import pytest

from dllm_plugins.errors import RequestError
from dllm_plugins.families.layouts import LAYOUTS
from dllm_plugins.text.chats import encode_chat
from dllm_plugins.tools.prompts import prompt_of
from dllm_plugins.tools.templates import habit_of
from dllm_plugins.tools.tool import Tool

from .test_marks import speaking
from .thinking_templates import BEGUN
from .thinking_templates import BRACKETS
from .thinking_templates import CHANNELS
from .thinking_templates import SWITCHED

ASKED = {"role": "user", "content": "Why?"}
BRIEF = {"role": "system", "content": " Be brief.\n"}
OWN = {layout.name: layout.chat_template for layout in LAYOUTS.values() if layout.chat_template is not None}
LOUD = "{% for m in messages %}{{ m.role }}: {{ m.content | upper }}\n{% endfor %}"
SILENT = "{% for m in messages %}{% if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}"
FIRST = "{% for m in messages %}{% if m.role == 'user' or loop.first %}{{ m.content }}\n{% endif %}{% endfor %}"
REFUSING = "{% if messages[0].role == 'system' %}{{ raise_exception('No system!') }}{% endif %}" + SILENT


def written(template: str, *chat: dict[str, Any]) -> str:
    """The prompt as text."""
    tokenizer = speaking(template)
    return str(tokenizer.decode(encode_chat(tokenizer, chat, frozenset(), "m")))


@pytest.mark.parametrize("template", [*OWN.values(), SWITCHED, BEGUN, BRACKETS, CHANNELS], ids=str)
def test_templates_that_take_them(template: str) -> None:
    """Before the question, and only once."""
    text = written(template, BRIEF, ASKED)
    assert text.count("Be brief.") == text.count("Why?") == 1
    assert text.index("Be brief.") < text.index("Why?")


def test_families_bring_templates() -> None:
    """Those whose checkpoints have none, or a wrong one."""
    assert {"llada", "bert_chat"} <= set(OWN)


def test_templates_that_leave_them_out() -> None:
    """An error says so, and what to do; a text that is only changed is none."""
    assert "BE BRIEF." in written(LOUD, BRIEF, ASKED)
    with pytest.raises(RequestError, match="m leaves message 0 out, whose role is 'system'; put what it says into"):
        written(SILENT, BRIEF, ASKED)
    with pytest.raises(RequestError, match=r"refuses this chat .No system!.*into the first question"):
        written(REFUSING, BRIEF, ASKED)
    assert "Be brief." in written(FIRST, BRIEF, ASKED)
    with pytest.raises(RequestError, match="leaves message 1 out"):
        written(FIRST, ASKED, BRIEF)
    with pytest.raises(RequestError, match="'developer'"):
        written(FIRST, ASKED, BRIEF | {"role": "developer"})


@pytest.mark.parametrize("template", [SILENT, REFUSING], ids=["silent", "refusing"])
def test_tools_without_a_system_prompt(template: str) -> None:
    """They are told of before the first question."""
    habit = habit_of(template, {}, "m")
    assert not habit.system
    text = written(template, *prompt_of([ASKED], [Tool("f")], habit))
    assert text.startswith("user: These functions are there")
    assert text.index('"name": "f"') < text.index("Why?")
