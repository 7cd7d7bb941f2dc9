"""Rules that remember: KLASS, CreditDecoding and SlowFast, pass by pass against their definitions."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins.errors import OptionError
from dllm_plugins.rules import CreditRule
from dllm_plugins.rules import KlassRule
from dllm_plugins.rules import SlowFastRule
from dllm_plugins.rules.base import check_parameters
from tests.rules.views import Run
from tests.rules.views import config
from tests.rules.views import view

SURE, MOVED, UNSURE = [0.95, 0.03, 0.02], [0.91, 0.08, 0.01], [0.4, 0.35, 0.25]


def klass_view(rows: list[list[float]], **more: Any) -> Any:
    probabilities = torch.tensor([rows])
    return view(probabilities.amax(-1).tolist(), probabilities=probabilities, **more)


def test_klass_waits_for_two_stable_passes() -> None:
    """p > 0.9 and KL < 0.01 twice: in the third pass at the earliest; else the most probable one."""
    run = Run(KlassRule())
    rows = [SURE, SURE, MOVED, UNSURE]
    assert run(klass_view(rows, step=0)) == [[0]]
    assert run(klass_view(rows, step=1, closed=(0,))) == [[1]]
    assert run(klass_view(rows, step=2, closed=(0, 1))) == [[2]]
    run = Run(KlassRule())
    run(klass_view(rows, step=0, committed_now=1))
    run(klass_view(rows, step=1, committed_now=1))
    assert run(klass_view(rows, step=2, committed_now=1)) == [[0, 1, 2]]


def test_klass_measures_what_moved() -> None:
    """KL(p_t || p_(t-1)) by hand; one large move counts for as long as the history is."""
    moved = sum(p * math.log(p / q) for p, q in zip(MOVED, SURE, strict=True))
    assert 0.01 < moved < 0.05
    for history, divergence, expected in ((1, 0.05, 1), (1, 0.01, 2), (2, 0.01, 3), (3, 0.01, 4), (3, 0.05, 3)):
        run = Run(KlassRule(), own={"history": history, "divergence": divergence})
        found = []
        for step, row in enumerate([SURE, MOVED, MOVED, MOVED, MOVED, MOVED]):
            found.append(run(klass_view([row, UNSURE], step=step, committed_now=1)))
        assert found.index([[0]]) == expected, (history, divergence)


def test_klass_names_positions_by_place() -> None:
    """The canvas slides by one; what is new starts anew, what was not there for a pass, too."""
    run = Run(KlassRule(), own={"history": 1})
    run(klass_view([SURE, SURE, SURE], step=4, committed_now=1))
    assert run(klass_view([SURE, SURE, SURE], step=5, committed_now=1, first=1)) == [[0, 1]]
    assert run(klass_view([SURE, SURE, SURE], step=7, committed_now=1, first=1)) == [[]]
    assert run(klass_view([SURE, SURE, SURE], step=0, committed_now=1, first=50)) == [[]]


def test_klass_counts_a_pass_once() -> None:
    """Calls with the same step replace each other."""
    run = Run(KlassRule())
    for step in (0, 1, 1, 1):
        assert run(klass_view([SURE, SURE], step=step, committed_now=1)) == [[]]
    assert run(klass_view([UNSURE, SURE], step=2, committed_now=1)) == [[1]]
    assert run(klass_view([SURE, SURE], step=2, committed_now=1)) == [[0, 1]]


def credit_by_hand(passes: list[list[float]], alpha: float, gamma: float, beta: float) -> list[list[float]]:
    """The paper's recurrence at one position: C <- beta C + [v is the likeliest] p^gamma; f + alpha log(1 + C)."""
    credit, fused = [0.0] * len(passes[0]), []
    for logits in passes:
        total = sum(math.exp(logit) for logit in logits)
        best = max(range(len(logits)), key=lambda token: logits[token])
        credit = [beta * value for value in credit]
        credit[best] += (math.exp(logits[best]) / total) ** gamma
        fused.append([logit + alpha * math.log1p(value) for logit, value in zip(logits, credit, strict=True)])
    return fused


