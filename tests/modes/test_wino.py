"""WINO: against a plain loop over dense masks, for both attentions; the rules as pure functions; what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Commit
from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.denoisers.base import Segment
from dllm_plugins.denoisers.visibility import visible
from dllm_plugins.errors import OptionError
from dllm_plugins.models import load_model
from dllm_plugins.modes.wino import accepted
from dllm_plugins.modes.wino import doubted

from .tiny_models import MASK
from .tiny_models import random_model

PROMPTS = [[1, 2, 3], [7], [9, 8, 7, 6, 5, 4, 3], [20, 21, 3, 3]]
LENGTH, BLOCK = 26, 12
ATTENTION: dict[str, dict[str, Any]] = {
    "bidirectional": {"cache": "none", "holds": True},
    "block-causal": {"cache": "exact"},
}


@pytest.fixture(scope="module", params=list(ATTENTION))
def attention(request: pytest.FixtureRequest) -> str:
    """Who sees whom."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def model(attention: str) -> Model:
    """Random weights that are sure of some tokens and not of others."""
    return random_model("wino", seed=3, **ATTENTION[attention])


def decode(model: Model, prompts: list[list[int]], **options: Any) -> list[Finish]:
    """All prompts together, without stop ids."""
    config = SamplingConfig(**{"max_new_tokens": LENGTH, "block_length": BLOCK, **options})
    return model.engine().generate([Request(prompt, config, frozenset()) for prompt in prompts])


