"""Make training text: the base model's own greedy answers, many at a time.

The denoiser is trained to guess what the unchanged base model would say next, so
its training text is made by that model and needs no outside data.
"""

import gzip
import json
import random
import time
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers import AutoTokenizer

from dllm_plugins.training.prompts import FOLLOW_UPS
from dllm_plugins.training.prompts import varied_prompts

FOLLOW_UP_SHARE = 0.12
LONGEST_PROMPT = 200
SHORTEST_ANSWER = 4
MOST_TURNS = 4


def _next_chats(prompts: Iterator[Any], finished: list[Any], rng: random.Random, rows: int) -> list[Any]:
    chats: list[Any] = []
    while len(chats) < rows:
        if finished and rng.random() < FOLLOW_UP_SHARE:
            turn = {"role": "user", "content": rng.choice(FOLLOW_UPS)}
            chats.append([*rng.choice(finished), turn])
        else:
            chats.append(next(prompts))
    return chats


def _encode(tokenizer: Any, chats: list[Any]) -> list[tuple[Any, list[int]]]:
    """Chats with their prompt ids, too long ones left out."""
    pairs = []
    for chat in chats:
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
        if len(ids) <= LONGEST_PROMPT:
            pairs.append((chat, ids))
    return pairs


class Writer:
    """The base model answering greedily, many prompts at a time."""

    def __init__(self, base_folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base_folder, padding_side="left", trust_remote_code=False)
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            base_folder, dtype=torch.bfloat16, trust_remote_code=False
        ).eval()
        self.end: int = self.model.config.eos_token_id

    def answer(self, chats: list[Any], longest: int) -> list[tuple[Any, list[int], list[int]]]:
        """(chat, prompt ids, answer ids with the end-of-text id if it was reached)."""
        pairs = _encode(self.tokenizer, chats)
        batch = self.tokenizer.pad({"input_ids": [ids for _, ids in pairs]}, return_tensors="pt")
        written = self.model.generate(**batch, max_new_tokens=longest, do_sample=False)
        found = []
        for (chat, ids), row in zip(pairs, written[:, batch["input_ids"].shape[1] :].tolist(), strict=True):
            found.append((chat, ids, row[: row.index(self.end) + 1] if self.end in row else row))
        return found


def _append(out: Path, answers: list[tuple[Any, list[int], list[int]]]) -> int:
    with gzip.open(out, "at") as file:
        for _, ids, answer in answers:
            file.write(json.dumps({"p": ids, "r": answer}) + "\n")
    return sum(len(answer) for _, _, answer in answers)


def make_corpus(base_folder: Path, out: Path, *, minutes: float, seed: int, rows: int = 96, longest: int = 192) -> int:
    """Append answers to `out` (gzip JSON lines `{"p": prompt ids, "r": answer ids}`).

    :returns: the number of answer tokens written.
    """
    writer, rng, prompts = Writer(base_folder), random.Random(seed + 1), varied_prompts(seed)
    finished: list[Any] = []
    written, end = 0, time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        answers = writer.answer(_next_chats(prompts, finished, rng, rows), longest)
        answers = [item for item in answers if len(item[2]) >= SHORTEST_ANSWER]
        written += _append(out, answers)
        for chat, _, answer in answers:
            if answer[-1] == writer.end and len(chat) < MOST_TURNS:
                text = writer.tokenizer.decode(answer[:-1])
                finished.append([*chat, {"role": "assistant", "content": text}])
        del finished[:-400]
        print(f"{written} tokens", flush=True)
    return written


def make_held_out(base_folder: Path, out: Path, prompts: Sequence[str], longest: int = 96) -> int:
    """Write the base's answers to held-out prompts, in the same format.

    :returns: the number of answer tokens written.
    """
    out.unlink(missing_ok=True)
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    return _append(out, Writer(base_folder).answer(chats, longest))
