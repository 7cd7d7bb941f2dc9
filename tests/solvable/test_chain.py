"""The solvable model against sums over all sequences, and its view of segments."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins.denoisers.base import Segment
from dllm_plugins.training.chain import Chain
from dllm_plugins.training.solvable import SolvableDenoiser
from dllm_plugins.training.solvable import solvable_model

LENGTH, OPEN = 4, -1


def joint(chain: Chain) -> Tensor:
    """Probability of every sequence [V, V, V, V], summed over every path of states."""
    found = torch.zeros([chain.vocabulary] * LENGTH, dtype=torch.float64)
    states = len(chain.initial)
    for path in torch.cartesian_prod(*[torch.arange(states)] * LENGTH).tolist():
        weight = chain.initial[path[0]]
        for before, behind in pairwise(path):
            weight = weight * chain.transition[before, behind]
        rows = [chain.emission[state] for state in path]
        found += weight * torch.einsum("a,b,c,d->abcd", *rows)
    return found


def by_enumeration(chain: Chain, seen: Tensor) -> Tensor:
    """Posteriors [L, V] from evidence [L, V], over all sequences."""
    weighed = joint(chain) * torch.einsum("a,b,c,d->abcd", *seen)
    rows = [weighed.sum(dim=[other for other in range(LENGTH) if other != position]) for position in range(LENGTH)]
    return torch.stack(rows) / weighed.sum()


@pytest.mark.parametrize("seed", range(3))
def test_posteriors_equal_sums_over_all_sequences(seed: int) -> None:
    """Every revealed set of every sequence's tokens, masked and under uniform noise."""
    chain = Chain.random(3, 3, seed)
    canvases = torch.cartesian_prod(*[torch.arange(-1, 3)] * LENGTH)[:: 7 + seed]
    level = torch.linspace(0, 1, len(canvases), dtype=torch.float64)
    for evidence in (chain.evidence(canvases), chain.noisy_evidence(canvases, level)):
        found = chain.posterior(evidence)
        for row, seen in zip(found, evidence, strict=True):
            torch.testing.assert_close(row, by_enumeration(chain, seen), rtol=1e-12, atol=1e-14)


def test_noisy_evidence_is_the_channel() -> None:
    """A token is the clean one with probability kappa + (1 - kappa) / V; the observations' chances sum to 1."""
    chain = Chain.random(2, 4, 1)
    seen = chain.noisy_evidence(torch.arange(4)[:, None], torch.full((4,), 0.3))[:, 0]
    torch.testing.assert_close(seen.diagonal(), torch.full((4,), 0.3 + 0.7 / 4, dtype=torch.float64))
    torch.testing.assert_close(seen.sum(0), torch.ones(4, dtype=torch.float64))


def test_distributions_sum_to_one_and_condition() -> None:
    """On a prompt and a suffix, as Bayes has it."""
    chain = Chain.random(3, 3, 2)
    whole = joint(chain)
    torch.testing.assert_close(chain.distribution(LENGTH), whole.flatten())
    inside = whole[1, :, :, 2].flatten()
    torch.testing.assert_close(chain.distribution(2, (1,), (2,)), inside / inside.sum())


def denoiser(chain: Chain, **options: Any) -> SolvableDenoiser:
    found = solvable_model(chain, **options).denoiser
    assert isinstance(found, SolvableDenoiser)
    return found


def posterior(chain: Chain, tokens: list[int], position: int) -> Tensor:
    return chain.posterior(chain.evidence(torch.tensor([tokens])))[0, position]


def said(model: SolvableDenoiser, *segments: Segment) -> list[Tensor]:
    """Probabilities without the mask's, which is 0."""
    found = [part.exp() for part in model.forward(segments)]
    assert all(bool((part[:, model.chain.vocabulary :] == 0).all()) for part in found)
    return [part[:, : model.chain.vocabulary] for part in found]


def test_a_position_is_told_what_it_sees() -> None:
    """Whole canvases, causal rows, groups, cached prefixes, what is behind, and single hidden tokens."""
    chain = Chain.random(3, 3, 3)
    model, mask = denoiser(chain), 3
    row = model.open_row()
    positions = range(4)
    (whole,) = said(model, Segment(row, [0, mask, 2, mask], positions, causal=False, wanted=[1, 3]))
    torch.testing.assert_close(whole[0], posterior(chain, [0, OPEN, 2, OPEN], 1))
    torch.testing.assert_close(whole[1], posterior(chain, [0, OPEN, 2, OPEN], 3))
    (causal,) = said(model, Segment(row, [0, mask, 2, mask], positions, wanted=[1, 3]))
    torch.testing.assert_close(causal[0], posterior(chain, [0, OPEN, OPEN, OPEN], 1))
    (grouped,) = said(model, Segment(row, [0, mask, 2, 1], positions, groups=[0, 0, 1, 1], wanted=[1]))
    torch.testing.assert_close(grouped[0], posterior(chain, [0, OPEN, OPEN, OPEN], 1))
    shadows = Segment(row, [mask] * 4, positions, causal=False, behind=((0, 4),), wanted=range(4), apart=range(4))
    found = said(model, Segment(row, [0, 1, 2, mask], positions, causal=False), shadows)[1]
    torch.testing.assert_close(found[1], posterior(chain, [0, OPEN, 2, OPEN], 1))
    torch.testing.assert_close(found[3], posterior(chain, [0, 1, 2, OPEN], 3))
    model.forward([Segment(row, [0, 1], [0, 1], causal=True)])
    model.freeze(row, 2)
    (block,) = said(model, Segment(row, [mask, 2], [2, 3], causal=False, wanted=[0]))
    torch.testing.assert_close(block[0], posterior(chain, [0, 1, OPEN, 2], 2))
    kept = model.close_row(row)
    again = model.open_row(kept, 1)
    (short,) = said(model, Segment(again, [mask, 2], [1, 2], causal=False, wanted=[0]))
    torch.testing.assert_close(short[0], posterior(chain, [0, OPEN, 2], 1))


def test_shifted_rows_predict_the_next_position() -> None:
    """As families with shifted logits do."""
    chain = Chain.random(3, 3, 4)
    model = denoiser(chain, shifted=True)
    (found,) = said(model, Segment(model.open_row(), [0, 3, 2], range(3), causal=False, wanted=[0]))
    torch.testing.assert_close(found[0], posterior(chain, [0, OPEN, 2], 1))


def test_uniform_noise_follows_the_levels_of_the_passes() -> None:
    """The prompt is clean; the last level serves all later passes; no id is open."""
    chain = Chain.random(3, 3, 5)
    model = denoiser(chain, levels=(0.2, 0.7), clean=range(1))
    row, tokens = model.open_row(), torch.tensor([[0, 1, 2]])
    assert model.spec.vocabulary == model.spec.mask_id == 3
    for level in (0.2, 0.7, 0.7):
        (found,) = said(model, Segment(row, [0, 1, 2], range(3), noisy=True, causal=False, wanted=range(3)))
        evidence = chain.noisy_evidence(tokens, torch.tensor([level], dtype=torch.float64))
        evidence[:, 0] = chain.evidence(tokens)[:, 0]
        torch.testing.assert_close(found, chain.posterior(evidence)[0])
