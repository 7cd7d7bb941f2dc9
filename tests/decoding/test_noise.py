"""Noise and sampling: keyed, exact in the tails, and distributed as they must be."""

import math
import re
from itertools import combinations
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

import dllm_plugins
from dllm_plugins.noise import KEPT_BYTES
from dllm_plugins.noise import Key
from dllm_plugins.noise import Purpose
from dllm_plugins.noise import RowNoise
from dllm_plugins.prediction import GREEDY
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import predict


def test_noise_depends_on_seed_and_key_only() -> None:
    """Same seed and key, same numbers, in any order; another seed, or any integer of the key, others."""
    first, again = RowNoise(7), RowNoise(7)
    later = again.gumbel(Key(Purpose.NEXT, 4), 50)
    assert torch.equal(first.gumbel(Key(Purpose.NEXT, 3), 50), again.gumbel(Key(Purpose.NEXT, 3), 50))
    assert torch.equal(first.gumbel(Key(Purpose.NEXT, 4), 50), later)
    keys = [Key(purpose) for purpose in Purpose]
    keys += [Key(Purpose.NEXT, *words) for words in product((0, 1, 2**63), repeat=3) if any(words)]
    distinct = [first.uniform(key, 50) for key in keys] + [RowNoise(8).uniform(keys[0], 50)]
    for one, other in combinations(distinct, 2):
        assert not torch.isin(one, other).any()


def test_what_seeds_have_meant_in_ar_they_mean_still() -> None:
    """Numbers of (seed, absolute position) as they were before keys had purposes; speculative text rests on them."""
    noise = RowNoise(7).gumbel(Key(Purpose.NEXT, 3), 3).tolist()
    assert [value.hex() for value in noise] == [
        "-0x1.326de83d038a4p-4",
        "-0x1.92c8bcc68da2dp-1",
        "-0x1.346076b1308cdp-2",
    ]
    later = RowNoise(2**62).gumbel(Key(Purpose.NEXT, 100_000), 2)
    torch.testing.assert_close(later, torch.tensor([3.846, 1.289], dtype=torch.float64), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "key",
    [
        (Purpose.NEXT, 1, 2),
        (Purpose.NEXT, 1, 2, 3, 4),
        (Purpose.NEXT, -1, 0, 0),
        (Purpose.NEXT, 0, -1, 0),
        (Purpose.NEXT, 0, 0, 1 << 64),
        (Purpose.NEXT, 0, 0.5, 0),
        (999, 0, 0, 0),
        (),
    ],
)
def test_a_key_of_another_form_is_refused(key: Any) -> None:
    """Nothing is dropped from a key, and nothing wraps around into another one."""
    for ask in (RowNoise(1).uniform, RowNoise(1).gumbel):
        with pytest.raises(ValueError, match=r"key of noise|not a valid Purpose"):
            ask(key, 1)


def test_seeds_are_whole_words() -> None:
    """As keys are."""
    for seed in (-1, 1 << 64):
        with pytest.raises(ValueError, match=str(seed)):
            RowNoise(seed)


def test_a_purpose_serves_one_use() -> None:
    """In the package each is named in one module, besides those that replay what others draw."""
    replaying = {"conformance/replay.py", "training/induced.py", "noise.py"}
    uses = dict[str, list[str]]()
    root = Path(dllm_plugins.__file__).parent
    for module in sorted(root.rglob("*.py")):
        if (name := module.relative_to(root).as_posix()) not in replaying:
            for purpose in re.findall(r"Purpose\.([A-Z_]+)", module.read_text(encoding="utf-8")):
                uses.setdefault(purpose, []).append(name)
    assert uses.keys() == Purpose.__members__.keys() - {"PLUGIN"}
    assert all(len(modules) == 1 for modules in uses.values()), uses


def test_what_a_row_remembers_is_bounded() -> None:
    """In bytes, whatever the vocabulary, and a draft's position is still there when it is verified."""
    for vocabulary in (1000, 49_152, 600_000):
        noise = RowNoise(1)
        for position in range(12):
            found = noise.gumbel(Key(Purpose.NEXT, position), vocabulary)
            assert noise.gumbel(Key(Purpose.NEXT, position), vocabulary) is found
        assert 0 < noise.kept_bytes <= max(KEPT_BYTES, 8 * vocabulary)


def test_noise_is_float64_and_finite() -> None:
    """The tail must not be cut off at float32's resolution."""
    noise = RowNoise(1).gumbel(Key(Purpose.NEXT), 200_000)
    assert noise.dtype == torch.float64
    assert torch.isfinite(noise).all()
    assert noise.max() > 9
    assert abs(float(noise.mean()) - 0.5772) < 0.01
    assert abs(float(noise.var()) - math.pi**2 / 6) < 0.03


