"""Answers that think first, as languages: a constraint is about what they say."""

import re

from dllm_plugins.constraints.nodes import Choice
from dllm_plugins.constraints.nodes import Concat
from dllm_plugins.constraints.nodes import Literal
from dllm_plugins.constraints.nodes import Node
from dllm_plugins.constraints.nodes import Pattern
from dllm_plugins.constraints.nodes import Without
from dllm_plugins.text.thinking import Thinking

_TEXT = Pattern("(?s).*")


def behind_thinking(language: Node, thinking: Thinking) -> Node:
    """The whole answers that say what a language allows, whatever they think before that.

    Thinking ends while there is room for what has to be said. Where the prompt has not begun it, the model chooses.
    """
    free = Without(_TEXT, Pattern(f"(?s).*{re.escape(thinking.end)}.*"))
    thought = Concat((free, Literal(f"{thinking.end}{thinking.behind}".encode()), language))
    if thinking.begun:
        return thought
    # What looks like a thought that does not end would be read as one.
    plain = Without(language, Pattern(rf"(?s)\s*{re.escape(thinking.start)}.*"))
    return Choice((plain, Concat((Literal(thinking.start.encode()), thought))))
