"""What templates and vocabularies say of thinking, found without a name of any model."""

from collections.abc import Sequence

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from dllm_plugins.errors import OptionError
from dllm_plugins.text.marks import habit_of
from dllm_plugins.text.thinking import Thinking

from ..conftest import make_tokenizer
from .thinking_templates import BEGUN
from .thinking_templates import BRACKETS
from .thinking_templates import CHANNELS
from .thinking_templates import SILENT
from .thinking_templates import SWITCHED

ANGLES = Thinking("<think>", "</think>")
LONG = SILENT + "{% if messages[0].content.split('<|end_of_thought|>') %}{% endif %}"


def speaking(template: str, added: Sequence[str] = (), special: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer with this template, and with these tokens."""
    found = make_tokenizer()
    found.chat_template = template
    found.backend_tokenizer.add_tokens([AddedToken(text, special=special) for text in added])
    return found


@pytest.mark.parametrize(
    ("template", "thinking", "switch", "field"),
    [
        (SWITCHED, ANGLES, "enable_thinking", "reasoning_content"),
        (BEGUN, ANGLES, None, "reasoning_content"),
        (BRACKETS, Thinking("[THINK]", "[/THINK]", ""), "thinking", "thinking"),
        (CHANNELS, Thinking("<|channel>thought", "<channel|>", ""), None, "reasoning"),
        (SILENT, None, None, None),
        ("{{ messages[0]['reason'] }}{{ x[reason] }}", None, None, None),
        (
            "{% if m %}{{ m.split('<|end_of_thought|>') }}{% endif %}",
            Thinking("<|begin_of_thought|>", "<|end_of_thought|>"),
            None,
            None,
        ),
    ],
    ids=["switched", "begun", "brackets", "channels", "silent", "subscripts", "long marks"],
)
def test_templates(template: str, thinking: Thinking | None, switch: str | None, field: str | None) -> None:
    found = habit_of(speaking(template), "m")
    assert (found.thinking, found.switch, found.field) == (thinking, switch, field)


def test_a_vocabulary_alone() -> None:
    """A pair of tokens is enough; half of one is none."""
    pair = speaking(SILENT, ["<think>", "</think>", "<b>", "</b>"])
    assert habit_of(pair, "m").thinking == ANGLES
    assert habit_of(speaking(SILENT, ["</think>"]), "m").thinking is None
    assert habit_of(speaking(SILENT, ["<b>", "</b>"]), "m").thinking is None


def test_special_marks_are_shown() -> None:
    """Tokens that texts are written without, of which a mark may be a part."""
    angles, channels = (
        speaking(BEGUN, ["<think>", "</think>"], True),
        speaking(CHANNELS, ["<|channel>", "<channel|>"], True),
    )
    for tokenizer, names in ((angles, ["<think>", "</think>"]), (channels, ["<|channel>", "<channel|>"])):
        found = habit_of(tokenizer, "m").thinking
        assert found is not None
        assert found.shown == set(map(tokenizer.backend_tokenizer.token_to_id, names))


def test_what_the_template_is_told() -> None:
    """By its own word for the switch, which must be there."""
    assert habit_of(speaking(SWITCHED), "m").variables(False, "m") == {"enable_thinking": False}
    assert habit_of(speaking(BRACKETS), "m").variables(True, "m") == {"thinking": True}
    assert habit_of(speaking(SILENT), "m").variables(None, "m") == {}
    with pytest.raises(OptionError, match="thinking=True: m does not think, as its chat template has no switch"):
        habit_of(speaking(SILENT), "m").variables(True, "m")
    with pytest.raises(OptionError, match="thinking=False: m thinks or not as it likes"):
        habit_of(speaking(BEGUN), "m").variables(False, "m")


def test_prompts_that_begin_to_think() -> None:
    """The mark at the very end of a prompt, not one that somebody has typed."""
    tokenizer = speaking(BEGUN)
    habit = habit_of(tokenizer, "m")
    for text, begun in (("<s>assistant\n<think>\n", True), ("<think></think>\n", False), ("<think>a</s>", False)):
        found = habit.begins(tokenizer, tokenizer.encode(text, add_special_tokens=False))
        assert found is not None
        assert found.begun is begun
