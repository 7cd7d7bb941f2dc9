"""Chats and texts as prompts: what a user types stays text, what the template writes is control."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from dllm_plugins.errors import RequestError
from dllm_plugins.text.spelled import Speller
from dllm_plugins.text.spelled import checked
from dllm_plugins.text.spelled import ids_of
from dllm_plugins.text.templates import render

ROLES = ("system", "developer", "user", "assistant", "tool")
_EXAMPLE = '{"role": "user", "content": text}'
_TOOL = {"name": "a", "description": "a", "parameters": {"type": "object", "properties": {}}}
_CALL = {"type": "function", "id": "call0", "function": {"name": "a", "arguments": {}}}
#: Short chats that show which tokens a template puts around turns, tools, calls and results; some with tools.
_PROBES: tuple[tuple[list[dict[str, Any]], list[dict[str, Any]]], ...] = (
    ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "a"}], []),
    ([{"role": "system", "content": "a"}, {"role": "user", "content": "a"}], []),
    (
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": [_CALL]},
            {"role": "tool", "name": "a", "tool_call_id": "call0", "content": "a"},
        ],
        [{"type": "function", "function": _TOOL}],
    ),
)
#: A text that no template holds, and that hardly any changes.
_WORD = "7305946182"

#: By tokenizer, and by what its control tokens depend on.
_spellers: WeakKeyDictionary[Any, dict[tuple[Any, ...], Speller]] = WeakKeyDictionary()


def encode_text(tokenizer: Any, text: str, control: frozenset[int], special: bool) -> list[int]:
    """Ids of a text to go on from, in which no control token is the user's.

    :param control: the model's own: its mask and what ends its answers.
    :param special: put around it what the tokenizer puts around texts.
    :raises RequestError: for a text that cannot be written so.
    """
    if not hasattr(tokenizer, "added_tokens_decoder"):
        return list(tokenizer.encode(checked(text), add_special_tokens=special))
    return _speller(tokenizer, control, "", "").encode_text(text, special)


def encode_chat(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    control: frozenset[int],
    name: str,
    tools: Sequence[Mapping[str, Any]] = (),
    variables: Mapping[str, Any] | None = None,
) -> list[int]:
    """Ids of a chat up to where the assistant's answer begins.

    The same as transformers' `apply_chat_template` gives, but for control tokens that a message
    spells: these become the ordinary text they are.

    :param control: the model's own: its mask and what ends its answers.
    :param name: of the model, for messages.
    :param tools: functions that the template tells the model of; what they spell is no control token either.
    :param variables: what else the template is told.
    :raises RequestError: for messages that are none, that the template refuses, or that spell a control
        token which cannot be written as text.
    """
    check_messages(messages)
    source = template_of(tokenizer)
    speller = _speller(tokenizer, control, source, name)
    chat = [dict(message) for message in messages]
    spelled = [message for message in chat if any(speller.spells(text, message["role"]) for text in _texts(message))]
    marked = [speller.marked(message, message["role"]) if message in spelled else message for message in chat]
    told = [speller.marked(tool) if any(map(speller.spells, _texts(tool))) else tool for tool in tools]

    def written(turns: Sequence[Mapping[str, Any]]) -> str:
        return render(source, turns, {**tokenizer.special_tokens_map, **(variables or {})}, name, told)

    text = written(marked)
    _check_instructions(marked, text, written, name)
    if not spelled and told == list(tools):
        return ids_of(lambda: tokenizer.encode(text, add_special_tokens=False), "the rendered chat")
    others = [*(message for message in marked if message["role"] != "assistant"), *told]
    marked_there = sum(speller.marks(text) for item in others for text in _texts(item))
    if speller.marks(text) < marked_there:
        raise RequestError(
            f"a message spells a control token of {name}, such as one that ends a turn, and the chat template changes "
            f"that text; write the token another way"
        )
    return speller.encode_rendered(text)


def _check_instructions(
    messages: Sequence[Mapping[str, Any]], text: str, written: Callable[[Sequence[Mapping[str, Any]]], str], name: str
) -> None:
    """Refuse a system prompt that the template silently leaves out.

    :param text: the chat as the template writes it.
    :param written: how it writes others.
    """
    for place, message in enumerate(messages):
        if message["role"] not in ("system", "developer") or message["content"].strip() in text:
            continue
        # It may only have changed the text.
        if _WORD not in written([*messages[:place], {**message, "content": _WORD}, *messages[place + 1 :]]):
            raise RequestError(
                f"the chat template of {name} leaves message {place} out, whose role is {message['role']!r}; put what "
                f"it says into the first question"
            )


def spells(tokenizer: Any, prompt: str | Sequence[Mapping[str, Any]], control: frozenset[int], name: str) -> bool:
    """Whether a text, or any message of a chat, spells a control token.

    :param control: the model's own: its mask and what ends its answers.
    :param name: of the model, for messages.
    :raises RequestError: for a text that holds half a character, or that the tokenizer cannot read.
    """
    if isinstance(prompt, str):
        return _speller(tokenizer, control, "", name).spells(prompt)
    speller = _speller(tokenizer, control, template_of(tokenizer), name)
    return any(speller.spells(text, str(message.get("role"))) for message in prompt for text in _texts(message))


def template_of(tokenizer: Any) -> str:
    """A tokenizer's own chat template.

    :raises RequestError: with what the tokenizer says if it has none.
    """
    return str(ids_of(lambda: [tokenizer.get_chat_template()], "its own chat templates")[0])


def check_messages(messages: Any) -> None:
    """Refuse a chat that is none.

    :raises RequestError: naming the message.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise RequestError(f"a chat is a list of messages, not a {type(messages).__name__}; give [{_EXAMPLE}]")
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise RequestError(f"message {place} is a {type(message).__name__}; give {_EXAMPLE}")
        _check(place, message)


def _check(place: int, message: Mapping[str, Any]) -> None:
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise RequestError(f"message {place} has the role {role!r}; use one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise RequestError(f"message {place} has {type(content).__name__} as its content; give a text")
    for text in _texts(message):
        checked(text)


def _texts(value: Any) -> list[str]:
    """All texts in a message but its role."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for key, item in value.items() if key != "role" for text in _texts(item)]
    return [text for item in value for text in _texts(item)] if isinstance(value, list | tuple) else []


def _speller(tokenizer: Any, control: frozenset[int], source: str, name: str) -> Speller:
    """Made once for a tokenizer and its template."""
    known, key = _spellers.setdefault(tokenizer, {}), (control, source, len(tokenizer))
    if key not in known:
        turns = _turn_tokens(tokenizer, source, name) if source else frozenset()
        known[key] = Speller(tokenizer, control | turns, control)
    return known[key]


def _turn_tokens(tokenizer: Any, source: str, name: str) -> frozenset[int]:
    """Added tokens that the template writes around turns, whether or not they are marked as special."""
    added, found = frozenset(tokenizer.added_tokens_decoder), frozenset[int]()
    for probe, tools in _PROBES:
        try:
            text = render(source, probe, tokenizer.special_tokens_map, name, tools)
        except RequestError:
            # Not every template takes a system prompt, or tools.
            continue
        found |= added.intersection(ids_of(partial(tokenizer.encode, text, add_special_tokens=False), "a chat"))
    return frozenset(number for number in found if tokenizer.added_tokens_decoder[number].content.strip())
