"""Training rows: which positions of an answer are noised, and who sees whom.

Geometry (see docs/default-model.md): with the last clean token at s, open rows cover
s+2, s+3, ...; the row for position p sits at rope position p-1. Open rows see the
clean prefix up to s and every row of their own block. Committed rows, and the rows of a
clean suffix, run the base at their true position and see the prefix and the committed
rows of their block to their left.
"""

import gzip
import json
import random
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

#: Open rows of a group, and of a block, where nothing else is asked for.
GROUP = 4
BLOCK = 8
LONGEST_SUFFIX = 64
SUFFIX_BLOCKS = 5


@dataclass(frozen=True, slots=True)
class TrainingText:
    """One training text: token ids, and how many of them are the prompt."""

    tokens: Sequence[int]
    prompt: int


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One row: its position, the last clean position it sees, its block, open or committed."""

    position: int
    sees: int
    block: int
    offset: int
    open: bool


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Padded tensors of several answers.

    tokens int64 [A, N]; position, offset int64 [A, R]; open, real bool [A, R];
    mask bool [A, 1, R, N + R].
    """

    tokens: Tensor
    position: Tensor
    offset: Tensor
    open: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> "TrainingBatch":
        """The same on a device."""
        return TrainingBatch(*(getattr(self, field.name).to(device) for field in fields(self)))


def read_answers(paths: list[Path], longest: int = 460) -> list[TrainingText]:
    """Answers of more than 24 tokens from gzip JSON lines `{"p": [...], "r": [...]}`."""
    answers = []
    for path in paths:
        with gzip.open(path, "rt") as file:
            for line in file:
                item = json.loads(line)
                if len(item["r"]) > 24 and len(item["p"]) + len(item["r"]) <= longest:
                    # Millions of tokens as plain numbers would take gigabytes.
                    answers.append(TrainingText(array("i", item["p"] + item["r"]), len(item["p"])))
    return answers


def group_rows(answer: TrainingText, rng: random.Random, size: int = GROUP) -> list[TrainingRow]:
    """Fully open groups of `size` rows, as speculative mode lays them out."""
    stride = max(1, size - 1)
    first = answer.prompt - 1 + rng.randrange(stride)
    starts = range(first, len(answer.tokens) - 2, stride)
    return [
        TrainingRow(s + 2 + j, s, block, j, True)
        for block, s in enumerate(starts)
        for j in range(size)
        if s + 2 + j < len(answer.tokens)
    ]


def block_rows(answer: TrainingText, rng: random.Random, size: int = BLOCK) -> list[TrainingRow]:
    """Blocks of `size` rows; in half of them a random part is committed."""
    rows = []
    first = answer.prompt - 1 + rng.randrange(size)
    for block, s in enumerate(range(first, len(answer.tokens) - 2, size)):
        rate = 0.0 if rng.random() < 0.5 else 0.9 * rng.random()
        for j in range(size):
            if s + 2 + j < len(answer.tokens):
                rows.append(TrainingRow(s + 2 + j, s, block, j, rng.random() >= rate))
    return rows


def suffix_rows(answer: TrainingText, rng: random.Random, size: int = BLOCK) -> list[TrainingRow]:
    """Blocks that end in a clean suffix of 1 to LONGEST_SUFFIX tokens (infilling)."""
    rows = []
    last = len(answer.tokens) - 4
    starts = [rng.randint(answer.prompt - 1, last) for _ in range(SUFFIX_BLOCKS)]
    for block, s in enumerate(starts):
        rate = 0.0 if rng.random() < 0.5 else 0.9 * rng.random()
        begin = min(s + 2 + rng.randint(1, size + 4), len(answer.tokens) - 1)
        end = min(begin + rng.randint(1, LONGEST_SUFFIX), len(answer.tokens))
        for p in range(s + 2, min(begin, s + 2 + size)):
            rows.append(TrainingRow(p, s, block, p - s - 2, rng.random() >= rate))
        rows += [TrainingRow(p, s, block, size, False) for p in range(begin, end)]
    return rows


def collate(answers: list[TrainingText], rows: list[list[TrainingRow]]) -> TrainingBatch:
    """Pad answers and their rows to one width; padding rows are committed and see position 0."""
    count, width = len(answers), max(len(answer.tokens) for answer in answers)
    height = max(len(part) for part in rows)
    tokens = torch.zeros(count, width, dtype=torch.int64)
    fields = torch.zeros(5, count, height, dtype=torch.int64)
    fields[2] = -1
    for index, (answer, part) in enumerate(zip(answers, rows, strict=True)):
        tokens[index, : len(answer.tokens)] = torch.tensor(answer.tokens)
        table = [[r.position, r.sees, r.block, r.offset, int(r.open)] for r in part]
        fields[:, index, : len(part)] = torch.tensor(table).T
    position, sees, block, offset = fields[0], fields[1], fields[2], fields[3]
    open_rows = fields[4].bool()
    prefix = torch.arange(width) <= sees[:, :, None]
    same = block[:, :, None] == block[:, None, :]
    behind = ~open_rows[:, None, :] & (position[:, None, :] <= position[:, :, None])
    canvas = same & (open_rows[:, :, None] | behind)
    mask = torch.cat([prefix, canvas], dim=2).unsqueeze(1)
    return TrainingBatch(tokens, position, offset, open_rows, mask)
