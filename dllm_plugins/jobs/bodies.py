"""Bodies of OpenAI's endpoints: what they ask of the engine, and what it answers."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dllm_plugins.config import LARGEST_SEED
from dllm_plugins.config import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.errors import RequestError
from dllm_plugins.events import Finish
from dllm_plugins.jobs.lines import CHAT
from dllm_plugins.messages import Dialect
from dllm_plugins.messages import shown
from dllm_plugins.models import Model
from dllm_plugins.request import Request

#: The engine's options by OpenAI's names.
_OPTIONS = {
    "max_tokens": "max_new_tokens",
    "max_completion_tokens": "max_new_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "seed": "seed",
    "stop": "stop",
}
_REASONS = {"eos": "stop", "stop": "stop", "follows": "stop", "length": "length", "context": "length"}
OPENAI = Dialect({"max_new_tokens": "max_tokens"})
#: Answers to one prompt, each of which is a row of the engine.
MOST_ANSWERS = 128


@dataclass(frozen=True, slots=True)
class Answer:
    """What is asked, and how it is answered."""

    chat: bool
    model: str
    name: str
    requests: list[Request]

    def body(self, finishes: Sequence[Finish]) -> dict[str, Any]:
        """The answer as the endpoint gives it. When it was made is left out, so that it is the same every time."""
        prompt = finishes[0].usage.prompt_tokens
        useful = sum(finish.usage.useful_tokens for finish in finishes)
        return {
            "id": f"{'chatcmpl' if self.chat else 'cmpl'}-{self.name}",
            "object": "chat.completion" if self.chat else "text_completion",
            "created": 0,
            "model": self.model,
            "choices": [self._choice(place, finish) for place, finish in enumerate(finishes)],
            "usage": {"prompt_tokens": prompt, "completion_tokens": useful, "total_tokens": prompt + useful},
        }

    def _choice(self, place: int, finish: Finish) -> dict[str, Any]:
        text = {"message": {"role": "assistant", "content": finish.text, "refusal": None}}
        said = text if self.chat else {"text": finish.text}
        return {"index": place, **said, "logprobs": None, "finish_reason": _REASONS[finish.reason]}


def read_body(url: str, body: Mapping[str, Any], model: Model, name: str, own: str) -> Answer:
    """What a body asks.

    :param name: what the answer calls the model.
    :param own: names the answer.
    :raises OptionError: for a field that is unknown or out of range.
    :raises RequestError: for a prompt that cannot be used.
    """
    chat = url == CHAT
    given = {field: value for field, value in body.items() if value is not None and field != "model"}
    prompt, count = given.pop("messages" if chat else "prompt", None), given.pop("n", 1)
    if unknown := sorted(given.keys() - _OPTIONS.keys()):
        raise OptionError(f"{unknown[0]}={shown(given[unknown[0]])} is no field of a batch's {url}; leave it out")
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_ANSWERS:
        raise OptionError(f"n={shown(count)}: give a number from 1 to {MOST_ANSWERS}")
    config = SamplingConfig(**{_OPTIONS[field]: value for field, value in given.items()})
    tokens = _chat(prompt, model) if chat else _text(prompt, model)
    seeds = [None if config.seed is None else (config.seed + place) % (LARGEST_SEED + 1) for place in range(count)]
    return Answer(chat, name, own, [Request(tokens, config.with_options(seed=seed)) for seed in seeds])


def _chat(messages: object, model: Model) -> list[int]:
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise RequestError(f"messages={shown(messages)}: give a list of objects with role and content")
    return model.encode_chat(messages)


def _text(prompt: object, model: Model) -> list[int]:
    if not isinstance(prompt, str):
        raise RequestError(f"prompt={shown(prompt)}: give a text")
    return model.encode_text(prompt)
