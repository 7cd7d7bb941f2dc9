"""The unmasking head at temperatures above 0: the engine's own draws."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_kernels.head import unmask
from dllm_kernels.head.packed import BLOCK
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import predict
from tests.kernels.heads import DTYPES
from tests.kernels.heads import assert_close
from tests.kernels.heads import draw_gumbel
from tests.kernels.heads import draw_inputs
from tests.kernels.heads import exact
from tests.kernels.heads import hard_logits


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("given", ["tensor", "callable"])
def test_sampled_tokens_equal_those_of_predict(dtype: torch.dtype, given: str) -> None:
    """Temperatures, cuts and greedy positions side by side, with the engine's own way of drawing."""
    rows, size = 37, 2 * BLOCK + 77
    logits = (torch.randn(rows, size, generator=torch.Generator().manual_seed(5)) * 2).to(dtype)
    hidden, weight = exact(logits)
    gumbel = draw_gumbel(rows, size)
    temperature = torch.tensor([(0.0, 0.3, 1.0, 2.5)[row % 4] for row in range(rows)], dtype=torch.float64)
    cut = torch.tensor([(0, 1, 5, 50, size, size + 1)[row % 6] if row % 4 else 0 for row in range(rows)])
    draws = [
        Draw(float(warmth), int(most) or None, None, noise) if warmth else Draw()
        for warmth, most, noise in zip(temperature, cut, gumbel, strict=True)
    ]
    wanted = predict(logits, draws)
    noise: Any = gumbel if given == "tensor" else (lambda place, start, stop: gumbel[place, start:stop])
    for implementation in ("reference", "cpu"):
        found = unmask(
            hidden, weight, temperature=temperature, noise=noise, cut=cut, top_k=3, implementation=implementation
        )
        assert torch.equal(found.token, wanted.token)
        assert torch.allclose(found.probability, wanted.probability, atol=1e-6)
        assert torch.allclose(found.entropy, wanted.entropy, atol=1e-4)
    assert bool((wanted.token != logits.argmax(-1)).any())


@pytest.mark.parametrize("levels", [1, 2, 4])
def test_a_cut_through_equal_logits_keeps_them_all(levels: int) -> None:
    """Few different logits: hundreds equal the last one kept, in several blocks, some with equal noise."""
    rows, size = 24, 3 * BLOCK + 5
    generator = torch.Generator().manual_seed(6)
    logits = torch.randint(0, levels, (rows, size), generator=generator).float()
    hidden, weight = exact(logits)
    cut = torch.arange(1, rows + 1)
    for gumbel in (draw_gumbel(rows, size), draw_gumbel(rows, size).round(), torch.zeros(rows, size).double()):
        wanted = predict(logits, [Draw(0.7, int(most), None, noise) for most, noise in zip(cut, gumbel, strict=True)])
        found = unmask(hidden, weight, temperature=0.7, noise=gumbel, cut=cut, implementation="cpu")
        assert torch.equal(found.token, wanted.token)
        assert torch.allclose(found.probability, wanted.probability, atol=1e-7)


def test_a_cut_with_few_ids_left() -> None:
    """More may be drawn from than are not banned."""
    hidden, weight = draw_inputs(6, BLOCK + 9, 16, torch.float32)
    options: dict[str, Any] = {
        "banned": torch.arange(3, BLOCK + 9),
        "temperature": 5.0,
        "noise": draw_gumbel(6, BLOCK + 9),
        "cut": 8,
    }
    found, expected = (unmask(hidden, weight, **options, implementation=name) for name in ("cpu", "reference"))
    assert bool((found.token < 3).all())
    assert torch.equal(found.token, expected.token)
    assert_close(found, expected, 1e-5)


def borders(logits: Tensor, warmth: float) -> Tensor:
    """Numbers on, just below and just above borders between ids, and some anywhere; float64 [N, 3]."""
    reached = torch.softmax(logits.double() / warmth, -1).cumsum(-1)
    drawn = torch.Generator().manual_seed(11)
    some = torch.randint(0, logits.shape[1], (len(logits), 2), generator=drawn)
    some[:, 0] = logits.shape[1] // 2
    numbers = torch.rand(len(logits), 3, dtype=torch.float64, generator=drawn)
    numbers[:, 1:] = reached.gather(1, some)
    numbers[:, 2] += (torch.rand(len(logits), dtype=torch.float64, generator=drawn) - 0.5) * 1e-15
    return numbers.clamp(1e-300, 1 - 2**-53)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("warmth", [0.05, 1.0])
def test_one_number_draws_what_all_logits_say(dtype: torch.dtype, warmth: float) -> None:
    """Random, extreme and equal logits; numbers on the very border between two ids, too, where sums in parts err."""
    generator = torch.Generator().manual_seed(9)
    shapes = [(1, 3), (18, BLOCK), (17, BLOCK + 1)]
    cases = [(torch.randn(*shape, generator=generator) * 3).to(dtype) for shape in shapes]
    for logits in (*cases, *hard_logits(dtype).values()):
        hidden, weight = exact(logits)
        for number in borders(logits, warmth).unbind(1):
            wanted = predict(logits, [Draw(warmth, uniform=float(own)) for own in number])
            found = unmask(hidden, weight, temperature=warmth, uniform=number, implementation="cpu")
            assert torch.equal(found.token, wanted.token)
            whole = unmask(hidden, weight, temperature=warmth, uniform=number, implementation="reference")
            assert torch.equal(whole.token, wanted.token)
            torch.testing.assert_close(found.probability, whole.probability, atol=1e-5, rtol=0)


def test_noise_numbers_and_greedy_side_by_side() -> None:
    """Each position as alone; banned ids and forced ones too."""
    hidden, weight = draw_inputs(21, BLOCK + 300, 32, torch.float32)
    gumbel, numbers = draw_gumbel(21, len(weight)), torch.rand(21, dtype=torch.float64)
    warm = torch.tensor([0.0, 0.8, 1.2], dtype=torch.float64).repeat(7)
    numbers[torch.arange(21) % 3 != 1] = torch.nan
    forced = torch.full((21,), -1).index_fill_(0, torch.tensor([4, 7]), BLOCK + 5)
    options: dict[str, Any] = {"forced": forced, "banned": torch.arange(0, BLOCK, 2), "bias": torch.randn(len(weight))}
    found, expected = (
        unmask(hidden, weight, temperature=warm, noise=gumbel, uniform=numbers, **options, implementation=name)
        for name in ("cpu", "reference")
    )
    assert torch.equal(found.token, expected.token)
    assert_close(found, expected, 1e-5)
    assert found.token[4] == found.token[7] == BLOCK + 5
    for row in (1, 13):
        alone = unmask(
            hidden[row : row + 1],
            weight,
            temperature=warm[row],
            uniform=numbers[row : row + 1],
            banned=options["banned"],
            bias=options["bias"],
            implementation="cpu",
        )
        for name in ("token", "probability", "entropy", "margin"):
            assert torch.equal(getattr(alone, name)[0], getattr(found, name)[row])


def test_nothing_to_draw_from() -> None:
    """All ids banned: token 0, as greedily."""
    hidden, weight = draw_inputs(2, BLOCK + 9, 8, torch.float32)
    for name in ("cpu", "reference"):
        found = unmask(
            hidden,
            weight,
            banned=torch.arange(len(weight)),
            temperature=1.0,
            uniform=torch.full((2,), 0.5, dtype=torch.float64),
            implementation=name,
        )
        assert found.token.tolist() == [0, 0]
