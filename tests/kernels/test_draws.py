"""Draws by the inverse distribution function."""

import torch

from dllm_kernels.draws import draw
from dllm_kernels.draws import draw_from


def test_the_first_id_that_reaches_the_share() -> None:
    """Shares on, just below and just above every border between two ids."""
    mass = torch.tensor([0.25, 0.0, 0.5, 0.25], dtype=torch.float64)
    for share, expected in ((1e-300, 0), (0.25, 0), (0.2500001, 2), (0.75, 2), (0.7500001, 3), (1 - 1e-16, 3)):
        assert int(draw_from(mass.clone(), torch.tensor(share, dtype=torch.float64))) == expected, share


def test_frequencies_are_those_of_the_softmax() -> None:
    """Evenly spread numbers draw every id as often as it is likely, whole batches at once."""
    logits = torch.randn(7, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    shares = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    found = draw(logits.expand(20_000, 7).clone(), shares).bincount(minlength=7) / 20_000
    torch.testing.assert_close(found.double(), logits.softmax(-1), atol=1e-4, rtol=0)


def test_impossible_and_certain_ids() -> None:
    """Ids of minus infinity are never drawn, those of infinity share everything, and nothing at all is id 0."""
    share = torch.tensor([0.001, 0.999], dtype=torch.float64)
    for row, expected in (
        ([-torch.inf, 1.0, -torch.inf], [1, 1]),
        ([torch.inf, 900.0, torch.inf], [0, 2]),
        ([-torch.inf] * 3, [0, 0]),
    ):
        scaled = torch.tensor([row, row], dtype=torch.float64)
        assert draw(scaled, share).tolist() == expected
