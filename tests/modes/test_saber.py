"""Saber: against a plain loop over tensors, its rules as pure functions, the reference's defect both ways."""

from typing import Any

import pytest
import torch

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.modes.saber import revealed
from dllm_plugins.modes.saber import taken_back

from .tiny_models import MASK
from .tiny_models import random_model

PROMPTS = [[1, 2, 3], [7], [9, 8, 7, 6, 5, 4, 3], [20, 21, 3, 3]]


@pytest.fixture(scope="module")
def model() -> Model:
    """Random weights that are sure of some tokens and not of others."""
    return random_model("saber", seed=3, cache="none")


def decode(model: Model, prompts: list[list[int]], **options: Any) -> list[Finish]:
    """All prompts together, without stop ids."""
    config = SamplingConfig(**{"max_new_tokens": 16, "block_length": 8, **options})
    return model.engine().generate([Request(prompt, config, frozenset()) for prompt in prompts])


class PlainSaber:
    """Saber as the reference computes it, over whole tensors.

    :param overflow: top-k goes on where fewer than `n` positions are open, as there.
    """

    def __init__(self, model: Model, n: int, overflow: bool = False) -> None:
        self.network: Any = model.denoiser.model  # type: ignore[attr-defined]
        self.n, self.overflow = n, overflow
        self.passes = self.taken = self.beyond = 0

    def ask(self, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What would be drawn everywhere, and its probability."""
        size = len(text)
        mask = torch.zeros(1, 1, size, size)
        said = self.network(text[None], attention_mask=mask, position_ids=torch.arange(size)[None], use_cache=False)
        logits = said.logits[0]
        self.passes += 1
        token = logits.index_fill(-1, torch.tensor(MASK), -torch.inf).argmax(-1)
        return token, logits.softmax(-1).gather(1, token[:, None])[:, 0]

    @torch.inference_mode()
    def decode(self, prompt: list[int], count: int, block: int) -> list[int]:
        """The answer."""
        text = torch.tensor(prompt + [MASK] * count)
        answer = torch.arange(len(text)) >= len(prompt)
        before, when = torch.zeros(len(text)), torch.full((len(text),), -torch.inf)
        for stop in range(len(prompt) + block, len(text) + 1, block):
            while (text[:stop] == MASK).any():
                token, sure = self.ask(text)
                sure[stop:] = -torch.inf
                now = torch.where(answer, sure, -torch.inf)
                change, before = (now - before).nan_to_num(torch.inf, neginf=torch.inf), now
                chance = torch.where(text == MASK, now, -torch.inf)
                past = when[:stop][when[:stop] > -torch.inf]
                chosen = (chance > (past.mean() if len(past) else 1)).nonzero()[:, 0]
                if len(chosen) < self.n:
                    room = self.n if self.overflow else min(self.n, int((chance > -torch.inf).sum()))
                    chosen = chance.topk(room).indices
                self.beyond += int((chosen >= stop).sum())
                when[chosen] = sure[chosen]
                text[chosen] = torch.where(answer, token, text)[chosen]
                if (text[:stop] != MASK).all():
                    break
                losable = torch.where((text != MASK) & answer, change, torch.inf)
                losable[stop:] = torch.inf
                share = min(max(self.n // 2, (len(chosen) + 7) // 8), len(chosen) - 1)
                text[losable.topk(share, largest=False).indices] = MASK
                self.taken += share
        return text[len(prompt) :].tolist()


@pytest.mark.parametrize(("block", "n"), [(16, 2), (8, 2), (4, 2), (16, 4), (8, 3), (16, 1)])
def test_equals_a_plain_loop(model: Model, block: int, n: int) -> None:
    """Same tokens and as many passes."""
    found = decode(model, PROMPTS, block_length=block, preset_options={"n": n})
    for prompt, finish in zip(PROMPTS, found, strict=True):
        plain = PlainSaber(model, n)
        assert list(finish.tokens) == plain.decode(prompt, 16, block)
        assert finish.usage.total_passes == plain.passes
        assert plain.taken or n == 1


def test_the_overflowing_top_k_both_ways(model: Model) -> None:
    """The reference commits positions of later blocks, of which it says nothing; ours never does."""
    plain, reference = PlainSaber(model, 3), PlainSaber(model, 3, overflow=True)
    answers = [
        (plain.decode(prompt, 16, 4), reference.decode(prompt, 16, 4), list(ours.tokens))
        for prompt, ours in zip(PROMPTS, decode(model, PROMPTS, block_length=4, preset_options={"n": 3}), strict=True)
    ]
    assert plain.beyond == 0
    assert reference.beyond > 0
    assert all(right == ours for right, _, ours in answers)
    assert any(wrong != ours for _, wrong, ours in answers)


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_rows_alone(model: Model, temperature: float) -> None:
    """A batch of unequal prompts equals its rows; the length is exact, and nothing stays open."""
    options = {"temperature": temperature, **({"seed": 5} if temperature else {})}
    for prompt, finish in zip(PROMPTS, decode(model, PROMPTS, **options), strict=True):
        assert decode(model, [prompt], **options)[0].tokens == finish.tokens
        assert len(finish.tokens) == 16
        assert MASK not in finish.tokens


def test_reveals() -> None:
    """What is surer than the text so far; at first, and at least, the `n` surest."""
    sure = torch.tensor([0.2, 0.9, 0.5, 0.6])
    assert revealed(sure, [], 2) == [1, 3]
    assert revealed(sure, [0.4, 0.5], 2) == [1, 2, 3]
    assert revealed(sure, [0.8], 2) == [1, 3]
    assert revealed(sure[:1], [0.8], 2) == [0]


def test_takes_back() -> None:
    """An eighth of what was revealed, at least half of `n`, always fewer than were revealed."""
    change = torch.tensor([0.3, -0.5, 0.1, -0.2])
    assert taken_back(change, 2, 2) == [1]
    assert taken_back(change, 9, 2) == [1, 3]
    assert taken_back(change, 1, 1) == []
    assert taken_back(change, 4, 6) == [1, 3, 2]


@pytest.mark.parametrize("options", [{"preset_options": {"n": 0}}, {"threshold": 0.5}, {"steps": 3}])
def test_bad_options(model: Model, options: dict[str, Any]) -> None:
    """Refused by name."""
    with pytest.raises(OptionError, match=r"n=0|threshold=0\.5|steps=3"):
        decode(model, [[1]], **options)
