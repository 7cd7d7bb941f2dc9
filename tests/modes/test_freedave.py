"""Lossless self-verification: the text of slow decoding, token for token and bit for bit, in fewer passes."""

from collections.abc import Callable
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import Finish
from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins import load_model
from dllm_plugins.errors import OptionError

from ..golden.cases import CLONED
from .tiny_models import MASK
from .tiny_models import random_model
from .tiny_models import says
from .tiny_models import scripted_model

SLOW: dict[str, dict[str, Any]] = {
    "whole": {"mode": "llada", "rule": "quota"},
    "shifted": {"mode": "llada", "rule": "quota"},
    "blocks": {"mode": "sdar", "preset_options": {"remasking": "low_confidence_static"}},
}
SPECS: dict[str, dict[str, Any]] = {
    "whole": {"cache": "none"},
    "shifted": {"cache": "none", "shifted": True},
    "blocks": {"cache": "exact"},
}
FAST = [("freedave", {}), ("freedave", {"draft_steps": 9}), ("ssd", {}), ("ssd", {"draft_steps": 6, "width": 4})]
LENGTH = 21


@pytest.fixture(scope="module", params=list(SLOW))
def kind(request: pytest.FixtureRequest) -> str:
    """What slow decoding is compared with."""
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def model(kind: str) -> Model:
    """Random weights."""
    return random_model("llada", "sdar", "freedave", "ssd", seed=1, **SPECS[kind])


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    """Of unequal lengths."""
    drawn = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 28, (1 + 3 * number % 11,), generator=drawn).tolist() for number in range(count)]


def decode(
    model: Model, texts: Sequence[list[int]], stops: frozenset[int] = frozenset(), **options: Any
) -> list[Finish]:
    """All prompts together, with their logits."""
    config = SamplingConfig(**{"max_new_tokens": LENGTH, **options})
    return model.engine().generate([Request(text, config, stops, logits=True) for text in texts])


def slowly(kind: str, **options: Any) -> dict[str, Any]:
    """Slow decoding with as many passes for a block; LLaDA counts those of the whole answer."""
    blocks = 1 if kind == "blocks" else -(-LENGTH // options["block_length"])
    return {**SLOW[kind], **options, "steps": options["steps"] * blocks}


def sum_passes(found: Sequence[Finish]) -> int:
    """Passes of all answers."""
    return sum(finish.usage.total_passes for finish in found)


def check_same(fast: Sequence[Finish], slow: Sequence[Finish]) -> None:
    """Tokens, and the logits that each was drawn from, to the last bit."""
    for ours, theirs in zip(fast, slow, strict=True):
        assert ours.tokens == theirs.tokens
        assert ours.reason == theirs.reason
        assert ours.logits is not None
        assert theirs.logits is not None
        assert all(
            a is not None and b is not None and torch.equal(a, b)
            for a, b in zip(ours.logits, theirs.logits, strict=True)
        )
        assert ours.usage.total_passes <= theirs.usage.total_passes


def beside(model: Model, **options: Any) -> list[Finish]:
    """Four prompts in one batch, greedy and drawn with a seed in turn."""
    greedy: dict[str, Any] = {"max_new_tokens": LENGTH, **options}
    drawn: dict[str, Any] = {**greedy, "temperature": 0.7, "seed": 11, "top_p": 0.95}
    configs = [SamplingConfig(**(drawn if row % 2 else greedy)) for row in range(4)]
    rows = zip(prompts(4, seed=options["block_length"]), configs, strict=True)
    return model.engine().generate([Request(text, config, frozenset(), logits=True) for text, config in rows])


@pytest.fixture(scope="module")
def slow_answers(model: Model, kind: str) -> Callable[[int, int], list[Finish]]:
    """Slow decoding in blocks of a length and so many steps, each once."""
    return cache(lambda length, steps: beside(model, **slowly(kind, block_length=length, steps=steps)))


@pytest.mark.slow
@pytest.mark.parametrize(("length", "steps"), [(8, 4), (7, 7), (7, 3), (21, 21), (3, 2), (1, 1), (32, 8)])
@pytest.mark.parametrize(("mode", "own"), FAST)
def test_equals_slow_decoding(
    model: Model,
    slow_answers: Callable[[int, int], list[Finish]],
    length: int,
    steps: int,
    mode: str,
    own: dict[str, int],
) -> None:
    """One token or several a pass, whole canvases and cached blocks, greedy rows beside drawn ones."""
    check_same(
        beside(model, block_length=length, steps=steps, mode=mode, preset_options=own), slow_answers(length, steps)
    )


@pytest.mark.slow
def test_saves_passes(model: Model, kind: str) -> None:
    """On many prompts, a tree more than a chain; the rows are those of every state forwarded."""
    texts = prompts(12, seed=5)
    options: dict[str, Any] = {"block_length": 7, "steps": 7}
    slow = decode(model, texts, **slowly(kind, **options))
    chain = decode(model, texts, mode="freedave", **options)
    tree = decode(model, texts, mode="ssd", preset_options={"width": 3}, **options)
    check_same(chain, slow)
    check_same(tree, slow)
    assert sum_passes(tree) < sum_passes(chain) < sum_passes(slow)
    rows = [sum(finish.usage.rows for finish in found) for found in (slow, chain, tree)]
    assert rows[0] < rows[1] < rows[2]


@pytest.mark.slow
def test_in_bfloat16(kind: str) -> None:
    """Where equal logits are common, too."""
    made = random_model("llada", "sdar", "freedave", "ssd", seed=2, dtype=torch.bfloat16, **SPECS[kind])
    texts = prompts(4, seed=2)
    options: dict[str, Any] = {"block_length": 7, "steps": 7}
    slow = decode(made, texts, **slowly(kind, **options))
    for mode, own in FAST:
        check_same(decode(made, texts, mode=mode, preset_options=own, **options), slow)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "kind", "mask"), [("llada_dense", "whole", 236), ("sdar", "blocks", None)], ids=["llada", "sdar"]
)
def test_on_family_checkpoints(folder: str, kind: str, mask: int | None) -> None:
    """Loaded like any other: the modes are there."""
    loaded = load_model(str(CLONED[folder] / "checkpoint"), mask_id=mask, dtype="float32", device="cpu")
    texts = prompts(6, seed=7)
    slow = decode(loaded, texts, **SLOW[kind], block_length=8)
    for mode, own in FAST:
        check_same(decode(loaded, texts, mode=mode, preset_options=own, block_length=8), slow)


