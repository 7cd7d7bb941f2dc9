"""Prompts for the training text of a denoiser.

The denoiser learns to guess the base model's own answers, so what matters is variety of *kinds of answer*, not facts.
Templates with slots are crossed with lists of what may stand there; a prompt is a pure function of a seed and a number,
so that a corpus can be made in parts, by several processes, and gone on with.

Nothing here may share a template, subject list or wording with `evaluation_prompts.py`: figures measured on in-template
prompts flatter.
"""

import json
import random
import re
from collections.abc import Callable
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parent / "data"
PARTS: dict[str, list[str]] = json.loads((_DATA / "prompt-parts.json").read_text(encoding="utf-8"))
_GRAMMAR: dict[str, Any] = json.loads((_DATA / "prompt-grammar.json").read_text(encoding="utf-8"))
SUBJECTS = PARTS["subjects"]
PEOPLE = PARTS["people"]
INSTRUCTIONS = PARTS["instructions"]
CODE = PARTS["code"]
CODE_TASKS = PARTS["code_tasks"]
SYSTEMS = PARTS["systems"]
FOLLOW_UPS = PARTS["follow_ups"]
#: Templates by kind of request, and what may stand in their slots, which may have slots of their own.
KINDS: dict[str, list[str]] = _GRAMMAR["kinds"]
SLOTS: dict[str, list[str]] = {**_GRAMMAR["parts"], "subject": SUBJECTS, "person": PEOPLE}
#: `{town}`, `{town2}` for another one, `{number 2 9}`.
_SLOT = re.compile(r"\{([a-z_]+)(\d*)(?: (\d+) (\d+))?\}")
#: How often a prompt has a system prompt of its own.
_WITH_SYSTEM = 0.125


class _Filler:
    """Fills the slots of one prompt: a slot that is named twice says the same twice, one with a number is another."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._said: dict[tuple[str, str], str] = {}
        self._taken: set[tuple[str, str]] = set()

    def fill(self, template: str) -> str:
        """The template with every slot filled."""
        return _SLOT.sub(self._one, template)

    def _one(self, slot: re.Match[str]) -> str:
        name, which, low, high = slot.groups()
        if low is not None:
            return str(self._rng.randint(int(low), int(high)))
        if (name, which) not in self._said:
            chosen = self._rng.choice([item for item in SLOTS[name] if (name, item) not in self._taken])
            self._taken.add((name, chosen))
            self._said[name, which] = self.fill(chosen)
        return self._said[name, which]


def _arithmetic(rng: random.Random) -> str:
    a, b, c = rng.randrange(3, 90), rng.randrange(3, 60), rng.randrange(2, 12)
    p, q = rng.sample(PEOPLE, 2)
    thing = rng.choice(["eggs", "chairs", "bottles", "lamps", "shells", "pens", "plants", "bags"])
    return rng.choice(
        [
            f"{p} packs {a} {thing} into boxes of {c}. How many boxes are needed?",
            f"A shop sells {thing} for {c} euros each. How much do {b} {thing} cost?",
            f"{p} is {a} years old and {q} is {b} years older. How old is {q}?",
            f"Calculate {a * c} divided by {c} and explain the steps.",
            f"What is {a + b} minus {b}?",
            f"{p} reads {c} pages an hour. How many pages does {p} read in {b} hours?",
            f"What is {b} percent of {a * 10}?",
            f"Put these numbers in order: {a}, {b}, {c}, {a + c}.",
        ]
    )


def _passage(rng: random.Random) -> str:
    p, q = rng.sample(PEOPLE, 2)
    s, t = rng.sample(SUBJECTS, 2)
    day = rng.choice(["Wednesday", "Thursday", "Sunday", "Monday"])
    town = rng.choice(["Porto", "Nairobi", "Kyoto", "Bergen", "Quito", "Lyon"])
    price = rng.randrange(6, 95)
    text = rng.choice(
        [
            f"Last {day}, {p} opened a small shop in {town} devoted to {s}. "
            f"Admission is {price} euros and {q} is the first employee.",
            f"{p} and {q} argued about {s} for an hour in {town}. In the end they agreed that {t} mattered more.",
            f"The {town} council discussed {s} on {day}. {p} asked for {price} "
            f"thousand dollars; {q} voted against it because of {t}.",
            f"{p} never liked {s}. Then a friend from {town} explained {t}, and "
            f"everything changed. Now {p} spends {price} minutes a day on it.",
        ]
    )
    task = rng.choice(
        [
            "Summarise this text:",
            "What is this text about?",
            "List the names and places in this text:",
            "Write a title for this text:",
            "Continue this text:",
            "Make this text more exciting:",
            "Turn this text into bullet points:",
            "Ask two questions about this text:",
            "Rewrite this text in the present tense:",
            "Answer in JSON with the keys who, where and topic:",
        ]
    )
    return f"{task} {text}"


def _instruction(rng: random.Random) -> str:
    s, t = rng.sample(SUBJECTS, 2)
    p, q = rng.sample(PEOPLE, 2)
    return rng.choice(INSTRUCTIONS).format(s=s, t=t, p=p, q=q)


def _program(rng: random.Random) -> str:
    return rng.choice(CODE).format(c=rng.choice(CODE_TASKS))


def _composed(rng: random.Random) -> str:
    kind = rng.choice(sorted(KINDS))
    return _Filler(rng).fill(rng.choice(KINDS[kind]))


#: How often each way to make a prompt is taken.
_WAYS: dict[Callable[[random.Random], str], float] = {
    _composed: 0.62,
    _instruction: 0.26,
    _program: 0.03,
    _arithmetic: 0.04,
    _passage: 0.05,
}


def one_prompt(rng: random.Random) -> str:
    """One user message drawn from all kinds."""
    (way,) = rng.choices(list(_WAYS), list(_WAYS.values()))
    return way(rng)


def chat(seed: int, number: int) -> list[dict[str, str]]:
    """A chat of one user turn, always the same for a seed and a number; one in eight has a system prompt of its own."""
    rng = random.Random(f"{seed} {number}")
    made = [{"role": "user", "content": one_prompt(rng)}]
    if rng.random() < _WITH_SYSTEM:
        made.insert(0, {"role": "system", "content": rng.choice(SYSTEMS)})
    return made


def varied_prompts(seed: int) -> Iterator[list[dict[str, str]]]:
    """The chats of a seed, endlessly, each once: about three in four of the numbers make a new one."""
    seen: set[str] = set()
    for number in count():
        made = chat(seed, number)
        if made[-1]["content"] not in seen:
            seen.add(made[-1]["content"])
            yield made
