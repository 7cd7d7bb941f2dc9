"""Prompts for the training text of the default model's denoiser.

The denoiser learns to guess the base model's own greedy answers, so what matters
is variety of *kinds of answer*, not facts. `varied_prompts` crosses hand-written
instructions with hand-written subjects and is a pure function of its seed.

Nothing here may share a template, subject list or wording with
`evaluation_prompts.py`: figures measured on in-template prompts flatter.
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

PARTS: dict[str, list[str]] = json.loads((Path(__file__).parent / "data" / "prompt-parts.json").read_text())
SUBJECTS = PARTS["subjects"]
PEOPLE = PARTS["people"]
INSTRUCTIONS = PARTS["instructions"]
CODE = PARTS["code"]
CODE_TASKS = PARTS["code_tasks"]
SYSTEMS = PARTS["systems"]
FOLLOW_UPS = PARTS["follow_ups"]


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


def one_prompt(rng: random.Random) -> str:
    """One user message drawn from all kinds."""
    kind = rng.random()
    if kind < 0.74:
        s, t = rng.sample(SUBJECTS, 2)
        p, q = rng.sample(PEOPLE, 2)
        return rng.choice(INSTRUCTIONS).format(s=s, t=t, p=p, q=q)
    if kind < 0.82:
        return rng.choice(CODE).format(c=rng.choice(CODE_TASKS))
    if kind < 0.90:
        return _arithmetic(rng)
    return _passage(rng)


def varied_prompts(seed: int) -> Iterator[list[dict[str, str]]]:
    """Chats of one user turn, endlessly; one in eight has a system prompt of its own."""
    rng = random.Random(seed)
    while True:
        chat = [{"role": "user", "content": one_prompt(rng)}]
        if rng.random() < 0.125:
            chat.insert(0, {"role": "system", "content": rng.choice(SYSTEMS)})
        yield chat
