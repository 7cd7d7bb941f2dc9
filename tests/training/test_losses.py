"""The losses of two-token models, whose noise can be enumerated and whose time integrated: against exact numbers."""

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from dllm_plugins.processes.flow import Scheduler
from dllm_plugins.processes.flow import SchedulerName
from dllm_plugins.training.losses import block_diffusion
from dllm_plugins.training.losses import cross_entropy
from dllm_plugins.training.losses import generalised_kl
from dllm_plugins.training.losses import mask_noise
from dllm_plugins.training.losses import masked_diffusion
from dllm_plugins.training.losses import substituted
from dllm_plugins.training.losses import uniform_diffusion
from dllm_plugins.training.losses import uniform_noise

SIZE, MASK = 3, 3
NAMES: list[SchedulerName] = ["linear", "polynomial", "cosine"]
SCHEDULERS = [Scheduler(name, 2.0) for name in NAMES]
#: Logits [N, L, V] of noisy tokens [N, L] at times [N].
Speaks = Callable[[Tensor, Tensor], Tensor]
#: Losses [N] of (logits, clean, noisy, time).
Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def joint(length: int = 2, seed: int = 0, size: int = SIZE) -> Tensor:
    """Probability of every sequence, [V, ..., V]."""
    odds = torch.rand(size**length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.05
    return (odds / odds.sum()).reshape([size] * length)


def sequences(size: int, length: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(size), repeat=length)))


def nodes(count: int) -> tuple[Tensor, Tensor]:
    """Gauss and Legendre's times in (0, 1) and their weights."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(points + 1) / 2, torch.from_numpy(weights) / 2


def posterior(table: Tensor, seen: Tensor, *, others: bool = False) -> Tensor:
    """Of each clean token, [N, 2, V], given how likely it makes what is seen, [N, 2, V].

    :param others: without what is seen of itself.
    """
    odds = torch.einsum("ab,na,nb->nab", table, seen[:, 0], seen[:, 1])
    both = torch.stack([odds.sum(2), odds.sum(1)], 1)
    both = both / seen if others else both
    return both / both.sum(-1, keepdim=True)


def seen_masked(noisy: Tensor) -> Tensor:
    hot = torch.nn.functional.one_hot(noisy, SIZE + 1)[..., :SIZE].double()
    return hot.where((noisy != MASK)[..., None], 1.0)


def seen_uniform(noisy: Tensor, kappa: Tensor) -> Tensor:
    each = kappa[:, None, None]
    return each * torch.nn.functional.one_hot(noisy, SIZE) + (1 - each) / SIZE


def masked_model(table: Tensor) -> Speaks:
    """The exact posterior given what is not masked; of the mask it says nonsense, which must not matter."""

    def speaks(noisy: Tensor, _time: Tensor) -> Tensor:
        logits = torch.log(posterior(table, seen_masked(noisy)))
        return torch.cat([logits, torch.full_like(logits[..., :1], 7.0)], -1)

    return speaks


def uniform_model(table: Tensor, scheduler: Scheduler, *, others: bool) -> Speaks:
    """The exact posterior given the noisy tokens at their level."""
    return lambda noisy, time: torch.log(posterior(table, seen_uniform(noisy, scheduler.kappa(time)), others=others))


def expected(
    loss: Loss, speaks: Speaks, clean: tuple[int, ...], scheduler: Scheduler, *, masks: bool, count: int = 40
) -> float:
    """The mean over noise, enumerated, and over time, by quadrature."""
    total, noisy = 0.0, sequences(SIZE + masks, len(clean))
    truth = torch.tensor(clean).expand(len(noisy), -1)
    for point, weight in zip(*nodes(count), strict=True):
        time = point.expand(len(noisy))
        kappa = scheduler.kappa(time)[:, None]
        away = (1 - kappa) * (noisy == MASK) if masks else (1 - kappa) / SIZE
        chance = (kappa * (noisy == truth) + away).prod(1)
        found = loss(speaks(noisy, time), truth, noisy, time)
        total += float(weight * (chance * found.where(chance > 0, 0.0)).sum())
    return total


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=NAMES)
@pytest.mark.parametrize("clean", [(0, 0), (2, 1)])
def test_masked_diffusion_is_exact_for_an_exact_model(scheduler: Scheduler, clean: tuple[int, int]) -> None:
    """The bound is -log p, whatever the schedule."""
    table = joint()

    loss = partial(masked_diffusion, mask_id=MASK, scheduler=scheduler)

    found = expected(loss, masked_model(table), clean, scheduler, masks=True)
    assert found == pytest.approx(-float(torch.log(table[clean])), abs=1e-6)


def test_masked_diffusion_is_the_mean_over_orders() -> None:
    """A model whose posteriors contradict one another: half of one order, half of the other."""
    logits = torch.randn((SIZE + 1) ** 2, 2, SIZE + 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    logits[..., MASK] = -torch.inf
    log = torch.log_softmax(logits, -1).reshape(SIZE + 1, SIZE + 1, 2, SIZE + 1)

    def speaks(noisy: Tensor, _time: Tensor) -> Tensor:
        return log[noisy[:, 0], noisy[:, 1]]

    loss = partial(masked_diffusion, mask_id=MASK)

    first, second = 2, 0
    left = log[MASK, MASK, 0, first] + log[first, MASK, 1, second]
    right = log[MASK, MASK, 1, second] + log[MASK, second, 0, first]
    found = expected(loss, speaks, (first, second), Scheduler(), masks=True)
    assert found == pytest.approx(-float(left + right) / 2, abs=1e-9)


def test_block_diffusion_is_exact_for_an_exact_model() -> None:
    """Two blocks of two, each with a time of its own; the second sees the first one clean."""
    table, clean = joint(4, seed=1), (2, 0, 1, 1)
    scheduler = Scheduler("polynomial", 2.0)
    begins, ends = table.sum((2, 3)), table[clean[0], clean[1]]
    models = [masked_model(begins), masked_model(ends / ends.sum())]
    noisy = sequences(2, 4).bool()
    truth = torch.tensor(clean).expand(16, -1)
    hidden = truth.where(noisy, MASK)
    time = torch.zeros(16)
    logits = torch.cat(
        [model(hidden[:, part], time) for model, part in zip(models, (slice(2), slice(2, 4)), strict=True)], 1
    )
    total = 0.0
    for (one, weight), (two, other) in itertools.product(zip(*nodes(12), strict=True), repeat=2):
        times = torch.stack([one, two]).expand(16, -1)
        kappa = scheduler.kappa(times).repeat_interleave(2, 1)
        chance = kappa.where(noisy, 1 - kappa).prod(1)
        found = block_diffusion(logits, truth, hidden, times, 2, MASK, scheduler)
        total += float(weight * other * (chance * found).sum())
    assert total == pytest.approx(-float(torch.log(table[clean])), abs=1e-9)


def test_block_diffusion_of_one_block_is_masked_diffusion() -> None:
    """Also if the block is longer than what is left of the text."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, SIZE + 1, generator=generator)
    clean = torch.randint(SIZE, (5, 3), generator=generator)
    time = torch.rand(5, generator=generator)
    noisy = mask_noise(clean, time, torch.rand(5, 3, generator=generator), MASK)
    whole = masked_diffusion(logits, clean, noisy, time, MASK)
    assert torch.allclose(block_diffusion(logits, clean, noisy, time[:, None], 4, MASK), whole)


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=NAMES)
@pytest.mark.parametrize("clean", [(0, 0), (2, 1)])
def test_uniform_diffusion_is_exact_for_the_posterior_given_the_others(
    scheduler: Scheduler, clean: tuple[int, int]
) -> None:
    """The bound is -log p then."""
    table = joint()

    loss = partial(uniform_diffusion, scheduler=scheduler)

    exact = expected(loss, uniform_model(table, scheduler, others=True), clean, scheduler, masks=False, count=300)
    assert exact == pytest.approx(-float(torch.log(table[clean])), abs=1e-3)


