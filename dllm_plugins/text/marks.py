"""What a chat template and a vocabulary say of thinking: its marks, a switch, and where earlier thoughts go.

Nothing is known of models by their names: short chats are rendered, and what surrounds a thought in them marks it.
"""

import re
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import lru_cache
from typing import Any

from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.messages import message
from dllm_plugins.text.chats import template_of
from dllm_plugins.text.templates import render
from dllm_plugins.text.templates import variables_of
from dllm_plugins.text.thinking import Thinking

#: What messages of ours call an assistant's thinking, and what templates call it besides.
FIELD = "reasoning_content"
_FIELDS = (FIELD, "reasoning", "thinking")
#: Words that no template holds.
_THOUGHT, _SAID = "qzthought", "qzsaid"
_STEM = r"(?:think|thought|reason)"
#: A mark, such as `<think>`, `[THINK]` or `<|channel>thought`.
_MARK = r"(?:<[^<>\s]+>\w*|\[[^\[\]\s]+\])"
_AROUND = re.compile(rf"({_MARK})\s*{_THOUGHT}\s*({_MARK})(\s*){_SAID}")
#: What ends thinking, written so that it says what begins it.
_BEGINNINGS = {"end_of_": "begin_of_", "END_OF_": "BEGIN_OF_", "end_": "start_", "END_": "START_"}
_END = re.compile(
    rf"</[\w:|]*{_STEM}\w*\|?>|\[/\w*{_STEM}\w*\]|<\|(?:{'|'.join(_BEGINNINGS)})\w*{_STEM}\w*\|>", re.IGNORECASE
)
_REFUSAL = "{thinking}={}: {} {}, as its chat template has no switch for that; leave it out, or ask another model"


@dataclass(frozen=True, slots=True)
class ThinkingHabit:
    """How a model's chats tell of thinking.

    :param thinking: how an answer marks it; None for a model that does not think.
    :param switch: the template's variable that turns it on and off, if it has one.
    :param field: what the template calls the thinking of earlier answers; None if it never repeats that.
    """

    thinking: Thinking | None = None
    switch: str | None = None
    field: str | None = None

    @property
    def off(self) -> bool | None:
        """What is wanted of a prompt whose answer is no place for thinking."""
        return None if self.switch is None else False

    def variables(self, wanted: bool | None, name: str) -> dict[str, bool]:
        """What the template is told.

        :param wanted: whether the model is to think; None leaves that to the template.
        :param name: of the model, for messages.
        :raises OptionError: if the template has no switch.
        """
        if wanted is None:
            return {}
        if self.switch is None:
            what = "does not think" if self.thinking is None else "thinks or not as it likes"
            raise OptionError(message(_REFUSAL, wanted, name, what))
        return {self.switch: wanted}

    def remembered(self, chat: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Messages with the thinking of earlier answers where the template looks for it."""
        return [
            {key: value for key, value in turn.items() if key != FIELD}
            | ({self.field: turn[FIELD]} if self.field and turn.get(FIELD) else {})
            for turn in chat
        ]

    def begins(self, tokenizer: Any, prompt: Sequence[int]) -> Thinking | None:
        """The marks of an answer to this prompt, which may have begun the thinking."""
        if self.thinking is None:
            return None
        # A mark may be spelled by several tokens.
        end = tokenizer.decode(list(prompt[-4 * len(self.thinking.start) :]), skip_special_tokens=False).rstrip()
        return replace(self.thinking, begun=end.endswith(self.thinking.start))


def habit_of(tokenizer: Any, name: str) -> ThinkingHabit:
    """What a tokenizer and its chat template say.

    :param name: of the model, for messages.
    :raises RequestError: if it has no chat template.
    """
    added = tokenizer.added_tokens_decoder
    marks = tuple(sorted(token.content for token in added.values() if _END.fullmatch(token.content)))
    starts = tuple(token.content for token in added.values() if token.content in map(_start_of, marks))
    variables = tuple(sorted((key, str(value)) for key, value in tokenizer.special_tokens_map.items()))
    found = _habit(template_of(tokenizer), variables, name, (*marks, *starts))
    if found.thinking is None:
        return found
    both = found.thinking.start, found.thinking.end
    shown = {number for number, token in added.items() if token.special and any(token.content in mark for mark in both)}
    return replace(found, thinking=replace(found.thinking, shown=frozenset(shown)))


@lru_cache(maxsize=64)
def _habit(source: str, variables: tuple[tuple[str, str], ...], name: str, added: tuple[str, ...]) -> ThinkingHabit:
    def shown(*turns: Mapping[str, Any], **more: Any) -> str:
        try:
            return render(source, turns, dict(variables) | more, name)
        except RequestError:
            return ""

    thinking = _around(shown) or _ended(source) or _in_vocabulary(added)
    field = next((field for field in _FIELDS if _THOUGHT in _in_a_round(shown, field)), None)
    return ThinkingHabit(thinking, _switch(source, shown), field)


def _around(shown: Callable[..., str]) -> Thinking | None:
    """What surrounds a thought where a message has one of its own."""
    for field in _FIELDS:
        text = shown({"role": "user", "content": "a"}, {"role": "assistant", "content": _SAID, field: _THOUGHT})
        found = _AROUND.search(text)
        if found is not None and re.search(_STEM, found[1], re.IGNORECASE):
            return Thinking(found[1], found[2], found[3])
    return None


def _ended(source: str) -> Thinking | None:
    """What the template looks for in texts, or writes into them."""
    found = _END.search(source)
    return None if found is None else Thinking(_start_of(found[0]), found[0])


def _in_vocabulary(texts: Sequence[str]) -> Thinking | None:
    """Added tokens that are a pair of marks."""
    pairs = ((_start_of(text), text) for text in texts if _END.fullmatch(text))
    return next((Thinking(start, end) for start, end in pairs if start in texts), None)


def _start_of(end: str) -> str:
    """The mark that belongs to one that ends thinking."""
    if not end.startswith("<|"):
        return end.replace("/", "", 1)
    head = next((head for head in _BEGINNINGS if end[2:].startswith(head)), "end_")
    return f"<|{_BEGINNINGS[head]}{end[2 + len(head) :]}"


def _switch(source: str, shown: Callable[..., str]) -> str | None:
    """The variable that changes what a prompt says of thinking without being written itself."""
    question = {"role": "user", "content": "a"}
    for name in variables_of(source):
        if re.search(_STEM, name):
            on, off = (shown(question, **{name: value}) for value in (True, False))
            if on != off and on and off and "True" not in on and "False" not in off:
                return name
    return None


def _in_a_round(shown: Callable[..., str], field: str) -> str:
    """A chat in which a thought precedes a call: what is kept of it elsewhere is the template's business."""
    call = {"type": "function", "id": "call0", "function": {"name": "a", "arguments": {}}}
    turn = {"role": "assistant", "content": "", field: _THOUGHT}
    result = {"role": "tool", "name": "a", "tool_call_id": "call0", "content": "a"}
    question = {"role": "user", "content": "a"}
    return shown(question, {**turn, "tool_calls": [call]}, result) + shown(question, {**turn, "content": "a"})
