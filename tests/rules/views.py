"""Views of small canvases, made by hand."""

from typing import Any

import torch
from torch import Tensor

from dllm_plugins import SamplingConfig
from dllm_plugins.noise import RowNoise
from dllm_plugins.rules import CanvasView
from dllm_plugins.rules import CommitRule


def view(
    probability: list[list[float]],
    *,
    closed: tuple[int, ...] = (),
    meanwhile: tuple[int, ...] = (),
    committed_now: int | None = None,
    step: int = 0,
    first: int = 0,
    position: list[int] | None = None,
    **more: Any,
) -> CanvasView:
    """A canvas of some rows, all alike but for their numbers.

    :param closed: positions earlier passes committed; `meanwhile`: those of this pass.
    :param first: the place of the first position, if `position` does not name all of them.
    """
    numbers = torch.tensor(probability)
    rows, width = numbers.shape
    is_open, committed = torch.ones(rows, width, dtype=torch.bool), torch.zeros(rows, width, dtype=torch.bool)
    is_open[:, [*closed, *meanwhile]] = False
    committed[:, list(closed)] = True
    return CanvasView(
        probability=numbers,
        open=is_open,
        committed_now=torch.full((rows,), len(meanwhile) if committed_now is None else committed_now),
        step=torch.full((rows,), step),
        noise=tuple(RowNoise(seed) for seed in range(rows)),
        position=torch.tensor([position or list(range(first, first + width))]).expand(rows, -1),
        committed=committed,
        **{name: torch.as_tensor(values) for name, values in more.items()},
    )


def config(**options: Any) -> SamplingConfig:
    """Options of the engine, and of the rule: `own`."""
    own = options.pop("own", None)
    return SamplingConfig(rule_options=own, **options)


def positions(decision: Tensor) -> list[list[int]]:
    """Chosen positions of each row."""
    return [row.nonzero()[:, 0].tolist() for row in decision]


def chosen(rule: CommitRule, seen: CanvasView, **options: Any) -> list[list[int]]:
    """What a rule without memory commits."""
    return positions(rule.decide(seen, (config(**options),) * len(seen.open), None)[0])


class Run:
    """A rule with a memory, pass by pass."""

    def __init__(self, rule: CommitRule, **options: Any) -> None:
        self.rule = rule
        self.options = options
        self.state: Any = None

    def __call__(self, seen: CanvasView) -> list[list[int]]:
        decision, self.state = self.rule.decide(seen, (config(**self.options),) * len(seen.open), self.state)
        return positions(decision)