def mean_over_data(loss: Loss, speaks: Speaks, table: Tensor, *, count: int = 40) -> float:
    return sum(
        float(table[clean]) * expected(loss, speaks, clean, Scheduler(), masks=False, count=count)
        for clean in itertools.product(range(SIZE), repeat=2)
    )


def test_what_uniform_losses_want() -> None:
    """Uniform diffusion the posterior given the others, generalised divergence and cross-entropy given all."""
    table = joint(seed=2)
    others, all_ = (uniform_model(table, Scheduler(), others=kind) for kind in (True, False))

    def plain(logits: Tensor, clean: Tensor, _noisy: Tensor, _time: Tensor) -> Tensor:
        return cross_entropy(logits, clean)

    assert mean_over_data(uniform_diffusion, others, table) < mean_over_data(uniform_diffusion, all_, table) - 0.01
    for loss in (generalised_kl, plain):
        assert mean_over_data(loss, all_, table) < mean_over_data(loss, others, table) - 0.01


@pytest.mark.parametrize("kind", ["generalised", "cross-entropy"])
def test_the_posterior_is_where_the_loss_is_least(kind: str) -> None:
    """At one time and one noisy text the gradient, averaged over the clean texts behind it, is zero."""
    table, time = joint(seed=4), torch.tensor(0.4, dtype=torch.float64)
    clean = sequences(SIZE, 2)
    for noisy in sequences(SIZE, 2):
        seen = seen_uniform(noisy[None], time[None])
        behind = (table.flatten() * seen[0, 0, clean[:, 0]] * seen[0, 1, clean[:, 1]])[:, None]
        logits = torch.log(posterior(table, seen)).requires_grad_()
        spread, each = logits.expand(len(clean), -1, -1), noisy.expand(len(clean), -1)
        if kind == "generalised":
            loss = generalised_kl(spread, clean, each, time.expand(len(clean)))
        else:
            loss = cross_entropy(spread, clean)
        (gradient,) = torch.autograd.grad((behind[:, 0] * loss).sum(), logits)
        assert gradient.abs().max() < 1e-12