def _draw(noise: RowNoise, kind: str, position: int, size: int, **options: Any) -> Draw:
    if kind == "gumbel":
        return Draw(gumbel=noise.gumbel(Key(Purpose.NEXT, position), size), **options)
    return Draw(uniform=float(noise.uniform(Key(Purpose.CANVAS, position), 1)), **options)


@pytest.mark.parametrize("kind", ["gumbel", "uniform"])
@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"temperature": 1.0}, [0, 1, 2, 3, 4]),
        ({"temperature": 0.5}, [0, 1, 2, 3, 4]),
        ({"temperature": 1.0, "top_k": 2}, [0, 1]),
        ({"temperature": 1.0, "top_p": 0.6}, [0, 1]),
        ({"temperature": 1.0, "top_p": 0.01}, [0]),
    ],
)
def test_sampling_follows_the_distribution(kind: str, options: dict[str, float], kept: list[int]) -> None:
    """Chi-square of 3,000 draws against the renormalised softmax; nothing outside top-k or top-p."""
    logits, noise = torch.log(torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])), RowNoise(5)
    counts = torch.zeros(5)
    for index in range(3000):
        counts[predict(logits[None], [_draw(noise, kind, index, 5, **options)]).token] += 1
    expected = torch.softmax(logits / options["temperature"], -1)
    expected[[index for index in range(5) if index not in kept]] = 0
    expected = expected / expected.sum() * 3000
    assert counts[expected == 0].sum() == 0
    seen = expected > 0
    assert float(((counts[seen] - expected[seen]) ** 2 / expected[seen]).sum()) < 40


@pytest.mark.parametrize("uniform", [5e-324, 1e-17, 0.25, 0.5, 1 - 2**-53])
def test_one_number_never_draws_what_has_no_mass(uniform: float) -> None:
    """Banned, cut off or too unlikely for float64, first and last ids included; the ends of the numbers too."""
    nothing = -torch.inf
    for logits, possible in (
        ([nothing, 0.0, nothing, 0.0, nothing], {1, 3}),
        ([-1e4, 3e4, -1e4], {1}),
        ([nothing, nothing, -3e38, nothing], {2}),
        ([nothing] * 3, {0}),
        ([0.0, torch.inf, 800.0, torch.inf, 0.0], {1, 3}),
    ):
        token = int(predict(torch.tensor([logits]), [Draw(1.0, uniform=uniform)]).token)
        assert token in possible, logits
        assert token == (min(possible) if uniform <= 0.5 else max(possible))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_number_draws_the_same_in_any_company(dtype: torch.dtype) -> None:
    """A row alone and among others: its own number and its own logits decide."""
    logits = (torch.randn(23, 3001, generator=torch.Generator().manual_seed(2)) * 3).to(dtype)
    noise = RowNoise(4)
    options: list[dict[str, Any]] = [{"temperature": 0.7}, {"temperature": 1.3, "top_k": 40}, {"temperature": 1.0}]
    draws = [_draw(noise, "uniform", row, 3001, **options[row % 3]) for row in range(22)] + [GREEDY]
    whole = predict(logits, draws).token
    assert whole.tolist() == [int(predict(logits[row : row + 1], draws[row : row + 1]).token) for row in range(23)]
    reached = torch.softmax(logits[0].double() / 0.7, -1).cumsum(-1)
    assert draws[0].uniform is not None
    assert int(whole[0]) == int((reached >= draws[0].uniform).int().argmax())


def test_greedy_takes_the_first_of_equals() -> None:
    """Ties go to the smaller id, so that rounding to bfloat16 cannot make runs differ."""
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0], [5.0, 1.0, 5.0, 5.0]], dtype=torch.bfloat16)
    assert predict(logits, [GREEDY, GREEDY]).token.tolist() == [1, 0]


def test_probability_and_entropy_are_of_the_model() -> None:
    """At temperature 1 whatever the draw; ids map a shortlist back to the vocabulary."""
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    found = predict(logits, [GREEDY], ids=torch.tensor([9, 4, 7]))
    assert found.token.tolist() == [9]
    torch.testing.assert_close(found.probability, torch.tensor([0.5]))
    torch.testing.assert_close(found.entropy, torch.tensor([1.5 * math.log(2)]))


def test_a_shortlist_draws_with_the_noise_of_its_ids() -> None:
    """A draft from the shortlist equals the draw from all tokens when only those are likely."""
    ids = torch.tensor([2, 30, 77, 150])
    full = torch.full((200,), -50.0)
    full[ids] = torch.tensor([0.1, 0.4, 0.2, 0.3])
    for position in range(50):
        draw = Draw(temperature=1.0, gumbel=RowNoise(3).gumbel(Key(Purpose.NEXT, position), 200))
        assert predict(full[None], [draw]).token == predict(full[None, ids], [draw], ids).token
