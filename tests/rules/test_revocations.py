"""Rules that take tokens back, as pure functions."""

from typing import Any

import pytest
import torch

from dllm_plugins import SamplingConfig
from dllm_plugins.errors import OptionError
from dllm_plugins.rules import CanvasView
from dllm_plugins.rules import DoubtRule
from dllm_plugins.rules import EditRule
from dllm_plugins.rules import RevocationRule
from dllm_plugins.rules.base import revocation_parameters
from tests.rules.views import positions
from tests.rules.views import view


class Revoking:
    """A rule with a memory, pass by pass."""

    def __init__(self, rule: RevocationRule, **own: Any) -> None:
        self.rule = rule
        self.config = SamplingConfig(revoke=rule.name, revoke_options=own)
        self.state: Any = None

    def __call__(self, seen: CanvasView) -> list[list[int]]:
        decision, self.state = self.rule.revoke(seen, (self.config,) * len(seen.open), self.state)
        return positions(decision)


HELD = [[0.05, 0.01, 0.5, 0.02, 0.0]]


def doubted(**more: Any) -> CanvasView:
    return view([[0.9] * 5], held=HELD, **{"closed": (0, 1, 2, 3), **more})


def test_doubt_reopens_the_least_probable() -> None:
    """Committed ones below the threshold only, so many a pass."""
    assert Revoking(DoubtRule())(doubted()) == [[1]]
    assert Revoking(DoubtRule(), most=2)(doubted()) == [[1, 3]]
    assert Revoking(DoubtRule(), most=9)(doubted()) == [[0, 1, 3]]
    assert Revoking(DoubtRule(), most=9, threshold=0.6)(doubted()) == [[0, 1, 2, 3]]
    assert Revoking(DoubtRule(), threshold=0.01)(doubted()) == [[]]
    assert Revoking(DoubtRule())(doubted(closed=())) == [[]]


def test_doubt_ends() -> None:
    """Each place `times` times, wherever the canvas has slid to."""
    rule = Revoking(DoubtRule(), times=2)
    found = [rule(doubted(step=step)) for step in range(8)]
    assert found == [[[1]], [[1]], [[3]], [[3]], [[0]], [[0]], [[]], [[]]]
    rule = Revoking(DoubtRule())
    assert rule(doubted()) == [[1]]
    assert rule(doubted(first=1)) == [[1]]
    assert rule(doubted(first=2)) == [[1]]


def test_edit_overwrites_by_another_sure_token() -> None:
    """LLaDA2.1: committed, another token, and more probable than the threshold."""
    more: dict[str, Any] = {"token": [[7, 7, 7, 7]], "drawn": [[8, 7, 8, 8]]}
    seen = view([[0.95, 0.99, 0.9, 0.99]], closed=(0, 1, 2), **more)
    assert Revoking(EditRule())(seen) == [[0]]
    assert Revoking(EditRule(), edit_threshold=0.5)(seen) == [[0, 2]]
    assert Revoking(EditRule(), edit_threshold=1.0)(seen) == [[]]
    assert EditRule.replaces
    assert not DoubtRule.replaces


@pytest.mark.parametrize(
    ("rule", "own", "words"),
    [
        (DoubtRule(), {"most": 0}, "most"),
        (DoubtRule(), {"edit_threshold": 0.5}, "it takes: most, threshold, times"),
        (EditRule(), {"edit_threshold": 2.0}, "edit_threshold"),
    ],
)
def test_bad_parameters_are_refused(rule: RevocationRule, own: dict[str, Any], words: str) -> None:
    """When the request is admitted."""
    with pytest.raises(OptionError, match=words):
        revocation_parameters(rule.settings, SamplingConfig(revoke_options=own), rule.name)


@pytest.mark.parametrize("rule", [DoubtRule(), EditRule()], ids=lambda rule: rule.name)
def test_rows_do_not_see_each_other(rule: RevocationRule) -> None:
    """On random canvases, for six passes: a subset of what is committed, and a batch equals its rows."""
    generator, configs = torch.Generator().manual_seed(3), (SamplingConfig(),) * 3
    together, alone = None, [None] * 3
    for step in range(6):
        seen = view(
            torch.rand(3, 8, generator=generator).tolist(),
            closed=(0, 1, 2, 5, 6),
            step=step,
            held=torch.rand(3, 8, generator=generator) / 5,
            token=torch.randint(3, (3, 8), generator=generator),
            drawn=torch.randint(3, (3, 8), generator=generator),
        )
        decision, together = rule.revoke(seen, configs, together)
        assert not (decision & ~seen.committed).any()
        for row in range(3):
            own, alone[row] = rule.revoke(one_row(seen, row), configs[:1], alone[row])
            assert torch.equal(own[0], decision[row])


def one_row(seen: CanvasView, row: int) -> CanvasView:
    """A view of one row of it."""
    names = ("probability", "open", "committed_now", "step", "position", "committed", "token", "drawn", "held")
    return CanvasView(noise=seen.noise[row : row + 1], **{name: getattr(seen, name)[row : row + 1] for name in names})
