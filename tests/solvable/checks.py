"""How to show that a sampler is right: count its answers on the solvable model, then test the counts.

``counts = sequence_distribution(model, config, samples, prompt=(0,))``
``assert_distribution(counts, chain.distribution(length, prompt=(0,)))``

Pearson's chi-square over all V^L answers. How many samples it takes: if the sampler's
distribution q is off by a total variation d = sum|q - p| / 2, then by Cauchy-Schwarz
sum (q - p)^2 / p >= (2 d)^2, with equality where q / p is 1 + 2 d or 1 - 2 d. So the
statistic of n samples has nearly a noncentral chi-square distribution whose noncentrality is
at least 4 n d^2, and :func:`samples_needed` solves for the n that rejects with the power asked
for. No error of that size can hide from the test, whatever its shape. Nearly: with finite
counts the statistic is a little smaller (by simulation, power 0.977 where 0.990 is computed),
so a tenth is added to n; test_checks.py measures the power that leaves.
"""

from collections.abc import Sequence

import torch
from scipy.optimize import brentq
from scipy.stats import chi2
from scipy.stats import ncx2
from torch import Tensor

from dllm_plugins import Model
from dllm_plugins import Request
from dllm_plugins import SamplingConfig
from dllm_plugins.training.solvable import sequence_number

ALPHA, POWER, DISTANCE = 1e-6, 0.99, 0.02
MARGIN = 1.1


def samples_needed(cells: int, *, total_variation: float = DISTANCE, power: float = POWER, alpha: float = ALPHA) -> int:
    """Samples with which :func:`assert_distribution` rejects an error of this size with this power."""
    limit = chi2.isf(alpha, cells - 1)
    noncentrality = brentq(lambda guess: ncx2.sf(limit, cells - 1, guess) - power, 1e-3, 100 * limit)
    return int(MARGIN * noncentrality / (2 * total_variation) ** 2) + 1


def p_value(counts: Tensor, probabilities: Tensor) -> float:
    """Of Pearson's chi-square; answers expected fewer than five times count as one.

    :param counts: int64 [N], how often each answer came.
    :param probabilities: float64 [N], how often it should.
    """
    total = int(counts.sum())
    expected = probabilities.double() * total
    assert int(counts[expected == 0].sum()) == 0, "an impossible answer was drawn"
    order = expected.argsort()
    rare = expected[order].cumsum(0) < 5
    rare |= expected[order] < 5
    cells = [(counts[order][rare].sum(), expected[order][rare].sum())] if rare.any() else []
    got = torch.stack([*(cell[0] for cell in cells), *counts[order][~rare]]).double()
    wanted = torch.stack([*(cell[1] for cell in cells), *expected[order][~rare]])
    keep = wanted > 0
    statistic = float(((got - wanted)[keep] ** 2 / wanted[keep]).sum())
    return float(chi2.sf(statistic, int(keep.sum()) - 1))


def assert_distribution(counts: Tensor, probabilities: Tensor, *, alpha: float = ALPHA) -> None:
    """Fail if these counts are unlikely (p below `alpha`) to come from these probabilities.

    :param counts: int64 [N], as :func:`sequence_distribution` gives them.
    :param probabilities: float64 [N], for example :meth:`Chain.distribution`.
    """
    found = p_value(counts, probabilities)
    distance = float((counts / counts.sum() - probabilities).abs().sum() / 2)
    assert found >= alpha, (
        f"{int(counts.sum())} samples do not follow the distribution: p = {found:.3g} < {alpha}, "
        f"total variation of the counts {distance:.4f}"
    )


def sequence_distribution(
    model: Model,
    config: SamplingConfig,
    samples: int,
    *,
    prompt: Sequence[int] = (0,),
    suffix: Sequence[int] = (),
    seed: int = 0,
    batch: int = 1000,
) -> Tensor:
    """How often each answer came, int64 [V^max_new_tokens]: the whole engine, seeds `seed`, `seed` + 1, ...

    :param model: from :func:`~dllm_plugins.training.solvable.solvable_model`.
    :param config: any mode; its seed is replaced.
    :param prompt: at least one token; the answer's distribution is the one given it.
    """
    vocabulary = model.denoiser.chain.vocabulary  # type: ignore[attr-defined]
    counts = torch.zeros(vocabulary**config.max_new_tokens, dtype=torch.int64)
    engine = model.engine()
    for first in range(seed, seed + samples, batch):
        requests = [
            Request(prompt, config.with_options(seed=own), stop_ids=frozenset(), suffix=suffix)
            for own in range(first, min(first + batch, seed + samples))
        ]
        answers = torch.tensor([finish.tokens for finish in engine.generate(requests)])
        counts += torch.bincount(sequence_number(answers, vocabulary), minlength=len(counts))
    return counts
