"""A mixed bag of requests: chat, extraction, a JSON schema, infilling, code, arithmetic; puzzles of another model."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from itertools import zip_longest

from dllm_plugins import Gap
from dllm_plugins import JsonSchema
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import Template
from dllm_plugins.reasoning import TASKS
from dllm_plugins.reasoning.task import examples

#: What transformers and llama.cpp are asked, too: plain answers to chats.
PLAIN = ("chat", "extraction", "code", "arithmetic")
_LETTER = (
    "Copy every sentence with a price from this letter: 'Dear Ms Novak, thank you for your order. The blue lamp costs "
    "34 euros. It arrives on Monday. The red lamp costs 29 euros and is not in stock. Kind regards, Lampshop.'"
)
_ORDER = (
    "Extract the names and the cities from this text, one pair a line: 'Our staff are Ana Silva from Lisbon, Piotr "
    "Nowak from Krakow, Mia Jensen from Aarhus and Tom Byrne from Cork. They meet twice a year.'"
)
_SPELLING = (
    "Correct the spelling of this text and change nothing else: 'The libary opens at nine oclock. Visiters may borow "
    "three books at a time. Please retern them within four weeks, or renew them at the desk.'"
)
_NOTES = (
    "Rewrite these notes as full sentences: 'meeting on Tuesday at ten, room four; bring the signed contract; Mr Okafor"
    " joins by phone; lunch is at noon in the small kitchen.'"
)
_PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
#: Of every kind as many to learn from as to measure, in turns.
BAG: Mapping[str, Sequence[str]] = {
    "chat": (
        "What makes the sky turn red at sunset?",
        "How do aeroplanes stay in the air?",
        "I can't fall asleep. Any ideas?",
        "What is a polite way to refuse an invitation?",
        "Why do cats purr?",
        "How does a refrigerator keep things cold?",
    ),
    "extraction": (
        "Repeat this list of names, one a line: Fatima Haddad, Georg Lang, Hana Sato, Ivan Petrov, Julia Costa.",
        _LETTER,
        _NOTES,
        "Repeat the list of names, one a line: Amelia Stone, Boris Kovac, Chen Wei, Daniela Rossi, Emre Yildiz.",
        _SPELLING,
        _ORDER,
    ),
    "json": (
        "Write a person of your choice as JSON.",
        "Describe a person from a novel as JSON.",
        "Eva turned 54 last week. Write her name and age as JSON.",
        "Max is 31 years old. Write his name and age as JSON.",
        "Give me a name and an age for a pirate, as JSON.",
        "Invent a student and write name and age as JSON.",
    ),
    "infilling": (
        "The train was late, so<fill>. He waited at the station.",
        "The capital of France is<fill>. It lies on the Seine.",
        "First wash the rice, then<fill>. It is done after twenty minutes.",
        "She opened it and<fill>, so she left.",
        "The dog<fill> and then slept all day.",
        "In winter the lake<fill>. Children skate on it.",
    ),
    "code": (
        "Write a Python function that reverses a string.",
        "Write a Python function that adds two numbers.",
        "Write an SQL query that counts the rows of a table.",
        "Write a loop in C that prints 1 to 10.",
        "Write a Python class for a bank account.",
        "Write a JavaScript function that finds the largest number of a list.",
    ),
    "arithmetic": (
        "How many hours are there in a year? Show each step.",
        "How many minutes are there in a week?",
        "What is 23 + 48? Show each step.",
        "What is 17 times 6? Show each step.",
        "How much is 15 percent of 240?",
        "How many eggs are there in nine dozen?",
    ),
}


def half(kind_texts: Sequence[str], second: int, count: int) -> Sequence[str]:
    """The prompts to learn from (0) or to measure (1), at most so many."""
    return kind_texts[second::2][:count]


def mixed(bag: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Kinds and prompts in turns, as they come where many people ask."""
    rows = zip_longest(*([(kind, text) for text in texts] for kind, texts in bag.items()))
    return [item for row in rows for item in row if item is not None]


def puzzles(count: int) -> tuple[str, ...]:
    """Sudokus of 4 by 4 cells, none of them in training."""
    found = islice(examples(TASKS["sudoku4"], 0, test=True), count)
    return tuple("".join(example.prompt) for example in found)


@dataclass(frozen=True, slots=True)
class Asked:
    """Requests of one model.

    :param tokens: most of an answer, or of a gap.
    """

    model: Model
    tokens: int

    def request(self, kind: str, prompt: str, mode: str) -> Request:
        """A prompt of the bag, greedy."""
        if kind == "infilling":
            return self.model.fill_request(Template.of_text(prompt, Gap(max_tokens=min(12, self.tokens))), mode=mode)
        held = JsonSchema(_PERSON) if kind == "json" else None
        room = len(prompt) if kind == "puzzles" else self.tokens
        config = SamplingConfig(mode=mode, max_new_tokens=room, constraint=held)
        return self.model.chat_request([{"role": "user", "content": prompt}], config)


def serves(mode: str, kind: str, filling: Sequence[str]) -> bool:
    """Whether a contestant can be asked that."""
    if kind == "infilling":
        return mode == "auto" or mode in filling
    return kind in PLAIN or mode in ("auto", "ar", "speculative", "diffusion")
