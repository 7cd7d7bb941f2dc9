"""Noise and sampling: keyed, exact in the tails, and distributed as they must be."""

import math

import pytest
import torch

from dllm_plugins.noise import RowNoise
from dllm_plugins.prediction import GREEDY
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import predict


def test_noise_depends_on_seed_and_key_only() -> None:
    """Same seed and key, same numbers, in any order; another seed, key or key length, others."""
    first, again = RowNoise(7), RowNoise(7)
    later = again.gumbel((4,), 50)
    assert torch.equal(first.gumbel((3,), 50), again.gumbel((3,), 50))
    assert torch.equal(first.gumbel((4,), 50), later)
    distinct = [first.gumbel(key, 50) for key in ((3,), (4,), (3, 0), (3, 1), (3, 0, 2))]
    distinct.append(RowNoise(8).gumbel((3,), 50))
    for index, one in enumerate(distinct):
        assert all(not torch.equal(one, other) for other in distinct[index + 1 :])


def test_noise_is_float64_and_finite() -> None:
    """The tail must not be cut off at float32's resolution."""
    noise = RowNoise(1).gumbel((0,), 200_000)
    assert noise.dtype == torch.float64
    assert torch.isfinite(noise).all()
    assert noise.max() > 9
    assert abs(float(noise.mean()) - 0.5772) < 0.01
    assert abs(float(noise.var()) - math.pi**2 / 6) < 0.03


def _frequencies(draw_options: dict[str, float], logits: torch.Tensor, draws: int) -> torch.Tensor:
    noise = RowNoise(5)
    counts = torch.zeros(len(logits))
    for index in range(draws):
        draw = Draw(gumbel=noise.gumbel((index,), len(logits)), **draw_options)  # type: ignore[arg-type]
        counts[predict(logits[None], [draw]).token] += 1
    return counts


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
def test_sampling_follows_the_distribution(options: dict[str, float], kept: list[int]) -> None:
    """Chi-square of 6,000 draws against the renormalised softmax; nothing outside top-k or top-p."""
    logits = torch.log(torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05]))
    counts = _frequencies(options, logits, 6000)
    expected = torch.softmax(logits / options["temperature"], -1)
    expected[[index for index in range(5) if index not in kept]] = 0
    expected = expected / expected.sum() * 6000
    assert counts[expected == 0].sum() == 0
    seen = expected > 0
    assert float(((counts[seen] - expected[seen]) ** 2 / expected[seen]).sum()) < 40


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
    for place in range(50):
        draw = Draw(temperature=1.0, gumbel=RowNoise(3).gumbel((place,), 200))
        assert predict(full[None], [draw]).token == predict(full[None, ids], [draw], ids).token
