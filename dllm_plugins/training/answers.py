"""A base's own answers, many at a time: rows leave when they are done, and the next prompts take their places."""

import random
from collections import deque
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

from dllm_plugins.config import SamplingConfig
from dllm_plugins.decoding.failing import or_raise
from dllm_plugins.events import Finish
from dllm_plugins.kept_prefixes import KeptPrefixes
from dllm_plugins.models import Model
from dllm_plugins.request import Request
from dllm_plugins.training.prompts import FOLLOW_UPS

Chat = list[dict[str, str]]
#: Positions of finished rows that are kept: prompts begin alike, with a system prompt and a template.
KEPT = 1024


@dataclass(frozen=True, slots=True)
class Wishes:
    """How prompts are answered.

    :param rows: how many are decoded together.
    :param longest: most tokens of an answer; `longest_prompt` most of a prompt, longer ones are left out.
    :param sampled: which share of the answers is drawn at `temperature`; the others are greedy.
    :param follow_up: how often a whole answer is asked about, up to `turns` turns.
    """

    rows: int = 24
    longest: int = 192
    longest_prompt: int = 240
    sampled: float = 0.4
    temperature: float = 0.8
    follow_up: float = 0.12
    turns: int = 3


@dataclass(frozen=True, slots=True)
class BaseAnswer:
    """An answer of the base to a chat, with the end-of-text id if it was reached.

    :param number: of the prompt that the chat began with.
    """

    number: int
    chat: Chat
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    temperature: float


@dataclass(frozen=True, slots=True)
class _Asked:
    number: int
    chat: Chat
    prompt: tuple[int, ...]
    temperature: float


class BaseAnswers:
    """The answers to numbered chats, in the order in which they are done; each depends on its number alone."""

    def __init__(self, model: Model, wishes: Wishes) -> None:
        self._model, self._wishes = model, wishes
        self._engine = model.engine(KeptPrefixes(KEPT))

    def __call__(self, chats: Sequence[tuple[int, Chat]]) -> Iterator[BaseAnswer]:
        """Answer chats and, some of the time, a question about what was answered."""
        waiting, asked = deque(chats), dict[int, _Asked]()
        while waiting or asked:
            while waiting and len(asked) < self._wishes.rows:
                if (next_one := self._asked(*waiting.popleft())) is not None:
                    asked[self._engine.admit(self._request(next_one))] = next_one
            for event in map(or_raise, self._engine.step()):
                if isinstance(event, Finish):
                    answer = _answer(asked.pop(event.row), event)
                    if (further := self._further(answer, event)) is not None:
                        waiting.appendleft((answer.number, further))
                    yield answer

    def _asked(self, number: int, chat: Chat) -> _Asked | None:
        """None for a chat that is too long."""
        prompt = tuple(self._encoded(chat))
        drawn = _rng(number, chat, "temperature").random() < self._wishes.sampled
        room = self._model.denoiser.spec.context - self._wishes.longest
        if len(prompt) > min(self._wishes.longest_prompt, room):
            return None
        return _Asked(number, chat, prompt, self._wishes.temperature if drawn else 0.0)

    def _encoded(self, chat: Chat) -> list[int]:
        """A base that was never taught to chat goes on from the last message."""
        if self._model.tokenizer.chat_template:
            return self._model.encode_chat(chat)
        return self._model.encode_text(chat[-1]["content"] + "\n")

    def _request(self, asked: _Asked) -> Request:
        options = {"temperature": asked.temperature, "seed": asked.number} if asked.temperature else {}
        return Request(asked.prompt, SamplingConfig(mode="ar", max_new_tokens=self._wishes.longest, **options))

    def _further(self, answer: BaseAnswer, end: Finish) -> Chat | None:
        turns = sum(turn["role"] == "user" for turn in answer.chat)
        rng = _rng(answer.number, answer.chat, "further")
        whole = end.reason == "eos" and end.text.strip() and self._model.tokenizer.chat_template
        if not whole or turns >= self._wishes.turns or rng.random() >= self._wishes.follow_up:
            return None
        question = {"role": "user", "content": rng.choice(FOLLOW_UPS)}
        return [*answer.chat, {"role": "assistant", "content": end.text}, question]


def _answer(asked: _Asked, end: Finish) -> BaseAnswer:
    stop = () if end.stop_token is None else (end.stop_token,)
    return BaseAnswer(asked.number, asked.chat, asked.prompt, (*end.tokens, *stop), asked.temperature)


def _rng(number: int, chat: Chat, purpose: str) -> random.Random:
    return random.Random(f"{number} {len(chat)} {purpose}")