def test_generalised_kl_from_masks_is_masked_diffusion() -> None:
    """With substituted logits; committed positions then cost nothing."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 5, SIZE + 1, generator=generator, dtype=torch.float64)
    clean = torch.randint(SIZE, (6, 5), generator=generator)
    time = torch.rand(6, generator=generator, dtype=torch.float64)
    noisy = mask_noise(clean, time, torch.rand(6, 5, generator=generator), MASK)
    for scheduler in SCHEDULERS:
        flow = generalised_kl(substituted(logits, noisy, MASK), clean, noisy, time, scheduler)
        assert torch.allclose(flow, masked_diffusion(logits, clean, noisy, time, MASK, scheduler))


def chain_bound(table: Tensor, clean: tuple[int, int], count: int) -> float:
    """The bound of the sampler's own chain in `count` steps from random tokens, enumerated step by step."""
    texts = sequences(SIZE, 2)
    truth, total = torch.tensor(clean), 0.0
    for step in range(count):
        kappa, after = step / count, (step + 1) / count
        jump = (after - kappa) / (1 - kappa)
        level = torch.full((len(texts),), kappa, dtype=torch.float64)
        said = posterior(table, seen_uniform(texts, level))
        stay = torch.nn.functional.one_hot(texts, SIZE)
        model = (1 - jump) * stay + jump * said
        true = (1 - jump) * stay + jump * torch.nn.functional.one_hot(truth, SIZE)
        divergence = torch.special.xlogy(true, true / model).sum((-2, -1))
        chance = (kappa * (texts == truth) + (1 - kappa) / SIZE).prod(1)
        total += float((chance * divergence).sum())
    return total


@pytest.mark.parametrize("clean", [(0, 0), (2, 1)])
def test_generalised_kl_is_the_bound_of_the_sampler(clean: tuple[int, int]) -> None:
    """Of the chain that flow_uniform follows, in the limit of many steps; above -log p on average."""
    table = joint()
    speaks = uniform_model(table, Scheduler(), others=False)
    found = expected(generalised_kl, speaks, clean, Scheduler(), masks=False, count=300)
    coarse, fine = chain_bound(table, clean, 1000), chain_bound(table, clean, 2000)
    assert found == pytest.approx(2 * fine - coarse, abs=2e-3)


def test_generalised_kl_from_random_tokens_is_never_exact() -> None:
    """A perfect model pays for not knowing what has jumped."""
    table = joint()
    entropy = -float((table * table.log()).sum())
    assert mean_over_data(generalised_kl, uniform_model(table, Scheduler(), others=False), table) > entropy + 0.02
    exact = mean_over_data(uniform_diffusion, uniform_model(table, Scheduler(), others=True), table, count=200)
    assert exact == pytest.approx(entropy, abs=1e-3)


def test_cross_entropy_counts_what_it_is_told() -> None:
    """Equal logits cost log V a position."""
    logits, clean = torch.zeros(2, 3, SIZE), torch.tensor([[0, 1, 2], [2, 2, 2]])
    counted = torch.tensor([[True, False, True], [False, False, False]])
    each = float(torch.tensor(float(SIZE)).log())
    assert cross_entropy(logits, clean).tolist() == pytest.approx([3 * each, 3 * each])
    assert cross_entropy(logits, clean, counted).tolist() == pytest.approx([2 * each, 0.0])


def test_the_gradient_of_masked_diffusion_is_finite() -> None:
    """Though the mask has no probability, and committed positions whatever the model says."""
    logits = torch.randn(2, 4, SIZE + 1, generator=torch.Generator().manual_seed(5)).requires_grad_()
    clean = torch.tensor([[0, 1, 2, 0], [1, 1, 0, 2]])
    noisy = torch.tensor([[0, MASK, MASK, 0], [MASK, 1, 0, MASK]])
    time = torch.tensor([0.3, 0.6])
    (plain,) = torch.autograd.grad(masked_diffusion(logits, clean, noisy, time, MASK).sum(), logits)
    (flow,) = torch.autograd.grad(generalised_kl(substituted(logits, noisy, MASK), clean, noisy, time).sum(), logits)
    assert torch.isfinite(plain).all()
    assert torch.allclose(plain, flow, atol=1e-6)
    assert not plain[noisy != MASK].any()


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=NAMES)
def test_noise_comes_at_its_rate(scheduler: Scheduler) -> None:
    """Exactly kappa of evenly spread luck is kept, at one time a text or a position."""
    clean, luck = torch.zeros(2, 1000, dtype=torch.int64), (torch.arange(1000) + 0.5).expand(2, -1) / 1000
    time = torch.tensor([0.25, 0.8])
    kept = [round(1000 * scheduler.at(float(each))) for each in time]
    masked = mask_noise(clean, time, luck, MASK, scheduler)
    other = uniform_noise(clean, time[:, None].expand(2, 1000), luck, clean + 1, scheduler)
    assert (masked == 0).sum(1).tolist() == (other == 0).sum(1).tolist() == kept
    assert masked.max() == MASK
    assert other.max() == 1