class PlainWino:
    """WINO as the paper tells it, on dense masks: every pass forwards everything, shadows included."""

    def __init__(self, model: Model, attention: str, block: int, threshold: float, back: float) -> None:
        self.network: Any = model.denoiser.model  # type: ignore[attr-defined]
        self.blocks = attention == "block-causal"
        self.length, self.threshold, self.back = block, threshold, back
        self.passes = self.revoked = 0

    @torch.inference_mode()
    def ask(self, text: list[int], begin: int, stop: int) -> Tensor:
        """Probabilities [text and shadows, V]."""
        shadows = list(range(begin, stop))
        positions = torch.tensor([*range(len(text)), *shadows])
        real = torch.arange(len(positions)) < len(text)
        seen = real[None, :].expand(len(positions), -1).clone()
        if self.blocks:
            seen &= positions[None, :] // self.length <= positions[:, None] // self.length
        seen[len(text) :, len(text) :] = True
        seen[len(text) :, begin:stop] &= ~torch.eye(stop - begin, dtype=torch.bool)
        mask = torch.zeros(1, 1, *seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        tokens = torch.tensor([text + [MASK] * len(shadows)])
        logits = self.network(tokens, attention_mask=mask, position_ids=positions[None], use_cache=False).logits[0]
        self.passes += 1
        said: Tensor = logits.double().softmax(-1)
        return said

    def decode(self, prompt: list[int], count: int) -> list[int]:
        """The answer."""
        text, end = [*prompt, *[MASK] * count], len(prompt) + count
        first = len(prompt) // self.length * self.length if self.blocks else len(prompt)
        for start in range(first, end, self.length):
            stop = start + self.length if self.blocks else min(start + self.length, end)
            text += [MASK] * (stop - len(text))
            self.denoise(text, max(start, len(prompt)), stop, end)
        return text[len(prompt) : end]

    def denoise(self, text: list[int], begin: int, stop: int, end: int) -> None:
        """One block."""
        last = 30
        while MASK in text[begin : min(stop, end)]:
            upto = text[:stop] if self.blocks else text
            said = self.ask(upto, begin, stop)
            masks = [position for position in range(begin, stop) if text[position] == MASK]
            old = [position for position in range(begin, stop) if text[position] != MASK]
            best = {position: int(said[position].index_fill(0, torch.tensor(MASK), 0).argmax()) for position in masks}
            sure = {position: float(said[position, best[position]]) for position in masks}
            order = sorted(masks, key=lambda position: -sure[position])
            take = [position for position in order if sure[position] > self.threshold]
            take = take[: min(max(int(0.7 * len(masks)), 5), 20)] or order[:1]
            doubts = {position: float(said[len(upto) + position - begin, text[position]]) for position in old}
            for position in take:
                text[position] = best[position]
            back = sorted(
                (position for position in old if doubts[position] < self.back), key=lambda position: doubts[position]
            )
            for position in back[: last - 1] if len(take) > 1 else []:
                text[position] = MASK
                self.revoked += 1
            last = len(take)


@pytest.mark.parametrize(("threshold", "back"), [(0.6, 0.9), (0.3, 0.9), (0.2, 0.5), (0.15, 0.9)])
def test_equals_a_plain_loop(model: Model, attention: str, threshold: float, back: float) -> None:
    """Same tokens and as many passes, with caches and shadows only where they matter."""
    options = {"threshold": threshold, "preset_options": {"threshold_back": back}}
    for prompt, finish in zip(PROMPTS, decode(model, PROMPTS, **options), strict=True):
        plain = PlainWino(model, attention, BLOCK, threshold, back)
        assert list(finish.tokens) == plain.decode(prompt, LENGTH)
        assert finish.usage.total_passes == plain.passes


def test_tokens_are_taken_back(model: Model, attention: str) -> None:
    """The comparison above covers revocation."""
    plain = PlainWino(model, attention, BLOCK, 0.3, 0.9)
    for prompt in PROMPTS:
        plain.decode(prompt, LENGTH)
    assert plain.revoked > 20


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_rows_alone(model: Model, temperature: float) -> None:
    """A batch of unequal prompts equals its rows; the length is exact, and nothing stays open."""
    options = {"temperature": temperature, "threshold": 0.3, **({"seed": 5} if temperature else {})}
    together = decode(model, PROMPTS, **options)
    for prompt, finish in zip(PROMPTS, together, strict=True):
        assert decode(model, [prompt], **options)[0].tokens == finish.tokens
        assert len(finish.tokens) == LENGTH
        assert MASK not in finish.tokens


def test_what_is_final_stays(model: Model) -> None:
    """Commits are only ever added to."""
    config = SamplingConfig(max_new_tokens=LENGTH, block_length=BLOCK, threshold=0.3)
    told: list[int] = []
    for event in model.engine().stream(Request([1, 2, 3], config, frozenset())):
        told += event.tokens if isinstance(event, Commit) else []
        last = event
    assert isinstance(last, Finish)
    assert told == list(last.tokens)


@pytest.mark.parametrize("kind", ["prefix", "dual"])
def test_approximate_caches(kind: str) -> None:
    """A full pass every time is exact; stale keys save rows."""
    model = random_model("wino", seed=3, **ATTENTION["bidirectional"])
    whole, always, never = (
        decode(model, [[1, 2, 3]], threshold=0.3, **more)[0]
        for more in ({}, {"approximate_cache": kind, "refresh": 1}, {"approximate_cache": kind})
    )
    assert always.tokens == whole.tokens
    assert (always.usage.rows, always.usage.total_passes) == (whole.usage.rows, whole.usage.total_passes)
    assert never.usage.rows / never.usage.total_passes < whole.usage.rows / whole.usage.total_passes


def test_accepts() -> None:
    """All that are sure enough, at most 0.7 of what is open but no fewer than five; the best one if none is."""
    assert accepted(torch.tensor([0.5, 0.7, 0.6, 0.61]), 0.6, 20) == [1, 3]
    assert accepted(torch.tensor([0.5, 0.2]), 0.6, 20) == [0]
    assert accepted(torch.linspace(0.7, 0.9, 10), 0.6, 20) == [9, 8, 7, 6, 5, 4, 3]
    assert len(accepted(torch.full((6,), 0.9), 0.6, 20)) == 5
    assert len(accepted(torch.full((40,), 0.9), 0.6, 20)) == 20
    assert len(accepted(torch.full((40,), 0.9), 0.6, 3)) == 3


def test_doubts() -> None:
    """Fewer than the pass before revealed, the least probable first."""
    sure = torch.tensor([0.8, 0.95, 0.1, 0.85])
    assert doubted(sure, 0.9, 30) == [0, 2, 3]
    assert doubted(sure, 0.9, 3) == [2, 0]
    assert doubted(sure, 0.9, 1) == []


def test_a_shadow_sees_all_but_one() -> None:
    """And nothing sees a shadow."""
    text = Segment(1, [5, 6, 7], [0, 1, 2], causal=False)
    shadows = Segment(1, [9, 9, 9], [1, 2, 2], causal=False, behind=((0, 3),), apart=[1, 2, -1])
    seen = visible([text, shadows], 1).int().tolist()
    assert seen[:3] == [[1, 1, 1, 1, 0, 0, 0]] * 3
    assert seen[3:] == [[1, 1, 0, 1, 1, 1, 1], [1, 1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset_options": {"threshold_back": 0.0}}, "threshold_back=0.0"),
        ({"preset_options": {"max_accept": 0}}, "max_accept=0"),
        ({"guidance": 1.0}, "guidance"),
        ({"rule": "quota"}, "rule='quota'"),
    ],
)
def test_bad_options(model: Model, options: dict[str, Any], words: str) -> None:
    """Refused by name."""
    with pytest.raises(OptionError, match=words):
        decode(model, [[1]], **options)


def test_shifted_models_are_refused() -> None:
    """A shadow would stand beside the place it asks about."""
    with pytest.raises(OptionError, match="left neighbour"):
        decode(random_model("wino", cache="none", shifted=True), [[1]])


@pytest.mark.parametrize("backend", ["torch", "kernels"])
def test_a_token_may_hide_from_another_one(tiny_folder: Path, backend: str) -> None:
    """As a shadow does from what it shadows: to the bit as if that were not there."""
    model = load_model(base=tiny_folder, denoiser=tiny_folder.parent / "denoiser.safetensors", backend=backend)
    denoiser, first = model.denoiser, Segment(0, [5], [0])

    def row_of(**seen: Any) -> Tensor:
        row = denoiser.open_row()
        segments = [replace(first, row=row), Segment(row, [6], [1], wanted=(0,), **seen)]
        return denoiser.forward(segments)[1]

    alone, hidden, seeing = row_of(), row_of(behind=((0, 1),), apart=[0]), row_of(behind=((0, 1),))
    assert torch.equal(hidden, alone)
    assert not torch.equal(hidden, seeing)
