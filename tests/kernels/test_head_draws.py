"""The unmasking head at temperatures above 0: the engine's own draws."""

from typing import Any

import pytest
import torch

from dllm_kernels.head import unmask
from dllm_kernels.head.packed import BLOCK
from dllm_plugins.prediction import Draw
from dllm_plugins.prediction import predict
from tests.kernels.heads import DTYPES
from tests.kernels.heads import assert_close
from tests.kernels.heads import draw_gumbel
from tests.kernels.heads import draw_inputs
from tests.kernels.heads import exact


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
