"""Constraints on what is said behind thoughts, as languages."""

from dllm_plugins.constraints.building import build
from dllm_plugins.constraints.language import language_of
from dllm_plugins.constraints.values import Constraint
from dllm_plugins.constraints.values import Grammar
from dllm_plugins.constraints.values import Regex
from dllm_plugins.text.thinking import Thinking
from dllm_plugins.text.thinking import divided
from dllm_plugins.text.thoughts import behind_thinking

NESTED = Grammar('start: "a" | "(" start ")"')


def allows(constraint: Constraint, thinking: Thinking, text: str) -> bool:
    """Whether a whole answer is in the language."""
    return build(behind_thinking(language_of(constraint), thinking)).accepts(text.encode())


def test_thoughts_that_have_begun() -> None:
    """They end once, and what is said follows."""
    begun = Thinking("<think>", "</think>", begun=True)
    for text in ("</think>\n\n", "so\nso</think>\n\n", "<think>so</thin </think>\n\n"):
        assert allows(Regex("yes"), begun, f"{text}yes")
        assert allows(NESTED, begun, f"{text}((a))")
        assert not allows(NESTED, begun, f"{text}((a)")
    for text in ("yes", "so</think>yes", "so</think>\n\nno", "a</think>\n\nb</think>\n\nyes"):
        assert not allows(Regex("yes"), begun, text)


def test_thoughts_that_may_be() -> None:
    """At once, or behind a thought; what would be read as a thought without an end is no answer."""
    marks = Thinking("[T]", "[/T]", "")
    for text in ("yes", "[T]so[/T]yes"):
        assert allows(Regex("yes"), marks, text)
    for text in ("so[/T]yes", "[T]yes", "yes[T]"):
        assert not allows(Regex("yes"), marks, text)
    free = Regex("(?s).*")
    for text in ("a", "[T", "a [T]", "[T]a[/T]", "[T][/T]b"):
        assert allows(free, marks, text)
    for text in ("[T]", " [T]a", "[T]a[/T"):
        assert not allows(free, marks, text)


def test_what_is_said_is_what_is_allowed() -> None:
    """White space that an answer must begin with is its own."""
    marks = Thinking("<think>", "</think>")
    text = "<think>so</think>\n\n\n yes"
    assert allows(Regex("\n yes"), marks, text)
    assert divided(text, marks, last=True).said == "\n yes"
