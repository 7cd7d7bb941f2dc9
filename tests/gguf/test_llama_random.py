"""Random lives of random rows: llama.cpp and torch agree after every pass."""

import random
from pathlib import Path
from typing import Any

import pytest

from dllm_plugins.denoisers.base import Denoiser
from dllm_plugins.denoisers.base import PrefixState
from dllm_plugins.denoisers.base import Segment

from . import tiny
from .running import forward
from .running import ours
from .running import same
from .running import theirs

pytest.importorskip("llama_cpp", reason="needs the extra gguf")


class Life:
    """One row in both denoisers: its handles, how long its prefix is, and what the last pass left pending."""

    def __init__(self, handles: list[int], length: int) -> None:
        self.handles = handles
        self.length = length
        self.pending = 0

    def segments(self, dice: random.Random) -> list[list[Segment]]:
        """Calls of one pass, for each denoiser: a first segment, some behind parts of it, some beside it."""
        size, begin = dice.choice([1, 2, 5, 8, 8, 40]), self.length
        self.pending = size
        made = [self._one(dice, begin, size)]
        for _ in range(dice.choice([0, 0, 1, 3])):
            count = dice.choice([size, size, dice.randint(1, size)])
            made.append(self._one(dice, begin + count, dice.choice([1, 4, 8]), behind=((0, count),)))
        for _ in range(dice.choice([0, 0, 1, 6])):
            made.append(self._one(dice, begin, dice.choice([1, 3, 8, 8])))
        return [[Segment(handle, **fields) for fields in made] for handle in self.handles]

    def _one(self, dice: random.Random, begin: int, size: int, **more: Any) -> dict[str, Any]:
        groups = sorted(dice.randint(0, 3) for _ in range(size)) if dice.random() < 0.3 else None
        return {
            "tokens": [dice.randint(0, tiny.MASK) for _ in range(size)],
            "positions": range(begin, begin + size),
            "noisy": True,
            "causal": dice.random() < 0.4,
            "wanted": [dice.randrange(size) for _ in range(dice.choice([0, 1, 2, size]))],
            "groups": groups,
            **more,
        }


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seed"), [("llama", 1), ("qwen2", 2), ("qwen3", 3), ("qwen3moe", 4)])
def test_random_lives(tmp_path: Path, kind: str, seed: int) -> None:
    dice, both = random.Random(seed), tiny.tiny(tmp_path, kind)
    mine = ours(both)
    denoisers: list[Denoiser] = [mine, theirs(both)]
    rows, states = list[Life](), list[PrefixState]()
    kept: list[tuple[list[PrefixState], int]] = []
    for _ in range(40):
        if len(rows) < 2 or (len(rows) < 6 and dice.random() < 0.3):
            if kept and dice.random() < 0.6:
                states, most = dice.choice(kept)
                length = dice.randint(0, most)
                rows.append(Life([d.open_row(s, length) for d, s in zip(denoisers, states, strict=True)], length))
            else:
                rows.append(Life([d.open_row() for d in denoisers], 0))
        dice.shuffle(rows)
        planned = [row.segments(dice) for row in rows]
        found = [
            forward(denoiser, [segment for parts in planned for segment in parts[number]])
            for number, denoiser in enumerate(denoisers)
        ]
        same(*found)
        for row in rows:
            count = dice.choice([0, row.pending, dice.randint(0, row.pending)])
            for denoiser, handle in zip(denoisers, row.handles, strict=True):
                denoiser.freeze(handle, count)
            row.length += count
        if dice.random() < 0.25:
            row = rows.pop()
            kept.append(([d.close_row(h) for d, h in zip(denoisers, row.handles, strict=True)], row.length))
            kept = kept[-3:]
    kept, states = [], []
    mine.open_row()
    assert mine.context.streams == len(rows) + 1, "what nobody holds is free"