@pytest.mark.parametrize(
    ("alpha", "gamma", "beta"), [(0.7, 0.2, 0.8), (2.0, 1.0, 0.5), (0.7, 0.0, 1.0), (1.0, 0.2, 0.0)]
)
def test_credit_fuses_logits_as_the_paper(alpha: float, gamma: float, beta: float) -> None:
    """Four passes over three positions of which one is committed on the way."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 3, 5, generator=generator)
    asked = config(own={"alpha": alpha, "gamma": gamma, "beta": beta})
    rule, state = CreditRule(), None
    expected = [credit_by_hand(logits[:, position].tolist(), alpha, gamma, beta) for position in range(3)]
    for step in range(4):
        positions = torch.tensor([0, 1, 2] if step < 2 else [0, 2])
        fused, state = rule.rescore(logits[step, positions], positions, step, asked, state)
        for number, position in enumerate(positions.tolist()):
            assert fused[number].tolist() == pytest.approx(expected[position][step], abs=1e-5)


def test_credit_is_paid_once_a_pass() -> None:
    """A second call with the same step replaces the first; the old canvas makes room for the new one."""
    rule, asked = CreditRule(), config()
    first, other = torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.tensor([[0.0, 3.0], [1.0, 2.0]])
    positions = torch.tensor([4, 5])
    once, state = rule.rescore(first, positions, 0, asked, None)
    assert torch.equal(once, rule.rescore(first, positions, 0, asked, state)[0])
    _, state = rule.rescore(other[:1], positions[:1], 0, asked, state)
    again, _ = rule.rescore(first, positions, 1, asked, state)
    _, alone = rule.rescore(other[:1], positions[:1], 0, asked, None)
    assert torch.equal(again[:1], rule.rescore(first[:1], positions[:1], 1, asked, alone)[0])
    slid, _ = rule.rescore(first, torch.tensor([5, 6]), 1, asked, state)
    fresh, _ = rule.rescore(first, torch.tensor([6, 7]), 1, asked, state)
    assert torch.equal(slid[1], once[1])
    assert torch.equal(fresh, once)
    assert float(slid[0, 1]) > float(once[0, 1])
    assert rule.rescore(first.bfloat16(), positions, 0, asked, None)[0].dtype == torch.bfloat16


def test_credit_commits_earlier_than_the_threshold_rule() -> None:
    """A token of 0.87 with the same prediction again and again passes 0.9."""
    rule, asked, state = CreditRule(), config(), None
    logits, passed = torch.log(torch.tensor([[0.87, 0.13]])), []
    for step in range(4):
        fused, state = rule.rescore(logits, torch.tensor([0]), step, asked, state)
        seen = view([[float(torch.softmax(fused, -1)[0, 0])]], step=step, committed_now=1)
        decision, state = rule.decide(seen, (asked,), state)
        passed.append(bool(decision[0, 0]))
    assert passed == [True] * 4
    weak = torch.log(torch.tensor([[0.8, 0.2]]))
    passed, state = [], None
    for step in range(4):
        fused, state = rule.rescore(weak, torch.tensor([0]), step, asked, state)
        decision, state = rule.decide(
            view([[float(torch.softmax(fused, -1)[0, 0])]], step=step, committed_now=1), (asked,), state
        )
        passed.append(bool(decision[0, 0]))
    assert passed == [False, False, True, True]


def slow_fast(**own: Any) -> Run:
    return Run(SlowFastRule(), threshold=0.8, own={"span": 0.3, **own})


def test_slow_fast_explores_until_the_end_stands_still() -> None:
    """Slow passes commit one; two equal ends, and the third pass commits what is sure inside the span only."""
    run = slow_fast()
    numbers = [[0.5, 0.9, 0.85, 0.35, 0.1, 0.2, 0.1, 0.1]]
    assert run(view(numbers, step=0)) == [[1]]
    assert run(view(numbers, step=1, closed=(1,))) == [[2]]
    sure = [[0.5, 0.0, 0.0, 0.81, 0.9, 0.9, 0.1, 0.1]]
    assert run(view(sure, step=2, closed=(1, 2))) == [[3]]
    assert run(view([[0.5, 0, 0, 0, 0.99, 0.99, 0.99, 0.1]], step=3, closed=(1, 2, 3))) == [[0]]
    # The span is full: the next cycle explores again, behind it.
    assert run(view([[0, 0, 0, 0, 0.99, 0.9, 0.9, 0.1]], step=4, closed=(0, 1, 2, 3))) == [[4]]
    assert run(view([[0, 0, 0, 0, 0, 0.9, 0.9, 0.1]], step=5, closed=(0, 1, 2, 3, 4))) == [[5]]
    assert run(view([[0, 0, 0, 0, 0, 0, 0.9, 0.95]], step=6, closed=(0, 1, 2, 3, 4, 5))) == [[6]]


def test_slow_fast_gives_up_exploring() -> None:
    """Ends 2, 8, 2, 8: never stable, so after four passes the mean of the last two, 5, is the end."""
    run = slow_fast(exploration=4)
    near, far = [[0.4, 0.4] + [0.1] * 6], [[0.4, 0.4] + [0.1] * 5 + [0.4]]
    for step, numbers in enumerate((near, far, near, far)):
        assert len(run(view(numbers, step=step))[0]) == 1
    assert run(view([[0.9] * 8], step=4)) == [[0, 1, 2, 3, 4]]


def test_slow_fast_counts_a_pass_once_and_begins_anew_with_a_block() -> None:
    """Two calls with one step are one slow pass; places behind all it saw are a new canvas."""
    run, numbers = slow_fast(), [[0.9] * 4]
    assert run(view(numbers, step=0)) == [[0]]
    assert run(view(numbers, step=0, committed_now=1)) == [[]]
    assert run(view(numbers, step=0, first=4)) == [[0]]
    assert run(view(numbers, step=1, first=4, closed=(0,))) == [[1]]
    assert run(view(numbers, step=2, first=4, closed=(0, 1))) == [[2, 3]]


def test_slow_fast_commits_several_a_slow_pass() -> None:
    """`slow` of them, less what the pass committed."""
    assert slow_fast(slow=3)(view([[0.5, 0.6, 0.7, 0.8]])) == [[1, 2, 3]]
    assert slow_fast(slow=3)(view([[0.5, 0.6, 0.7, 0.8]], committed_now=2)) == [[3]]


@pytest.mark.parametrize(
    ("rule", "own", "words"),
    [
        (KlassRule(), {"history": 0}, "history"),
        (KlassRule(), {"kl": 1.0}, "it takes: divergence, history"),
        (CreditRule(), {"beta": 1.5}, "beta"),
        (SlowFastRule(), {"window": 9}, "longer than exploration"),
    ],
)
def test_bad_parameters_are_refused(rule: Any, own: dict[str, Any], words: str) -> None:
    """When the request is admitted."""
    with pytest.raises(OptionError, match=words):
        check_parameters(rule, config(own=own))


def test_rules_are_pure() -> None:
    """A state that was handed out is not written to: asked again, a rule says the same."""
    rule, numbers = KlassRule(), klass_view([SURE, MOVED], step=0, committed_now=1)
    _, first = rule.decide(numbers, (config(),), None)
    before = [getattr(first, name).clone() for name in ("now", "moves", "step", "before")]
    later = klass_view([MOVED, MOVED], step=1, committed_now=1)
    one, other = rule.decide(later, (config(),), first), rule.decide(later, (config(),), first)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1].moves, other[1].moves)
    for name, value in zip(("now", "moves", "step", "before"), before, strict=True):
        kept: Tensor = getattr(first, name)
        assert torch.equal(kept, value)
