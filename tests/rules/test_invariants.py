"""What holds for every commit rule there is, on random canvases that are followed to their end."""

from typing import Any

import pytest
import torch
from torch import Tensor

from dllm_plugins import SamplingConfig
from dllm_plugins import plugins
from dllm_plugins.noise import RowNoise
from dllm_plugins.rules import CanvasView
from dllm_plugins.rules.view import Positions
from dllm_plugins.rules.view import Seen
from dllm_plugins.rules.view import make_view
from tests.rules.test_rules_decode import OPTIONS

RULES = plugins.rules()
VOCABULARY, WIDTH = 7, 8
EVERYTHING = frozenset({"token", "drawn", "entropy", "margin", "held", "probabilities"})
WAYS = [(rule, options) for rule in sorted(RULES) for options in ({}, *OPTIONS.get(rule, []))]


class Canvas:
    """A row of a canvas in front of a model that says anything."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.tokens = [-1] * WIDTH
        self.passes = 0
        self.state: Any = None

    @property
    def opened(self) -> list[int]:
        return [position for position, token in enumerate(self.tokens) if token < 0]

    def look(self, rule: Any, config: SamplingConfig, committed_now: int = 0) -> CanvasView:
        """What a pass said, drawn by a generator of this row and pass."""
        generator = torch.Generator().manual_seed(1000 * self.seed + self.passes)
        opened = torch.tensor(self.opened)
        logits = 3 * torch.randn(WIDTH, VOCABULARY, generator=generator)[opened]
        if hasattr(rule, "rescore"):
            logits, self.state = rule.rescore(logits, opened, self.passes, config, self.state)
        token = logits.argmax(-1)
        probability = torch.softmax(logits, -1).gather(1, token[:, None])[:, 0]
        positions = Positions(
            tokens=self.tokens,
            open=[token < 0 for token in self.tokens],
            committed=[token >= 0 for token in self.tokens],
            position=list(range(WIDTH)),
        )
        return make_view(
            positions,
            Seen(opened, token, probability, logits),
            EVERYTHING,
            committed_now=committed_now,
            step=self.passes,
            noise=RowNoise(self.seed),
        )

    def commit(self, decision: Tensor, seen: CanvasView) -> None:
        for position in decision.nonzero()[:, 0].tolist():
            self.tokens[position] = int(seen.token[0, position])
        self.passes += 1


@pytest.mark.parametrize(("name", "options"), WAYS, ids=str)
def test_every_rule_ends(name: str, options: dict[str, Any]) -> None:
    """A subset of the open positions, one at least a pass, the same if asked again; then all is committed."""
    rule, config = RULES[name], SamplingConfig(rule=name, **options)
    for seed in range(12):
        canvas = Canvas(seed)
        while canvas.opened:
            seen = canvas.look(rule, config)
            decision, state = rule.decide(seen, (config,), canvas.state)
            again, _ = rule.decide(seen, (config,), canvas.state)
            assert decision.dtype == torch.bool
            assert not (decision & ~seen.open).any()
            assert decision.any()
            assert torch.equal(decision, again)
            canvas.state = state
            canvas.commit(decision[0], seen)
        assert canvas.passes <= WIDTH


@pytest.mark.parametrize(("name", "options"), WAYS, ids=str)
def test_a_batch_equals_its_rows(name: str, options: dict[str, Any]) -> None:
    """Three rows in one call, pass by pass, each with a memory of its own."""
    rule, config = RULES[name], SamplingConfig(rule=name, **options)
    canvases, together = [Canvas(seed) for seed in range(3)], None
    for _ in range(4):
        if not all(canvas.opened for canvas in canvases):
            break
        seen = [canvas.look(rule, config) for canvas in canvases]
        decision, together = rule.decide(joined(seen), (config,) * 3, together)
        for row, (canvas, view) in enumerate(zip(canvases, seen, strict=True)):
            own, canvas.state = rule.decide(view, (config,), canvas.state)
            assert torch.equal(own[0], decision[row])
            canvas.commit(own[0], view)


def joined(views: list[CanvasView]) -> CanvasView:
    """One view of several rows."""
    names = ("probability", "open", "committed_now", "step", "position", "committed", *sorted(EVERYTHING))
    return CanvasView(
        noise=tuple(noise for view in views for noise in view.noise),
        **{name: torch.cat([getattr(view, name) for view in views]) for name in names},
    )


@pytest.mark.parametrize(("name", "options"), WAYS, ids=str)
def test_the_frontier_may_be_all_a_pass_commits(name: str, options: dict[str, Any]) -> None:
    """Where the pass committed a token already, a rule may commit none, and never a closed position."""
    rule, config, canvas = RULES[name], SamplingConfig(rule=name, **options), Canvas(5)
    canvas.tokens[2] = 1
    seen = canvas.look(rule, config, committed_now=1)
    decision, _ = rule.decide(seen, (config,), canvas.state)
    assert not (decision & ~seen.open).any()
