"""The open positions of one pass, while they are being committed."""

from dataclasses import dataclass
from dataclasses import field

import torch
from torch import Tensor

from dllm_plugins.decoding.canvas import Canvas
from dllm_plugins.decoding.program import Answer
from dllm_plugins.rules.at_work import RulesAtWork
from dllm_plugins.rules.base import CanvasView
from dllm_plugins.rules.view import Positions
from dllm_plugins.rules.view import Seen

_NONE = torch.empty(0)


@dataclass(slots=True)
class Opened:
    """What a pass said about N open positions; a position may be predicted again in the same pass.

    :param hidden: [N, width].
    :param token: what was drawn last at each.
    :param measured: probability, entropy and margin, float32 [N] on the CPU, once something was said and where the
        rule reads them.
    :param logits: [V] by index, where they are wanted.
    :param committed_now: tokens that this pass has committed already; the frontier counts.
    """

    canvas: Canvas
    hidden: Tensor
    positions: list[int]
    token: list[int] = field(default_factory=list)
    measured: dict[str, Tensor] = field(default_factory=dict)
    logits: dict[int, Tensor] = field(default_factory=dict)
    committed_now: int = 1

    def known(self, position: int) -> int:
        """The token at `position`, -1 if it is open."""
        token = self.canvas.tokens[position]
        return -1 if token == self.canvas.mask else token

    def known_before(self, distance: int) -> list[int]:
        """The tokens that far left of each position, -1 where open."""
        return [self.known(position - distance) for position in self.positions]

    def take(self, indices: list[int], answer: Answer, left: list[int] | None, needs: frozenset[str]) -> None:
        """Take in what was said at some of the positions.

        :param left: tokens left of all positions; one that repeats its own counts as impossible, to be drawn again.
        """
        where = None if len(indices) == len(self.positions) else torch.tensor(indices)
        for name in ("probability", *(name for name in ("entropy", "margin") if name in needs)):
            self.measured[name] = _with(self.measured.get(name, _NONE), where, getattr(answer, name))
        self.token = self.token or [0] * len(self.positions)
        for number, index in enumerate(indices):
            token = self.token[index] = answer.tokens[number]
            if answer.has_logits:
                self.logits[index] = answer.logits[number]
            if left is not None and token == left[index]:
                self.measured["probability"][index] = 0.0

    def view(self, rules: RulesAtWork, width: int, step: int) -> CanvasView:
        """What the rules see: the open positions, filled up to the block's length `width`."""
        count, prompt = len(self.positions), self.canvas.prompt
        padding = width - count
        logits = torch.stack([self.logits[index] for index in range(count)]) if self.logits else _NONE
        token = torch.tensor(self.token) if rules.needs & {"token", "drawn"} else _NONE
        known = self.known_before(0)
        positions = Positions(
            tokens=known + [-1] * padding,
            open=[token < 0 for token in known] + [False] * padding,
            committed=[False] * width,
            position=[position - prompt for position in self.positions] + [-1] * padding,
        )
        seen = Seen(
            None, token, self.measured["probability"], logits, self.measured.get("entropy"), self.measured.get("margin")
        )
        return rules.view(positions, seen, committed_now=self.committed_now, step=step)


def _with(values: Tensor, where: Tensor | None, new: Tensor) -> Tensor:
    """Values [n] with new ones at the indices `where`, all if None; float32 on the CPU."""
    new = new.detach().to("cpu", torch.float32)
    return new.clone() if where is None else values.index_copy(0, where, new)