def test_one_draft_is_slow_decoding(model: Model, kind: str) -> None:
    """Nothing is saved and nothing is spent."""
    slow = decode(model, prompts(4), **SLOW[kind], block_length=8)
    same = decode(model, prompts(4), mode="freedave", block_length=8, preset_options={"draft_steps": 1})
    check_same(same, slow)
    assert [f.usage.passes for f in same] == [f.usage.passes for f in slow]
    assert [f.usage.rows for f in same] == [f.usage.rows for f in slow]


def test_a_model_that_never_changes_its_mind() -> None:
    """Every draft is right: a quarter of the passes, and not one row more than slow decoding."""

    def script(_seen: dict[int, int], position: int) -> Tensor:
        return says(position % 20, 5.0 - position / 32)

    made = scripted_model(script, "llada", "freedave", cache="none")
    slow = decode(made, [[1, 2]], max_new_tokens=16, block_length=16, **SLOW["whole"])[0]
    fast = decode(made, [[1, 2]], max_new_tokens=16, block_length=16, mode="freedave")[0]
    assert fast.tokens == slow.tokens
    assert (slow.usage.total_passes, fast.usage.passes) == (16, {"predict": 1, "verify": 4})
    assert fast.usage.rows == slow.usage.rows == 16 * 18


@pytest.mark.slow
def test_rows_alone_and_stop_ids(model: Model, kind: str) -> None:
    """A batch equals its rows, and ends where slow decoding ends."""
    texts = prompts(5, seed=3)
    plain = decode(model, texts, mode="freedave", block_length=6)
    stops = frozenset({plain[0].tokens[9]})
    slow = decode(model, texts, stops, **SLOW[kind], block_length=6)
    together = decode(model, texts, stops, mode="freedave", block_length=6)
    check_same(together, slow)
    assert together[0].reason == "eos"
    for text, finish in zip(texts, together, strict=True):
        alone = decode(model, [text], stops, mode="freedave", block_length=6)[0]
        assert (alone.tokens, alone.usage.passes) == (finish.tokens, finish.usage.passes)
        assert MASK not in finish.tokens


def test_infilling() -> None:
    """With given text behind the gap, whole canvases."""
    made = random_model("llada", "freedave", seed=1, cache="none")
    found = [
        made.engine().generate([Request([1, 2], SamplingConfig(**options), frozenset(), suffix=(9, 8, 7))])[0]
        for options in ({**SLOW["whole"], "max_new_tokens": 9}, {"mode": "freedave", "max_new_tokens": 9})
    ]
    assert found[0].tokens == found[1].tokens
    assert found[0].rest == found[1].rest == (9, 8, 7)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "freedave", "preset_options": {"draft_steps": 0}}, "draft_steps=0"),
        ({"mode": "freedave", "preset_options": {"width": 2}}, "width=2"),
        ({"mode": "ssd", "preset_options": {"draft_steps": 1}}, "draft_steps=1"),
        ({"mode": "ssd", "preset_options": {"width": 1}}, "width=1"),
        ({"mode": "ssd", "threshold": 0.9}, "threshold"),
    ],
)
def test_bad_options(model: Model, options: dict[str, Any], words: str) -> None:
    """Refused by name."""
    with pytest.raises(OptionError, match=words):
        decode(model, [[1]], **options)


def test_shifted_blocks_are_refused() -> None:
    """A block's first position is predicted outside it."""
    with pytest.raises(OptionError, match="first position"):
        decode(random_model("freedave", cache="exact", shifted=True), [[1]], mode="freedave")
