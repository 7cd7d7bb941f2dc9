"""Answers that think before they say something: the two are told apart, whole or as they grow."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import NamedTuple

from dllm_plugins.text.answer import AnswerText
from dllm_plugins.text.answer import Tokenizer
from dllm_plugins.text.answer import decoded
from dllm_plugins.text.answer import longest_held


@dataclass(frozen=True, slots=True)
class Thinking:
    """How an answer is marked that thinks before it says something.

    :param start: the text that begins thinking; an answer that does not begin with it does not think.
    :param end: the text that ends it.
    :param behind: white space between that and what is said, as the chat template puts it there.
    :param begun: the prompt ends with `start`, so the answer begins in the middle of it.
    :param shown: ids of marks that are special tokens, which texts are otherwise written without.
    """

    start: str
    end: str
    behind: str = "\n\n"
    begun: bool = False
    shown: frozenset[int] = frozenset()


class Divided(NamedTuple):
    """An answer in its parts.

    :param thought: without the white space around it.
    :param said: what is behind it, as it is.
    :param begins: where that begins, in characters; at the end of a text that only thinks, None if nobody knows yet.
    """

    thought: str
    said: str
    begins: int | None


def divided(text: str, thinking: Thinking, last: bool) -> Divided:
    """What of an answer's text is thought, and what is said, as far as no more text can change it.

    :param last: there is no more.
    """
    begin = _begin(text, thinking, last)
    if begin is None:
        return Divided("", "", len(text) if thinking.begun else None)
    if begin < 0:
        return Divided("", text, 0)
    end = text.find(thinking.end, begin)
    if end < 0:
        sure = len(text) - (0 if last else longest_held(text[begin:], (thinking.end,)))
        return Divided(text[begin:sure].strip(), "", len(text))
    begins = end + len(thinking.end)
    space = thinking.behind
    while not text.startswith(space, begins):
        space = space[:-1]
    begins += len(space)
    return Divided(text[begin:end].strip(), text[begins:], begins)


def _begin(text: str, thinking: Thinking, last: bool) -> int | None:
    """Where the thought begins; -1 for a text that does not think, None for one that may yet."""
    space = len(text) - len(text.lstrip())
    if text.startswith(thinking.start, space):
        # Some models repeat the mark that the prompt ends with.
        return space + len(thinking.start)
    if not last and thinking.start.startswith(text[space:]):
        return None
    return 0 if thinking.begun else -1


class Divider:
    """Tells of a growing text what is new in each of its parts."""

    def __init__(self, thinking: Thinking) -> None:
        self.thinking = thinking
        self.thought = self.said = ""

    def text(self, tokenizer: Tokenizer, stops: tuple[str, ...]) -> AnswerText:
        """The whole text of an answer, in which stop strings end only what is said."""
        shown = self.thinking.shown
        return AnswerText(Showing(tokenizer, shown) if shown else tokenizer, stops, begins=self._begins)

    def _begins(self, text: str, last: bool) -> int | None:
        return divided(text, self.thinking, last).begins

    def push(self, text: str, last: bool) -> tuple[str, str]:
        """What is new: thought, and said.

        :param text: all of the answer's.
        :param last: there is no more.
        """
        found = divided(text, self.thinking, last)
        new = self.behind(found)
        self.thought, self.said = found.thought, found.said
        return new

    def draft(self, text: str, tentative: str) -> tuple[str, str]:
        """The same of a text that may change, behind one that does not."""
        return self.behind(divided(text + tentative, self.thinking, last=True))

    def behind(self, found: Divided) -> tuple[str, str]:
        """What these parts have more than those before."""
        return found.thought[len(self.thought) :], found.said[len(self.said) :]

    def tokens(self, tokenizer: Any, tokens: Sequence[int]) -> int:
        """How many tokens of a whole answer are thought, the marks included."""
        text = tokenizer.decode(list(tokens), skip_special_tokens=True)
        begins = divided(text, self.thinking, last=True).begins or 0
        if begins == len(text):
            # Half a character at the end is longer than one.
            return len(tokens)

        def length(count: int) -> int:
            return len(tokenizer.decode(list(tokens[:count]), skip_special_tokens=True))

        return bisect_left(range(len(tokens)), begins, key=length)


def parts_of(tokenizer: Tokenizer, tokens: Sequence[int], thinking: Thinking | None) -> tuple[str, str]:
    """The text of a whole answer: thought, and said.

    :raises PassError: with what the tokenizer says if it fails.
    """
    if thinking is None:
        return "", decoded(tokenizer, tokens)
    divider = Divider(thinking)
    return divider.push(divider.text(tokenizer, ()).push(tokens, last=True), last=True)


class Showing:
    """A tokenizer that writes some of its special tokens as their texts.

    :param shown: their ids.
    """

    def __init__(self, tokenizer: Any, shown: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._unseen = (special | set(tokenizer.all_special_ids)) - shown

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """Text of ids; special tokens that are not shown are always left out."""
        kept = [number for number in token_ids if number not in self._unseen]
        found: str = self._tokenizer.decode(kept, skip_special_tokens=False)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)
